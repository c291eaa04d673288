"""A recipe: everything that a training run is told. Each field is a flag of `kerasformer train`."""

import math
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, get_args, get_origin

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
class Training:
    """How any model learns."""

    learning_rate: float = 5e-5
    """At the end of the warm-up; it falls from there on."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises."""
    weight_decay: float = 0.01
    """Of matrices; biases and normalisations are not decayed."""
    clip_norm: float = 1.0
    """Gradients are cut to this global norm."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the machine computes it natively."""
    compile: Literal["auto", "xla", "none"] = "auto"
    """auto: XLA for the model where a few measured steps say that it pays."""
    seed: int = 0
    """Of fresh weights and dropout."""


@dataclass(frozen=True)
class Train(Training):
    """How a classifier learns. The learning rate falls linearly to zero."""

    epochs: int = 3
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a class counts in inverse proportion to its frequency."""
    monitor: Literal["val_accuracy", "val_macro_f1", "val_loss"] = "val_accuracy"
    """Decides which epoch is the best one (without a validation set the last is)."""
    early_stopping: int = 0
    """Stop after this many epochs without a better one; 0 never does."""


@dataclass(frozen=True)
class LanguageData:
    """The text that a language model learns from."""

    train: tuple[Path, ...] = ()
    """A folder that `kerasformer prepare` wrote; or .txt, .jsonl (each also .gz), .parquet, or folders of them."""
    validation: tuple[Path, ...] = ()
    """Files of their own to validate on; otherwise `split` holds text out. Not for a prepared folder."""
    split: float = 0.1
    """Share held out for validation: the end of a single .txt file, else documents; 0 for none."""
    tokenizer: str | None = None
    """Of text files: a folder; or char or bpe, to be trained on them. A checkpoint brings its own."""
    vocab_size: int = 8192
    """Of a bpe tokenizer that is to be trained."""
    documents: Literal["files", "lines"] = "files"
    """What a document of a .txt file is."""
    text_column: str = "text"
    encoding: str = "utf-8"
    order: Literal["random", "consecutive"] = "random"
    """random: windows start anywhere; consecutive: they lie end to end, each once an epoch."""
    batch_size: int = 16
    max_length: int = 1024
    """Tokens of a window, and the longest input of a fresh model."""
    seed: int = 0
    """Of the order and of what is held out."""

    @property
    def texts(self) -> dict[str, Any]:
        """What `data.Texts` is told of the files."""
        held_out = {"validation": self.split, "validation_files": self.validation}
        columns = {"text_column": self.text_column, "encoding": self.encoding}
        return {**held_out, "documents": self.documents, **columns}


@dataclass(frozen=True)
class LanguageModel:
    """The GPT to go on from, or a fresh one."""

    from_pretrained: Path | None = None
    """A Hugging Face folder, whose weights, sizes and tokenizer hold then."""
    preset: str | None = None
    """A published size, such as gpt2; the sizes below go before it."""
    num_layers: int | None = None
    num_heads: int | None = None
    dim: int | None = None
    mlp_dim: int | None = None
    """Four times `dim` by default."""
    dropout: float = 0.0
    """Of a fresh model."""

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that are given, and the one that follows from another."""
        names = ("num_layers", "num_heads", "dim", "mlp_dim")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {"mlp_dim": 4 * self.dim, **given} if self.dim is not None else given


@dataclass(frozen=True)
class LanguageTrain(Training):
    """How a language model learns: for a number of steps, or of epochs."""

    learning_rate: float = 6e-4
    weight_decay: float = 0.1
    warmup: float = 0.02
    steps: int | None = None
    epochs: int | None = None
    """Of about as many tokens as there are; evaluates after each."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the layers' matrices, and AdamW for all else."""
    schedule: Literal["linear", "cosine", "wsd"] = "cosine"
    """How the rate falls; wsd: stable, then linearly in the last fifth."""
    min_learning_rate: float = 0.0
    """At the end."""
    beta_1: float = 0.9
    beta_2: float = 0.95
    evaluate_every: int = 0
    """Steps between evaluations, which has to divide `steps`; 0: one evaluation, at the end."""
    evaluation_batches: int = 0
    """How much of the validation set they read; 0 for all. The final figures are of all."""
    prompts: tuple[str, ...] = ()
    """Texts that the model continues at each evaluation, for TensorBoard."""
    sample_tokens: int = 100
    """How many tokens it makes of each, if it has room for them."""
    steps_per_execution: int = 1
    """Steps between looks at the progress: more of them make steps of milliseconds cheaper."""


@dataclass(frozen=True)
class Run:
    """What every recipe has: a name, a folder, and rules for its fields."""

    name: str
    """The run's folder below `runs`."""
    runs: Path = field(default=Path("runs"), kw_only=True)
    rules: ClassVar[dict[str, "Rule"]]

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
        self._check_model()
        for flag, (holds, expectation) in self.rules.items():
            if not holds(value := attrgetter(flag)(self)):
                raise InputError(f"expected --{flag} as {expectation}, got {value!r}; change it")
        if self.folder.exists():
            raise InputError(
                f"expected a new run, got {self.folder}, which is in use; choose another --name or remove it"
            )
        if files := [path for path in self.folder.parents if path.is_file()]:
            raise InputError(f"expected a folder to put the run in, got the file {files[0]}; choose another --runs")

    def _check_model(self) -> None:
        """Raises InputError where the recipe does not say which model to train."""


@dataclass(frozen=True)
class Recipe(Run):
    """A training run, from labelled texts to a classifier's folder."""

    data: Data = field(default_factory=Data)
    model: Pretrained = field(default_factory=Pretrained)
    train: Train = field(default_factory=Train)

    def _check_model(self) -> None:
        if self.model.from_pretrained is None:
            raise InputError("expected a checkpoint folder to start from, got none; pass --model.from_pretrained DIR")


@dataclass(frozen=True)
class LanguageRecipe(Run):
    """A training run, from text to a language model's folder."""

    data: LanguageData = field(default_factory=LanguageData)
    model: LanguageModel = field(default_factory=LanguageModel)
    train: LanguageTrain = field(default_factory=LanguageTrain)

    def check(self, has_source: bool = True) -> None:
        """See Run."""
        super().check(has_source)
        train = self.train
        if (train.steps is None) == (train.epochs is None):
            got = "none" if train.steps is None else "both"
            raise InputError(f"expected --train.steps or --train.epochs, got {got}; set one, and the other to None")
        if train.evaluate_every and train.steps is None:
            raise InputError(
                "expected --train.evaluate_every 0 with --train.epochs, as each ends with an evaluation, "
                f"got {train.evaluate_every}; set it to 0"
            )
        if train.evaluate_every and train.steps % train.evaluate_every:
            raise InputError(
                f"expected --train.evaluate_every to divide --train.steps, got {train.evaluate_every} and "
                f"{train.steps}; change one of them"
            )

    def _check_model(self) -> None:
        model = self.model
        whole = {"num_layers", "num_heads", "dim"} <= model.sizes.keys()
        if model.from_pretrained is None and model.preset is None and not whole:
            raise InputError(
                "expected a model, got none; pass --model.from_pretrained DIR, --model.preset NAME, or "
                "--model.num_layers, --model.num_heads and --model.dim"
            )


Rule = tuple[Callable[[Any], bool], str]  # whether a value will do, and what will, in words


def _whole(least: int, most: float = math.inf) -> Rule:
    words = f"a whole number of at least {least}" + (f" and at most {most}" if most < math.inf else "")
    return lambda value: isinstance(value, int) and least <= value <= most, words


def _choice(kind: Any) -> Rule:
    return lambda value: value in get_args(kind), f"one of {', '.join(get_args(kind))}"


SHARE: Rule = lambda value: isinstance(value, int | float) and 0 <= value < 1, "a share of at least 0 and below 1"
AMOUNT: Rule = lambda value: isinstance(value, int | float) and 0 <= value < math.inf, "a number of at least 0"


def _choices(part: type, name: str) -> dict[str, Rule]:
    """The fields of a recipe's part that are one of a few words."""
    return {f"{name}.{f.name}": _choice(f.type) for f in fields(part) if get_origin(f.type) is Literal}


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), rule[1]


# What the fields of a recipe can be, by their flags.
_COMMON: dict[str, Rule] = {
    "name": (lambda value: bool(str(value).strip()), "a name"),
    "data.split": SHARE,
    "data.batch_size": _whole(1),
    "data.seed": _whole(0),
    "train.learning_rate": AMOUNT,
    "train.warmup": SHARE,
    "train.weight_decay": AMOUNT,
    "train.clip_norm": AMOUNT,
    "train.seed": _whole(0, 2**32 - 1),
}
Recipe.rules = _COMMON | {
    "data.max_length": _whole(3),
    "model.dropout": _or_none(SHARE),
    "train.epochs": _whole(1),
    "train.label_smoothing": SHARE,
    "train.early_stopping": _whole(0),
    **_choices(Train, "train"),
}
LanguageRecipe.rules = _COMMON | {
    "data.vocab_size": _whole(257),
    "data.max_length": _whole(1),
    "model.num_layers": _or_none(_whole(1)),
    "model.num_heads": _or_none(_whole(1)),
    "model.dim": _or_none(_whole(1)),
    "model.mlp_dim": _or_none(_whole(1)),
    "model.dropout": SHARE,
    "train.steps": _or_none(_whole(1)),
    "train.epochs": _or_none(_whole(1)),
    "train.min_learning_rate": AMOUNT,
    "train.beta_1": SHARE,
    "train.beta_2": SHARE,
    "train.evaluate_every": _whole(0),
    "train.evaluation_batches": _whole(0),
    "train.sample_tokens": _whole(1),
    "train.steps_per_execution": _whole(1),
    **_choices(LanguageData, "data"),
    **_choices(LanguageTrain, "train"),
}


def load_recipe(path: Path) -> ModuleType:
    """Runs a recipe's file, which sets `recipe`.

    Raises:
        InputError: no such file, one that does not run, or no recipe in it.
    """
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"expected a recipe's Python file, got {path}, which is none; see pipelines/ for examples")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))  # an import would leave its cache beside the file
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None) or 1
        reason = " ".join(f"{type(error).__name__}: {getattr(error, 'msg', error)}".split())
        raise InputError(f"expected a recipe that runs, got {reason} in {path}, line {line}; mend it") from error
    if not isinstance(getattr(module, "recipe", None), Run):
        raise InputError(f"expected `recipe = Recipe(...)` in {path}, got none; see pipelines/ for examples")
    return module
