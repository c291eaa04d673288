"""A recipe -> its run folder, see `run`: the same way for every kind of recipe, which brings a `Job`."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import keras

from kerasformer.config import Run, TextRecipe
from kerasformer.data.sources import Source
from kerasformer.training import classify, language
from kerasformer.training.callbacks import BestModel, MetricsLog, MetricsTable, ProgressBar
from kerasformer.training.compiler import choose_jit
from kerasformer.training.job import Job
from kerasformer.training.meter import Meter
from kerasformer.training.optimizers import of_recipe
from kerasformer.training.precision import dtype_policy
from kerasformer.training.profiling import Profile
from kerasformer.training.resuming import Training, origin_of
from kerasformer.training.run import LOG, TABLE, begin, figures_of, finish, hyperparameters, kind_of, of_chief
from kerasformer.training.strategies import is_chief, workers_answer
from kerasformer.training.tensorboard import TensorBoard
from kerasformer.training.tuning import freeze

logger = logging.getLogger(__name__)


@workers_answer()
def train(recipe: Run, source: Source | None = None) -> dict[str, float | str]:
    """Trains a model as the recipe says, or goes on to, and returns the figures of the best one.

    Everything that the input can be wrong about is found before anything is written.

    Args:
        source: a classifier's training set where it is no file; `recipe.data.train` goes before it.

    Raises:
        InputError: bad input, or a run folder that is in use.
        Stopped: a signal ended the training; the same recipe goes on from there.
    """
    source = recipe.data.train or (None if isinstance(recipe, TextRecipe) else source)
    recipe.check(source is not None)
    strategy = begin(recipe)
    if figures := figures_of(recipe):  # of several workers all find them, or none
        return figures
    policy = dtype_policy(recipe.train.precision)
    with strategy.scope():
        job = _kind(type(recipe)).job(recipe, source, policy)
        freeze(job.model, recipe.train.freeze)
        optimizer = of_recipe(recipe.train, job.model, job.steps)
    logger.info("precision: %s", policy)
    logger.info("training on %s", job.summary(job.training))
    if job.validation is not None:
        logger.info("validating on %s", job.summary(job.validation))

    origin = origin_of(job.model, recipe.model.from_pretrained)
    run = Training(recipe, job.training, job.validation, job.steps, job.interval, origin)
    with strategy.scope():
        jit_compile = compile_model(recipe, job, optimizer, run)
    seconds = run.fit(job.model, callbacks(recipe, job), jit_compile, class_weight=job.class_weight)
    figures = {"train_seconds": round(seconds, 1), "model": str(recipe.folder / "model")}
    if job.validation is not None and is_chief():
        # What is reported is the model as it was saved, in float32, as it will be served, on all that was held out.
        figures = job.figures(recipe.folder / "model") | figures
    return finish(recipe, figures)


def compile_model(recipe: Run, job: Job, optimizer: keras.Optimizer, run: Training) -> bool | str:
    """Compiles the model, and with XLA if it pays, as was found where the training began; returns what it chose."""
    settings, jit_compile = recipe.train, run.jit_compile
    job.model.backbone.set_remat(settings.remat == "blocks")
    options = {"loss": job.loss, "accumulate": settings.accumulate}
    options["steps_per_execution"] = math.gcd(job.steps_per_execution, run.first)
    if jit_compile is None:
        job.model.compile(optimizer, **options)
        dataset, shapes = job.trial()  # which also finds data that are not for the model, before a folder is written
        jit_compile = choose_jit(job.model, dataset, job.steps, settings.compile, shapes)
    job.model.compile(optimizer, **options, jit_compile=jit_compile)
    return jit_compile


def callbacks(recipe: Run, job: Job) -> list[keras.callbacks.Callback]:
    """The callbacks of a run, in the order in which they see an evaluation's logs."""
    settings = recipe.train
    unit = "evaluation" if settings.epochs is None else "epoch"
    return [
        Meter(settings.peak_tflops),
        *([job.evaluation] if job.evaluation else []),
        BestModel(recipe.folder / "model", job.monitor, settings.early_stopping),
        *of_chief(
            MetricsLog(recipe.folder / LOG, unit),
            MetricsTable(recipe.folder / TABLE),
            *([Profile(recipe.folder, settings.profile)] if settings.profile else []),
            TensorBoard(recipe.folder, hyperparameters=hyperparameters(recipe), **job.shown),
            ProgressBar(job.steps, epoch=unit),
        ),
    ]


def evaluate_run(folder: Path, files: Sequence[Path]) -> dict[str, float]:
    """Evaluates a run's best model on files, read as the run's recipe says.

    Raises:
        InputError: no run, or files that do not fit it.
    """
    return _kind(kind_of(folder)).evaluate_run(folder, files)


def _kind(recipe: type[Run]) -> ModuleType:
    return language if issubclass(recipe, TextRecipe) else classify
