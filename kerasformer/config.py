"""A recipe: everything that a training run is told. Each field is a flag of `kerasformer train`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

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
    monitor: str = "val_accuracy"
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
        return self.runs / self.name
