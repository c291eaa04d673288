"""A recipe's training: from its newest checkpoint or the start, until its end or a signal."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from kerasformer.config import Run
from kerasformer.errors import InputError, Stopped
from kerasformer.training import strategies
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

    Raises:
        InputError: checkpoints that are damaged.
    """

    recipe: Run
    training: Data
    validation: Data | None
    steps: int
    interval: int
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
                details={"steps": self.steps, "jit_compile": jit_compile, "data": self._data},
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
        """Raises InputError where the data are not those of all workers, or not those of the checkpoint."""
        found = " and ".join(data[:8] for data in self._data)
        expected, advice = "all workers to have the same data", "give each host the same files"
        strategies.check_alike(model.distribute_strategy, expected, f"those of fingerprint {found}", advice)
        if self.checkpoint is not None and self.checkpoint.details["data"] != self._data:
            raise InputError(
                f"expected the data that {self.recipe.folder} was begun with, got others of the same name; "
                "bring them back or choose another --name"
            )

    @property
    def _data(self) -> list[str]:
        return [data.fingerprint for data in (self.training, self.validation) if data is not None]
