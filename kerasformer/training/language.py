"""The recipe of a language model, or of a masked one, as `train` takes it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasformer.config import LanguageData, LanguageTrain, MaskedData, TextRecipe
from kerasformer.data.corpus import INDEX, fingerprint
from kerasformer.data.documents import TRAIN, Texts
from kerasformer.data.language import language_modelling
from kerasformer.data.masking import AnyWindows, masked_language_modelling
from kerasformer.errors import InputError
from kerasformer.models.base import Model
from kerasformer.models.bert.model import Bert
from kerasformer.models.config import Config
from kerasformer.models.gpt.model import GPT
from kerasformer.text.folder import read_tokenizer
from kerasformer.text.tokenizer import Tokenizer
from kerasformer.text.vocabulary import train_bpe, train_char, train_wordpiece
from kerasformer.training.evaluation import Perplexity, language_figures
from kerasformer.training.job import Job
from kerasformer.training.run import data_class, kind_of, read_part
from kerasformer.training.tasks import CausalLM, MaskedLM


@dataclass(frozen=True)
class Kind:
    """What there is to learn from plain text.

    Args:
        head: what learns it.
        family: of fresh models.
        read: opens the text.
        trainers: of tokenizers, by the name that a recipe gives them.
        changes: to the family's defaults.
    """

    head: type[CausalLM | MaskedLM]
    family: type[Model]
    read: Callable[..., tuple[AnyWindows, AnyWindows | None]]
    trainers: Mapping[str, Callable[[LanguageData], Tokenizer]]
    changes: Mapping[str, Any] = field(default_factory=dict)


KINDS: dict[type[LanguageData], Kind] = {
    LanguageData: Kind(
        CausalLM,
        GPT,
        language_modelling,
        {
            "char": lambda data: train_char(training_texts(data)),
            "bpe": lambda data: train_bpe(training_texts(data), vocab_size=data.vocab_size),
        },
    ),
    MaskedData: Kind(
        MaskedLM,
        Bert,
        masked_language_modelling,
        {"wordpiece": lambda data: train_wordpiece(lambda: training_texts(data), vocab_size=data.vocab_size)},
        changes={"pooler": False},
    ),
}


def job(recipe: TextRecipe, source: Sequence[Path], policy: str) -> Job:
    """The model and the data that the recipe names.

    Raises:
        InputError: files that cannot be used, or that do not fit each other.
    """
    data, settings, pretrained = recipe.data, recipe.train, recipe.model.from_pretrained
    head = KINDS[type(data)].head
    model = head.from_pretrained(pretrained, dtype=policy) if pretrained else None
    training, validation = windows(data, model and model.tokenizer)
    model = model or fresh(recipe, training.tokenizer(), policy)
    steps, interval = intervals(recipe, training)

    def trial() -> tuple[tf.data.Dataset, int]:
        return model.training_set(training, steps - 1, 1), 1 + len(data.batch_ramp)  # a batch of the full size

    def figures(folder: Path) -> dict[str, float]:
        best = evaluation(head, folder, validation)
        return {"val_loss": best.pop("loss"), **best}

    shown = {}
    if isinstance(settings, LanguageTrain):
        shown = {"prompts": settings.prompts, "sample_tokens": settings.sample_tokens}
    return Job(
        model,
        training,
        validation,
        summary,
        steps,
        interval,
        trial,
        evaluation=Perplexity(validation, settings.evaluation_batches or None) if validation else None,
        figures=figures,
        # No execution goes on past an evaluation, nor from batches of one size to those of another.
        steps_per_execution=math.gcd(
            settings.steps_per_execution, interval, steps, *(count for _, count in data.batch_ramp)
        ),
        shown=shown,
    )


def windows(data: LanguageData, tokenizer: Tokenizer | None) -> tuple[AnyWindows, AnyWindows | None]:
    """The training and the validation set of a recipe.

    Args:
        tokenizer: the model's; without it the recipe names one, or a prepared folder has its own.

    Raises:
        InputError: data that cannot be used, or that another tokenizer made.
    """
    read = KINDS[type(data)].read
    if len(data.train) == 1 and (Path(data.train[0]) / INDEX).exists():
        if data.validation:
            raise InputError(
                f"expected no --data.validation for the prepared folder {data.train[0]}, which has been split; "
                "leave it out or prepare the text anew"
            )
        training, validation = read(data.train[0], **data.windows)
        if tokenizer is not None and fingerprint(training.tokenizer()) != fingerprint(tokenizer):
            raise InputError(
                f"expected a text prepared with the model's tokenizer, got {data.train[0]}, which was prepared with "
                "another; run kerasformer prepare with --tokenizer and the model's folder"
            )
        return training, validation
    tokenizer = tokenizer or trained_tokenizer(data)
    return read(data.train, tokenizer=tokenizer, **data.windows, **data.texts)


def trained_tokenizer(data: LanguageData) -> Tokenizer:
    """The tokenizer that a recipe names, trained on its files where that is a kind and no folder.

    Raises:
        InputError: none is named, a folder that holds none, or files that cannot be read.
    """
    kind = KINDS[type(data)]
    if data.tokenizer is None:
        raise InputError(
            f"expected a tokenizer for text files, got none; pass --data.tokenizer {', '.join(kind.trainers)} or DIR, "
            "or train on a folder that kerasformer prepare wrote"
        )
    if data.tokenizer in kind.trainers:
        return kind.trainers[data.tokenizer](data)
    return kind.family.tokenizer_class.from_folder(data.tokenizer)


def training_texts(data: LanguageData) -> Iterator[str]:
    """The text that is not held out."""
    return (piece.text for piece in Texts(data.train, **data.texts, seed=data.seed).pieces() if piece.split == TRAIN)


def fresh(recipe: TextRecipe, tokenizer: Tokenizer, policy: str) -> CausalLM | MaskedLM:
    """A model of the recipe's sizes with fresh weights; see `fresh_config`."""
    kind = KINDS[type(recipe.data)]
    return kind.head(kind.family(fresh_config(recipe, tokenizer.vocab_size), dtype=policy), tokenizer)


def fresh_config(recipe: TextRecipe, vocab_size: int) -> Config:
    """The sizes of a model that starts fresh.

    Raises:
        InputError: an unknown preset, or sizes that do not fit each other.
    """
    settings, kind = recipe.model, KINDS[type(recipe.data)]
    rates = {"dropout": settings.dropout, "attention_dropout": settings.dropout}
    values = settings.sizes | rates | {"vocab_size": vocab_size, "max_length": recipe.data.max_length}
    if settings.preset is not None:
        values = kind.family.preset(settings.preset).values | values
    config = kind.family.config_class(**values, **kind.changes)
    if config.dim % config.num_heads:
        raise InputError(
            f"expected --model.num_heads to divide the width, got {config.num_heads} and {config.dim}; "
            "change one of them"
        )
    return config


def intervals(recipe: TextRecipe, training: AnyWindows) -> tuple[int, int]:
    """The steps of the run, and those between two evaluations."""
    settings = recipe.train
    if settings.epochs is not None:
        return settings.epochs * training.steps_per_epoch, training.steps_per_epoch
    return settings.steps, settings.evaluate_every or settings.steps


def evaluation(head: type[CausalLM | MaskedLM], folder: Path, windows: AnyWindows) -> dict[str, float]:
    """The figures of a saved model, in float32."""
    model = head.from_pretrained(folder, dtype="float32")
    model.compile()
    return language_figures(model, windows)


def evaluate_run(folder: Path, files: Sequence[Path]) -> dict[str, float]:
    """See `train`.

    Raises:
        InputError: no run, or files that cannot be read or hold too little text.
    """
    data = read_part(folder, "data", data_class(kind_of(folder)))
    kind, model = KINDS[type(data)], Path(folder) / "model"
    settings = {**data.windows, **data.texts, "validation": 0.0, "validation_files": (), "batch_size": 16}
    text, _ = kind.read(files, tokenizer=read_tokenizer(model), **settings)
    return evaluation(kind.head, model, text)


def summary(windows: AnyWindows) -> str:
    """One line on a text."""
    ramp = "".join(f"{size} for {steps:,} steps, then " for size, steps in windows.batch_ramp)
    return (
        f"{windows.tokens:,} tokens, {windows.bytes_per_token:.2f} bytes a token, in batches of {ramp}"
        f"{windows.batch_size} windows of {windows.max_length}"
    )
