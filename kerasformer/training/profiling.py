"""A profile of a few steps, for TensorBoard's Profile tab (the package tensorboard-plugin-profile, or xprof)."""

import logging
import math
from pathlib import Path

import keras
import tensorflow as tf

from kerasformer.config.run import steps_of
from kerasformer.training.optimizers import steps_made

logger = logging.getLogger(__name__)


class Profile(keras.callbacks.Callback):
    """Profiles the steps N to M of a run, both included, on the host and on the devices.

    Whole executions are profiled, so with several steps an execution those that N and M lie in.

    Args:
        folder: the run's; the profile goes where its scalars of training are, to `tensorboard/train`.
        steps: "N:M", or "N" for a single step; the first step of a run is 1, and compiles.
    """

    def __init__(self, folder: str | Path, steps: str):
        super().__init__()
        self.folder = Path(folder) / "tensorboard" / "train"
        self.first, self.last = steps_of(steps)
        self.running, self.trace = False, None

    def on_train_begin(self, logs: dict | None = None) -> None:
        first = steps_made(self.model.optimizer) + 1
        last = self.params.get("total_steps") or self.params["epochs"] * (self.params["steps"] or math.inf)
        if self.last < first or self.first > last:
            logger.warning(
                "steps %d:%d are not profiled here: this training makes %d:%s", self.first, self.last, first, last
            )

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        step = steps_made(self.model.optimizer)  # taken so far
        if not self.running and self.first <= step + self.model.steps_per_execution and step < self.last:
            tf.profiler.experimental.start(str(self.folder))
            self.running = True
        if self.running:  # marks the execution as a step, of which the profile tells the time of each part
            self.trace = tf.profiler.experimental.Trace("train", step_num=step + 1, _r=1)
            self.trace.__enter__()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.running:
            self.trace.__exit__(None, None, None)
            if steps_made(self.model.optimizer) >= self.last:
                self._stop()

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.running:  # the run was shorter
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self.running = False
