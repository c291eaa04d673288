"""A classifier's recipe -> its run folder, see `run`."""

import dataclasses
import logging
from pathlib import Path

import keras
import numpy as np

from kerasformer.config import Data, Recipe
from kerasformer.data.batches import Batches
from kerasformer.data.encoding import classification, encode, summary
from kerasformer.data.sources import Source, check_labels, read_examples
from kerasformer.data.split import label_names
from kerasformer.training.callbacks import BestModel, Evaluation, MetricsLog, MetricsTable, ProgressBar
from kerasformer.training.compiler import choose_jit
from kerasformer.training.evaluation import Report
from kerasformer.training.losses import Crossentropy
from kerasformer.training.meter import Meter
from kerasformer.training.optimizers import of_recipe
from kerasformer.training.precision import dtype_policy
from kerasformer.training.profiling import Profile
from kerasformer.training.resuming import Training
from kerasformer.training.run import LOG, TABLE, begin, figures_of, finish, hyperparameters, of_chief, read_part
from kerasformer.training.strategies import is_chief
from kerasformer.training.tasks import Classifier
from kerasformer.training.tensorboard import TensorBoard
from kerasformer.training.tuning import freeze

logger = logging.getLogger(__name__)


def train(recipe: Recipe, source: Source | None = None) -> dict[str, float]:
    """Trains a classifier as the recipe says, or goes on to, and returns the figures of the best model.

    Everything that the input can be wrong about is found before anything is written.

    Args:
        source: the training set where it is no file; `recipe.data.train` goes before it.

    Raises:
        InputError: bad input, or a run folder that is in use.
        Stopped: a signal ended the training; the same recipe goes on from there.
    """
    source = recipe.data.train or source
    recipe.check(source is not None)
    if figures := figures_of(recipe):
        return figures
    strategy = begin(recipe)

    data = recipe.data
    examples = read_examples(source, **data.columns)
    check_labels(examples)
    policy = dtype_policy(recipe.train.precision)
    with strategy.scope():
        model = Classifier.from_pretrained(
            recipe.model.from_pretrained, label_names(examples.labels), dropout=recipe.model.dropout, dtype=policy
        )
    training, validation = classification(
        examples,
        tokenizer=model.tokenizer,
        max_length=data.max_length,
        batch_size=data.batch_size,
        split=data.split,
        validation=data.validation and read_examples(data.validation, **data.columns),
        labels=model.labels,
        seed=data.seed,
        augment=data.augment if any(dataclasses.astuple(data.augment)) else None,
    )
    freeze(model, recipe.train.freeze)
    with strategy.scope():
        optimizer = of_recipe(recipe.train, model, len(training) * recipe.train.epochs)
    logger.info("precision: %s", policy)
    logger.info("training on %s", summary(training))
    if validation is not None:
        logger.info("validating on %s", summary(validation))

    run = Training(recipe, training, validation, len(training) * recipe.train.epochs, interval=len(training))
    with strategy.scope():
        jit_compile = compile_model(model, recipe, training, optimizer, run.jit_compile)
    weights = class_weights(training) if recipe.train.class_weights == "balanced" else None
    seconds = run.fit(model, callbacks(recipe, training, validation), jit_compile, class_weight=weights)
    figures = {"train_seconds": round(seconds, 1), "model": str(recipe.folder / "model")}
    if validation is not None and is_chief():
        # What is reported is the model as it was saved, in float32, as it will be served.
        best = Classifier.from_pretrained(recipe.folder / "model", dtype="float32")
        figures = evaluation(best, validation).figures() | figures
    return finish(recipe, figures)


def compile_model(
    model: Classifier,
    recipe: Recipe,
    training: Batches,
    optimizer: keras.Optimizer,
    jit_compile: bool | str | None = None,
) -> bool | str:
    """Compiles the model with the recipe's loss, and with XLA if it pays; returns what it chose.

    Args:
        jit_compile: what was chosen before.
    """
    settings, steps = recipe.train, len(training) * recipe.train.epochs
    model.backbone.set_remat(settings.remat == "blocks")
    loss = Crossentropy(settings.label_smoothing)
    if jit_compile is None:
        model.compile(optimizer, loss, accumulate=settings.accumulate)
        shapes = len({training.padded_length(rows) for rows in training.order()})
        jit_compile = choose_jit(model, training.dataset(), steps, settings.compile, shapes)
    model.compile(optimizer, loss, accumulate=settings.accumulate, jit_compile=jit_compile)
    return jit_compile


def callbacks(recipe: Recipe, training: Batches, validation: Batches | None) -> list[keras.callbacks.Callback]:
    """The callbacks of a run, in the order in which they see an epoch's logs."""
    settings = recipe.train
    evaluation = Evaluation(validation) if validation is not None else None
    return [
        Meter(settings.peak_tflops),
        *([evaluation] if evaluation else []),
        BestModel(recipe.folder / "model", settings.monitor, settings.early_stopping),
        *of_chief(
            MetricsLog(recipe.folder / LOG),
            MetricsTable(recipe.folder / TABLE),
            *([Profile(recipe.folder, settings.profile)] if settings.profile else []),
            TensorBoard(recipe.folder, evaluation, hyperparameters(recipe)),
            ProgressBar(len(training) * settings.epochs),
        ),
    ]


def class_weights(batches: Batches) -> dict[int, float]:
    """Weights in inverse proportion to the classes' frequencies, one on average over the examples."""
    counts = np.bincount(batches.label_ids, minlength=len(batches.labels))
    return {i: len(batches.label_ids) / (len(counts) * count) for i, count in enumerate(counts) if count}


def evaluation(model: Classifier, batches: Batches) -> Report:
    """The figures of a model on labelled batches."""
    return Report(batches.labels, batches.label_ids, model.predict(batches))


def evaluate_run(folder: Path, source: Path) -> dict[str, float]:
    """Evaluates a run's best model on a labelled source, read as the run's recipe says.

    Raises:
        InputError: no run, or a source that does not fit it.
    """
    data = read_part(folder, "data", Data)
    model = Classifier.from_pretrained(Path(folder) / "model", dtype="float32")
    batches = encode(
        read_examples(source, **data.columns),
        tokenizer=model.tokenizer,
        labels=model.labels,
        max_length=data.max_length,
        batch_size=32,
    )
    return evaluation(model, batches).figures()
