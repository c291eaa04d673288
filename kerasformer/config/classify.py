"""The recipe of a classifier."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from kerasformer.config.rules import SHARE, choices, or_none, whole
from kerasformer.config.run import COMMON, OnBad, Run, Training
from kerasformer.errors import InputError

Quoting = Literal["auto", "csv", "none"]


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
    """CSV, TSV, JSON, JSONL (each also .gz), Parquet; a folder of shards, or a pattern; a folder of <label>/*.txt."""
    validation: Path | None = None
    """A validation set of its own; otherwise `split` holds texts out."""
    split: float = 0.1
    """Share of the texts held out for validation, of every label alike; 0 for none."""
    text_column: str = "text"
    text_pair_column: str | None = None
    """The second text's column, for pairs."""
    label_column: str = "label"
    missing_label: str = "auto"
    """The label of rows that have none; none if there is no such label; auto: -1 beside 0, 1, 2 and so on."""
    encoding: str = "utf-8"
    quoting: Quoting = "auto"
    """Of tables. csv: quotes enclose fields; none: they are characters; auto: csv, but with tabs as the file shows."""
    delimiter: str = "auto"
    """Of tables: one character, or tab; auto: comma or tab by the file's name, or what the header shows."""
    on_bad: OnBad = "few"
    """few: up to one in a hundred rows that cannot be used are left out, and counted in a warning; skip: up to half
    of all; stop: the first is an error."""
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
        settings = ("encoding", "quoting", "delimiter", "missing_label", "on_bad")
        return names | {name: getattr(self, name) for name in settings}


@dataclass(frozen=True)
class Pretrained:
    """The checkpoint to start from."""

    from_pretrained: Path | None = None
    """A Hugging Face folder: config.json, model.safetensors, tokenizer files."""
    dropout: float | None = None
    """On the pooled vector before the classifier; the checkpoint's own rate by default."""


@dataclass(frozen=True)
class Train(Training):
    """How a classifier learns."""

    epochs: int = 3
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a class counts in inverse proportion to its frequency."""
    monitor: Literal["val_accuracy", "val_macro_f1", "val_loss"] = "val_accuracy"
    """Decides which epoch is the best one (without a validation set the last is)."""


@dataclass(frozen=True)
class Recipe(Run):
    """A training run, from labelled texts to a classifier's folder."""

    data: Data = field(default_factory=Data)
    model: Pretrained = field(default_factory=Pretrained)
    train: Train = field(default_factory=Train)

    def _check_model(self) -> None:
        if self.model.from_pretrained is None:
            raise InputError("expected a checkpoint folder to start from, got none; pass --model.from_pretrained DIR")


Recipe.rules = COMMON | {
    "data.max_length": whole(3),
    "model.dropout": or_none(SHARE),
    "train.epochs": whole(1),
    "train.label_smoothing": SHARE,
    **choices(Data, "data"),
    **choices(Train, "train"),
}
