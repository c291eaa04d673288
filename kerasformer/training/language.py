"""A language model's recipe -> its run folder, see `run`."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras

from kerasformer.config import LanguageData, LanguageRecipe
from kerasformer.data.corpus import INDEX, fingerprint
from kerasformer.data.documents import TRAIN, Texts
from kerasformer.data.language import language_modelling
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.text.bpe import BPE
from kerasformer.text.vocabulary import bpe_of, char_of
from kerasformer.training.callbacks import BestModel, MetricsLog, Perplexity, ProgressBar
from kerasformer.training.compiler import choose_jit
from kerasformer.training.evaluation import language_figures
from kerasformer.training.optimizers import of_recipe
from kerasformer.training.precision import dtype_policy
from kerasformer.training.resuming import Training
from kerasformer.training.run import LOG, begin, figures_of, finish, hyperparameters, of_chief, read_part
from kerasformer.training.strategies import is_chief
from kerasformer.training.tasks import CausalLM
from kerasformer.training.tensorboard import TensorBoard
from kerasformer.training.tuning import freeze

logger = logging.getLogger(__name__)


def train(recipe: LanguageRecipe) -> dict[str, float | str]:
    """Trains a language model as the recipe says, or goes on to, and returns the figures of the best model.

    Everything that the input can be wrong about is found before anything is written.

    Raises:
        InputError: bad input, or a run folder that is in use.
        Stopped: a signal ended the training; the same recipe goes on from there.
    """
    recipe.check(has_source=bool(recipe.data.train))
    if figures := figures_of(recipe):
        return figures
    strategy = begin(recipe)
    policy = dtype_policy(recipe.train.precision)
    pretrained = recipe.model.from_pretrained
    with strategy.scope():
        model = CausalLM.from_pretrained(pretrained, dtype=policy) if pretrained else None
        training, validation = windows(recipe.data, model and model.tokenizer)
        model = model or fresh(recipe, training.tokenizer(), policy)
        freeze(model, recipe.train.freeze)
        steps, interval = intervals(recipe, training)
        optimizer = of_recipe(recipe.train, model, steps)
    logger.info("precision: %s", policy)
    logger.info("training on %s", summary(training))
    if validation is not None:
        logger.info("validating on %s", summary(validation))

    run = Training(recipe, training, validation, steps, interval)
    with strategy.scope():
        jit_compile = compile_model(model, recipe, training, optimizer, steps, interval, run.jit_compile)
    seconds = run.fit(model, callbacks(recipe, steps, validation), jit_compile)
    figures = {"train_seconds": round(seconds, 1), "model": str(recipe.folder / "model")}
    if validation is not None and is_chief():
        # What is reported is the model as it was saved, in float32, on all that was held out.
        best = evaluation(recipe.folder / "model", validation)
        figures = {"val_loss": best.pop("loss"), **best, **figures}
    return finish(recipe, figures)


def windows(data: LanguageData, tokenizer: BPE | None) -> tuple[Windows, Windows | None]:
    """The training and the validation set of a recipe.

    Args:
        tokenizer: the model's; without it the recipe names one, or a prepared folder has its own.

    Raises:
        InputError: data that cannot be used, or that another tokenizer made.
    """
    settings = {"max_length": data.max_length, "batch_size": data.batch_size, "order": data.order, "seed": data.seed}
    settings["batch_ramp"] = data.batch_ramp
    if len(data.train) == 1 and (Path(data.train[0]) / INDEX).exists():
        if data.validation:
            raise InputError(
                f"expected no --data.validation for the prepared folder {data.train[0]}, which has been split; "
                "leave it out or prepare the text anew"
            )
        training, validation = language_modelling(data.train[0], **settings)
        if tokenizer is not None and fingerprint(training.tokenizer()) != fingerprint(tokenizer):
            raise InputError(
                f"expected a text prepared with the model's tokenizer, got {data.train[0]}, which was prepared with "
                "another; run kerasformer prepare with --tokenizer and the model's folder"
            )
        return training, validation
    tokenizer = tokenizer or trained_tokenizer(data)
    return language_modelling(data.train, tokenizer=tokenizer, **settings, **data.texts)


def trained_tokenizer(data: LanguageData) -> BPE:
    """The tokenizer that a recipe names, trained on its files where it says char or bpe.

    Raises:
        InputError: none is named, a folder that holds none, or files that cannot be read.
    """
    match data.tokenizer:
        case None:
            raise InputError(
                "expected a tokenizer for text files, got none; pass --data.tokenizer char, bpe or DIR, or train on a "
                "folder that kerasformer prepare wrote"
            )
        case "char":
            return char_of(training_texts(data))
        case "bpe":
            return bpe_of(training_texts(data), vocab_size=data.vocab_size)
        case folder:
            return BPE.from_folder(folder)


def training_texts(data: LanguageData) -> Iterator[str]:
    """The text that is not held out."""
    return (piece.text for piece in Texts(data.train, **data.texts, seed=data.seed).pieces() if piece.split == TRAIN)


def fresh(recipe: LanguageRecipe, tokenizer: BPE, policy: str) -> CausalLM:
    """A model of the recipe's sizes with fresh weights.

    Raises:
        InputError: an unknown preset, or sizes that do not fit each other.
    """
    settings = recipe.model
    rates = {"dropout": settings.dropout, "attention_dropout": settings.dropout}
    values = settings.sizes | rates | {"vocab_size": tokenizer.vocab_size, "max_length": recipe.data.max_length}
    if settings.preset is not None:
        values = GPT.preset(settings.preset).values | values
    config = GPTConfig(**values)
    if config.dim % config.num_heads:
        raise InputError(
            f"expected --model.num_heads to divide the width, got {config.num_heads} and {config.dim}; "
            "change one of them"
        )
    return CausalLM(GPT(config, dtype=policy), tokenizer)


def intervals(recipe: LanguageRecipe, training: Windows) -> tuple[int, int]:
    """The steps of the run, and those between two evaluations."""
    settings = recipe.train
    if settings.epochs is not None:
        return settings.epochs * training.steps_per_epoch, training.steps_per_epoch
    return settings.steps, settings.evaluate_every or settings.steps


def compile_model(
    model: CausalLM,
    recipe: LanguageRecipe,
    training: Windows,
    optimizer: keras.Optimizer,
    steps: int,
    interval: int,
    jit_compile: bool | str | None = None,
) -> bool | str:
    """Compiles the model, and with XLA if it pays; returns what it chose.

    Args:
        jit_compile: what was chosen before.
    """
    settings = recipe.train
    # No execution goes on past an evaluation, nor from batches of one size to those of another.
    together = math.gcd(settings.steps_per_execution, interval, *(count for _, count in recipe.data.batch_ramp))
    if jit_compile is None:
        model.compile(optimizer, steps_per_execution=together, accumulate=settings.accumulate)
        dataset = model.training_set(training, steps - 1, 1)  # a batch of the full size
        jit_compile = choose_jit(model, dataset, steps, settings.compile, shapes=1 + len(recipe.data.batch_ramp))
    model.compile(optimizer, steps_per_execution=together, accumulate=settings.accumulate, jit_compile=jit_compile)
    return jit_compile


def callbacks(recipe: LanguageRecipe, steps: int, validation: Windows | None) -> list[keras.callbacks.Callback]:
    """The callbacks of a run, in the order in which they see an evaluation's logs."""
    settings = recipe.train
    unit = "evaluation" if settings.epochs is None else "epoch"
    samples = {"prompts": settings.prompts, "sample_tokens": settings.sample_tokens}
    return [
        *([Perplexity(validation, settings.evaluation_batches or None)] if validation else []),
        BestModel(recipe.folder / "model", "val_loss"),
        *of_chief(
            MetricsLog(recipe.folder / LOG, unit),
            TensorBoard(recipe.folder, None, hyperparameters(recipe), **samples),
            ProgressBar(steps, epoch=unit),
        ),
    ]


def evaluation(folder: Path, windows: Windows) -> dict[str, float]:
    """The figures of a saved model, in float32."""
    model = CausalLM.from_pretrained(folder, dtype="float32")
    model.compile()
    return language_figures(model, windows)


def evaluate_run(folder: Path, files: Sequence[Path]) -> dict[str, float]:
    """Evaluates a run's best model on text files, read as the run's recipe says.

    Raises:
        InputError: no run, or files that cannot be read or hold too little text.
    """
    data = read_part(folder, "data", LanguageData)
    texts = data.texts | {"validation": 0.0, "validation_files": ()}
    tokenizer = BPE.from_folder(Path(folder) / "model")
    text, _ = language_modelling(files, tokenizer=tokenizer, max_length=data.max_length, batch_size=16, **texts)
    return evaluation(Path(folder) / "model", text)


def summary(windows: Windows) -> str:
    """One line on a text."""
    ramp = "".join(f"{size} for {steps:,} steps, then " for size, steps in windows.batch_ramp)
    return (
        f"{windows.tokens:,} tokens, {windows.bytes_per_token:.2f} bytes a token, in batches of {ramp}"
        f"{windows.batch_size} windows of {windows.max_length}"
    )
