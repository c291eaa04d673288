"""A recipe's training: from its newest checkpoint or the start, until its end or a signal."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras

from kerasformer.config import Run
from kerasformer.data.corpus import fingerprint
from kerasformer.errors import InputError, Stopped
from kerasformer.models.base import CONFIG_FILE
from kerasformer.models.heads import Classifier, Head
from kerasformer.training import state, strategies
from kerasformer.training.checkpoints import Checkpoint, Checkpoints, newest
from kerasformer.training.faults import Finite
from kerasformer.training.job import Data
from kerasformer.training.run import CHECKPOINTS, held, tell_if_not_shared
from kerasformer.training.step import TrainingStep
from kerasformer.training.stopping import Stopping

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """The training of a recipe, which may have begun in another process.

    Args:
        steps: of the whole.
        interval: steps of an epoch, but for the last one.
        origin: what the model is made from; see `origin_of`.

    Raises:
        InputError: checkpoints that are damaged.
    """

    recipe: Run
    training: Data
    validation: Data | None
    steps: int
    interval: int
    origin: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None  # the newest; found here

    def __post_init__(self):
        folder = self.recipe.folder
        object.__setattr__(self, "checkpoint", newest(folder / CHECKPOINTS))
        if self.checkpoint is None and folder.exists():
            logger.info("%s has no checkpoint yet: from the start", folder)

    @property
    def jit_compile(self) -> bool | str | None:
        """What the training began with: measured anew, it could be another."""
        return self.checkpoint and self.checkpoint.details["jit_compile"]

    @property
    def first(self) -> int:
        """The step that it goes on from."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train; a finished training goes on where its recipe asks for more steps."""
        return bool(self.checkpoint and self.checkpoint.finished and self.checkpoint.details["steps"] == self.steps)

    def fit(
        self, model: TrainingStep, callbacks: Sequence[keras.callbacks.Callback], jit_compile: bool | str, **kwargs
    ) -> float:
        """Trains a compiled model; returns the seconds that it took, those of other processes too.

        Args:
            jit_compile: what the model was compiled with.
            **kwargs: of the model's `fit`.

        Raises:
            InputError: another process trains in the run's folder, other data than the checkpoint's or another
                worker's, a loss that is no number, or a full disk.
            Stopped: a signal ended the training; what it has learned is saved.
        """
        folder, settings = self.recipe.folder, self.recipe.train
        self._check_data(model)
        with Stopping() as stopping, held(self.recipe, self.first):
            tell_if_not_shared(self.recipe, model.distribute_strategy)
            checkpoints = Checkpoints(
                folder / CHECKPOINTS,
                settings.checkpoint_every,
                callbacks=[callback for callback in callbacks if hasattr(callback, "memory")],
                details={
                    "steps": self.steps,
                    "jit_compile": jit_compile,
                    "data": self._data,
                    "origin": dict(self.origin),
                },
                stopping=stopping,
            )
            first = checkpoints.restore(model, self.checkpoint)
            if self.is_over:
                return self.checkpoint.seconds
            if self.checkpoint is not None:
                logger.info("going on from step %d of %d", first, self.steps)
            finite = Finite(self.training.describe, checkpoints if settings.on_nan == "rewind" else None)
            callbacks = [*callbacks, finite, checkpoints]
            kwargs |= {"steps_per_epoch": self.interval, "total_steps": self.steps, "initial_step": first}
            try:
                model.fit(self.training, callbacks=callbacks, verbose=0, **kwargs)
            except Stopped:
                for callback in callbacks:
                    callback.on_train_end()
                raise
            return checkpoints.seconds

    def _check_data(self, model: TrainingStep) -> None:
        """Raises InputError where data or origin are not those of all workers, or not those of the checkpoint.

        Where their files lie makes no difference.
        """
        found, advice = " and ".join(data[:8] for data in self._data), "give each host the same files"
        expected = "all workers to have the same data"
        strategies.check_alike(model.distribute_strategy, expected, f"those of fingerprint {found}", advice)
        found = " and ".join(f"{name} {checksum[:8]}" for name, checksum in self.origin.items())
        strategies.check_alike(model.distribute_strategy, "all workers to start from the same model", found, advice)
        if self.checkpoint is None:
            return
        before = self.checkpoint.details
        if before["data"] != self._data:
            raise InputError(
                f"expected the data that {self.recipe.folder} was begun with, got others; "
                "bring them back or choose another name (--name)"
            )
        # Of the weights none but those of the checkpoint matter, yet others were meant for another run.
        for name, checksum in before.get("origin", {}).items():
            if self.origin.get(name) != checksum:
                raise InputError(
                    f"expected the {name} that {self.recipe.folder} was begun with, got another; "
                    "bring it back or choose another name (--name)"
                )

    @property
    def _data(self) -> list[str]:
        return [data.fingerprint for data in (self.training, self.validation) if data is not None]


def origin_of(model: Head, folder: Path | None) -> dict[str, str]:
    """Checksums of what a model is made from, by their names: the same wherever the files lie.

    Args:
        folder: of the checkpoint that it starts from; None for fresh weights.
    """
    found = {"tokenizer": fingerprint(model.tokenizer)}
    if isinstance(model, Classifier):
        found["labels"] = hashlib.sha256(json.dumps(model.labels).encode()).hexdigest()
    files = [] if folder is None else [Path(folder) / CONFIG_FILE, *sorted(Path(folder).glob("*.safetensors"))]
    return found | {path.name: state.sha256(path) for path in files}
