"""What every recipe has."""

import json
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from kerasformer.config.learning import check_settings
from kerasformer.config.rules import AMOUNT, POSITIVE, POSITIVE_SHARE, SHARE, WARMUP, Rule, choice, or_none, whole
from kerasformer.errors import InputError
from kerasformer.files import read_json

RECIPE_FILE = "recipe.json"  # in a run's folder
# What a run can go on with another value of, what it can go on with more of, and which files may lie elsewhere: what is
# in them is compared.
MAY_DIFFER = {"name", "runs", "resume", "train.checkpoint_every", "train.on_nan"}
MAY_DIFFER |= {"train.strategy", "train.devices", "train.worker_timeout", "train.profile", "train.peak_tflops"}
MAY_GROW = {"train.steps", "train.epochs"}
MAY_MOVE = {"data.train", "data.validation", "data.tokenizer", "model.from_pretrained"}

# The names that there are; what makes each of them is elsewhere, in tables of these.
Optimizer = Literal["adamw", "muon", "lamb", "adafactor", "lion", "sgd"]
Schedule = Literal["linear", "cosine", "polynomial", "inverse_sqrt", "constant", "wsd", "one_cycle"]
Strategy = Literal["auto", "one", "mirrored", "multiworker", "tpu"]
OnBad = Literal["few", "skip", "stop"]


@dataclass(frozen=True)
class Training:
    """How any model learns."""

    learning_rate: float = 5e-5
    """At the end of the warm-up; it falls from there on."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises; from 1 on, their number."""
    schedule: Schedule = "linear"
    """How the rate falls after the warm-up; wsd: stable, then linearly."""
    min_learning_rate: float = 0.0
    """At the end; inverse_sqrt comes near it."""
    power: float | None = None
    """Of polynomial; 2 by default."""
    decay_share: float | None = None
    """Of wsd: the share of the way after the warm-up in which the rate falls; 0.2 by default."""
    optimizer: Optimizer = "adamw"
    """muon: for the layers' matrices, and AdamW for all else."""
    beta_1: float | None = None
    """Of adamw, muon, lamb and lion; 0.9 by default."""
    beta_2: float | None = None
    """Of adamw, muon and lamb, 0.999 by default; and of lion, 0.99."""
    momentum: float | None = None
    """Of sgd, 0.9 by default; and of muon, 0.95."""
    weight_decay: float = 0.01
    """Of matrices; biases and normalisations are not decayed."""
    clip_norm: float = 1.0
    """Gradients are cut to this global norm."""
    layer_decay: float = 1.0
    """The rate of each block is this share of that of the block above it; embeddings come below the blocks."""
    freeze: int | Literal["embeddings"] | None = None
    """Leave as they are: embeddings; or so many blocks from the bottom, and the embeddings."""
    ema: float = 0.0
    """Evaluate and save an exponential moving average of the weights with this momentum; 0 for none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the machine computes it natively."""
    compile: Literal["auto", "xla", "none"] = "auto"
    """auto: XLA for the model where a few measured steps say that it pays."""
    seed: int = 0
    """Of fresh weights and dropout."""
    remat: Literal["none", "blocks"] = "none"
    """blocks: keep only their inputs for the backward pass and compute the rest anew: less memory, more time."""
    peak_tflops: float | None = None
    """What one device can do in this precision, for the utilization that is shown; measured by default."""
    profile: str | None = None
    """Steps to profile for TensorBoard, such as 10:15."""
    early_stopping: int = 0
    """Stop after this many evaluations without a better one; 0 never does."""
    checkpoint_every: int = 0
    """Steps between checkpoints, of which two are kept; 0: ten minutes."""
    on_nan: Literal["stop", "rewind"] = "stop"
    """A loss or gradient that is no number ends the run, or rewind: it goes on from the last checkpoint without
    the batch."""
    strategy: Strategy = "auto"
    """One device, those of this host, of several hosts (TF_CONFIG or Slurm; see launch), a TPU; auto: what is found."""
    devices: int = 0
    """How many of this host's; 0 for all. Without GPUs the CPU is made into so many."""
    accumulate: int = 1
    """Micro-batches of a step: each device reads its rows in so many parts, which takes less memory."""
    worker_timeout: int = 600
    """Seconds that a worker waits for another before it gives up."""

    @property
    def own_settings(self) -> dict[str, float]:
        """What is set of the things that only some optimizers or schedules have."""
        names = ("beta_1", "beta_2", "momentum", "power", "decay_share")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Run:
    """What every recipe has: a name, a folder, and rules for its fields."""

    name: str
    """The run's folder below `runs`."""
    runs: Path = field(default=Path("runs"), kw_only=True)
    resume: Literal["auto", "never"] = field(default="auto", kw_only=True)
    """auto: a run of this recipe that has begun goes on; never: it is refused."""
    rules: ClassVar[dict[str, Rule]]

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name

    def check(self, has_source: bool = True) -> None:
        """Finds what is wrong with the recipe before anything is read or written.

        Args:
            has_source: there is a training set, here or elsewhere.

        Raises:
            InputError: a field that is missing or out of range, or a run folder that is of another recipe.
        """
        if not has_source:
            raise InputError("expected a training set, got none; pass --data.train PATH")
        self.check_fields()
        if self.folder.exists():
            self._check_folder()
        if files := [path for path in self.folder.parents if path.is_file()]:
            raise InputError(f"expected a folder to put the run in, got the file {files[0]}; choose another --runs")

    def _check_folder(self) -> None:
        """Raises InputError where the run's folder is not one to go on in."""
        told = self.folder / RECIPE_FILE
        begun = (
            [path for path in self.folder.iterdir() if not path.name.startswith(".")] if self.folder.is_dir() else [1]
        )
        if begun and (self.resume == "never" or not told.is_file()):
            raise InputError(
                f"expected a new run, got {self.folder}, which is in use; choose another --name or remove it"
            )
        if not begun:
            return
        before, now = flat(read_json(told, "a run's recipe")), flat(as_json(self))
        others = [
            f"--{name} {now[name]} (it was {before[name]})"
            for name in sorted(before.keys() & now.keys() - MAY_DIFFER)
            if before[name] != now[name] and not _may_change(name, before[name], now[name])
        ]
        if others:
            raise InputError(
                f"expected the recipe that {self.folder} was begun with, got {', '.join(others)}; "
                "choose another --name, or leave the recipe as it was"
            )

    def check_fields(self) -> None:
        """Finds fields that are missing or out of range.

        Raises:
            InputError: such a field.
        """
        self._check_model()
        for flag, (holds, expectation) in self.rules.items():
            if not holds(value := attrgetter(flag)(self)):
                raise InputError(f"expected --{flag} as {expectation}, got {value!r}; change it")
        check_settings(self.train)

    def _check_model(self) -> None:
        """Raises InputError where the recipe does not say which model to train."""


def steps_of(profile: str) -> tuple[int, int]:
    """The first and the last step of "N:M", or of "N".

    Raises:
        ValueError: other text, or no such steps.
    """
    first, _, last = profile.partition(":")
    steps = int(first), int(last or first)
    if not 1 <= steps[0] <= steps[1]:
        raise ValueError(f"expected steps N:M with 1 <= N <= M, got {profile}")
    return steps


def _is_profile(value: str | None) -> bool:
    try:
        return value is None or bool(steps_of(value))
    except (ValueError, AttributeError):
        return False


# By their flags.
COMMON: dict[str, Rule] = {
    "name": (lambda value: bool(str(value).strip()), "a name"),
    "data.split": SHARE,
    "data.batch_size": whole(1),
    "data.seed": whole(0),
    "train.learning_rate": AMOUNT,
    "train.warmup": WARMUP,
    "train.min_learning_rate": AMOUNT,
    "train.power": or_none(POSITIVE),
    "train.decay_share": or_none(POSITIVE_SHARE),
    "train.beta_1": or_none(SHARE),
    "train.beta_2": or_none(SHARE),
    "train.momentum": or_none(SHARE),
    "train.weight_decay": AMOUNT,
    "train.clip_norm": AMOUNT,
    "train.layer_decay": POSITIVE_SHARE,
    "train.freeze": (
        lambda value: value in (None, "embeddings") or whole(1)[0](value),
        "embeddings or a whole number of at least 1",
    ),
    "train.ema": SHARE,
    "train.seed": whole(0, 2**32 - 1),
    "train.peak_tflops": or_none(AMOUNT),
    "train.profile": (_is_profile, "steps N:M, the first of a run being 1"),
    "train.early_stopping": whole(0),
    "train.checkpoint_every": whole(0),
    "resume": choice(get_type_hints(Run)["resume"]),
    "train.devices": whole(0),
    "train.accumulate": whole(1),
    "train.worker_timeout": whole(1),
}


def as_json(recipe: Run) -> dict:
    """The recipe as JSON writes it, paths as strings."""
    return json.loads(json.dumps(asdict(recipe), default=str))


def flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """Nested values by their flags."""
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _may_change(name: str, before: Any, now: Any) -> bool:
    """Whether a run can go on with another value of a field."""
    if name in MAY_GROW:
        return isinstance(before, int) and isinstance(now, int) and now > before
    return name in MAY_MOVE and bool(before) and bool(now)
