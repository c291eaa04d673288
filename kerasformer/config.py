"""A recipe: everything that a training run is told. Each field is a flag of `kerasformer train`."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from kerasformer.errors import InputError


@dataclass(frozen=True)
class Augment:
    """Word-level changes to training texts: the share of words that each touches, from 0 up to but not including 1."""

    replace: float = 0.0
    """Put a random word of the training set in a word's place."""
    delete: float = 0.0
    """Leave a word out."""
    insert: float = 0.0
    """Put a random word of the training set behind a word."""
    swap: float = 0.0
    """Exchange two words of a text."""

    def __post_init__(self):
        for name, rate in asdict(self).items():
            if not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise InputError(f"expected augment.{name} as a share of words in [0, 1), got {rate!r}; change it")


@dataclass(frozen=True)
class Data:
    """What the model learns from."""

    train: Path | None = None
    """CSV, TSV, JSONL (each also .gz), Parquet, or a folder of <label>/*.txt."""
    validation: Path | None = None
    """A validation set of its own; otherwise `split` holds texts out."""
    split: float = 0.1
    """Share of the texts held out for validation, of every label alike; 0 for none."""
    text_column: str = "text"
    text_pair_column: str | None = None
    """The second text's column, for pairs."""
    label_column: str = "label"
    encoding: str = "utf-8"
    max_length: int = 128
    """Longest input in tokens; longer texts are cut."""
    batch_size: int = 16
    seed: int = 0
    """Of the split, the order and the augmentation."""
    augment: Augment = field(default_factory=Augment)

    @property
    def columns(self) -> dict[str, str | None]:
        """What `read_examples` is told of the sources."""
        names = {"text": self.text_column, "text_pair": self.text_pair_column, "label": self.label_column}
        return names | {"encoding": self.encoding}


@dataclass(frozen=True)
class Pretrained:
    """The checkpoint to start from."""

    from_pretrained: Path | None = None
    """A Hugging Face folder: config.json, model.safetensors, tokenizer files."""
    dropout: float | None = None
    """On the pooled vector before the classifier; the checkpoint's own rate by default."""


@dataclass(frozen=True)
class Train:
    """How the model learns."""

    epochs: int = 3
    learning_rate: float = 5e-5
    """At the end of the warm-up; it falls linearly to zero at the end."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises."""
    weight_decay: float = 0.01
    """Of matrices; biases and normalisations are not decayed."""
    clip_norm: float = 1.0
    """Gradients are cut to this global norm."""
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a class counts in inverse proportion to its frequency."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the machine computes it natively."""
    compile: Literal["auto", "xla", "none"] = "auto"
    """auto: XLA for the model where a few measured steps say that it pays."""
    monitor: Literal["val_accuracy", "val_macro_f1", "val_loss"] = "val_accuracy"
    """Decides which epoch is the best one (without a validation set the last is)."""
    early_stopping: int = 0
    """Stop after this many epochs without a better one; 0 never does."""
    seed: int = 0
    """Of fresh weights and dropout."""


@dataclass(frozen=True)
class Recipe:
    """A training run, from files to a model folder."""

    name: str
    """The run's folder below `runs`."""
    data: Data = field(default_factory=Data)
    model: Pretrained = field(default_factory=Pretrained)
    train: Train = field(default_factory=Train)
    runs: Path = Path("runs")

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name

    def check(self, has_source: bool = True) -> None:
        """Finds what is wrong with the recipe before anything is read or written.

        Args:
            has_source: there is a training set, here or elsewhere.

        Raises:
            InputError: a field that is missing or out of range, or a run folder that is in use.
        """
        if not has_source:
            raise InputError("expected a training set, got none; pass --data.train PATH")
        if self.model.from_pretrained is None:
            raise InputError("expected a checkpoint folder to start from, got none; pass --model.from_pretrained DIR")
        for flag, (holds, expectation) in RULES.items():
            if not holds(value := attrgetter(flag)(self)):
                raise InputError(f"expected --{flag} as {expectation}, got {value!r}; change it")
        if self.folder.exists():
            raise InputError(
                f"expected a new run, got {self.folder}, which is in use; choose another --name or remove it"
            )
        if files := [path for path in self.folder.parents if path.is_file()]:
            raise InputError(f"expected a folder to put the run in, got the file {files[0]}; choose another --runs")


Rule = tuple[Callable[[Any], bool], str]  # whether a value will do, and what will, in words


def _whole(least: int, most: float = math.inf) -> Rule:
    words = f"a whole number of at least {least}" + (f" and at most {most}" if most < math.inf else "")
    return lambda value: isinstance(value, int) and least <= value <= most, words


def _choice(kind: Any) -> Rule:
    return lambda value: value in get_args(kind), f"one of {', '.join(get_args(kind))}"


SHARE: Rule = lambda value: isinstance(value, int | float) and 0 <= value < 1, "a share of at least 0 and below 1"
AMOUNT: Rule = lambda value: isinstance(value, int | float) and 0 <= value < math.inf, "a number of at least 0"
# What the fields of a recipe can be, by their flags.
RULES: dict[str, Rule] = {
    "name": (lambda value: bool(str(value).strip()), "a name"),
    "data.split": SHARE,
    "data.max_length": _whole(3),
    "data.batch_size": _whole(1),
    "data.seed": _whole(0),
    "model.dropout": (lambda value: value is None or SHARE[0](value), SHARE[1]),
    "train.epochs": _whole(1),
    "train.learning_rate": AMOUNT,
    "train.warmup": SHARE,
    "train.weight_decay": AMOUNT,
    "train.clip_norm": AMOUNT,
    "train.label_smoothing": SHARE,
    "train.early_stopping": _whole(0),
    "train.seed": _whole(0, 2**32 - 1),
} | {f"train.{f.name}": _choice(f.type) for f in fields(Train) if get_origin(f.type) is Literal}
