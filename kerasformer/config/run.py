"""What every recipe has."""

import json
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from kerasformer.config.rules import AMOUNT, SHARE, Rule, choice, whole
from kerasformer.errors import InputError
from kerasformer.files import read_json

RECIPE_FILE = "recipe.json"  # in a run's folder
# What a run can go on with another value of, and what it can go on with more of.
MAY_DIFFER = {"name", "runs", "resume", "train.checkpoint_every", "train.on_nan"}
MAY_GROW = {"train.steps", "train.epochs"}


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
    checkpoint_every: int = 0
    """Steps between checkpoints, of which two are kept; 0: ten minutes."""
    on_nan: Literal["stop", "rewind"] = "stop"
    """A loss or gradient that is no number ends the run, or rewind: it goes on from the last checkpoint without
    the batch."""


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
        self._check_model()
        for flag, (holds, expectation) in self.rules.items():
            if not holds(value := attrgetter(flag)(self)):
                raise InputError(f"expected --{flag} as {expectation}, got {value!r}; change it")
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
            if before[name] != now[name] and not (name in MAY_GROW and _more(before[name], now[name]))
        ]
        if others:
            raise InputError(
                f"expected the recipe that {self.folder} was begun with, got {', '.join(others)}; "
                "choose another --name, or leave the recipe as it was"
            )

    def _check_model(self) -> None:
        """Raises InputError where the recipe does not say which model to train."""


# By their flags.
COMMON: dict[str, Rule] = {
    "name": (lambda value: bool(str(value).strip()), "a name"),
    "data.split": SHARE,
    "data.batch_size": whole(1),
    "data.seed": whole(0),
    "train.learning_rate": AMOUNT,
    "train.warmup": SHARE,
    "train.weight_decay": AMOUNT,
    "train.clip_norm": AMOUNT,
    "train.seed": whole(0, 2**32 - 1),
    "train.checkpoint_every": whole(0),
    "resume": choice(get_type_hints(Run)["resume"]),
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


def _more(before: Any, now: Any) -> bool:
    return isinstance(before, int) and isinstance(now, int) and now > before
