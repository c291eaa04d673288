"""Checkpoints: all that a training needs to go on as if nothing had happened, in `step-00001000/` and so on.

What a step sees of the data, its random numbers and its learning rate are functions of the step, so that weights,
optimizer and the step are the whole state; running means and what callbacks remember are kept beside them.
"""

import contextlib
import hashlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.files import new_folder, read_json, remove_unfinished, write_json
from kerasformer.training import state
from kerasformer.training.optimizers import steps_made
from kerasformer.training.stopping import Stopping
from kerasformer.training.strategies import agreed, check_alike, is_chief

logger = logging.getLogger(__name__)

ARRAYS, DETAILS = "state.safetensors", "checkpoint.json"
MINUTES = 10.0  # between checkpoints, if nobody says how many steps
LIBRARIES = ("kerasformer", "keras", "tensorflow", "numpy")


@dataclass(frozen=True)
class Checkpoint:
    """One that has been found whole.

    Args:
        details: what was told of the run when it was written.
        callbacks: what each of them remembered.
        seconds: that the training had taken.
        finished: it was over.
        versions: of LIBRARIES, which wrote it.
    """

    folder: Path
    step: int
    details: Mapping[str, Any]
    callbacks: Sequence[dict]
    seconds: float
    finished: bool
    versions: Mapping[str, str]

    def arrays(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The state, and the running means, by name."""
        arrays = state.read_arrays(self.folder / ARRAYS)
        metrics = {name: arrays.pop(name) for name in [*arrays] if name.startswith("metrics/")}
        return arrays, metrics


def newest(folder: str | Path) -> Checkpoint | None:
    """The newest checkpoint of a folder that is whole; None where none was ever written.

    Raises:
        InputError: there are checkpoints, and none is whole.
    """
    found = paths_in(folder)
    for path in reversed(found):
        try:
            return _read(path)
        except (InputError, OSError, KeyError, TypeError) as error:
            logger.warning("checkpoint %s is damaged (%s): going back to the one before", path.name, error)
    if found:
        raise InputError(
            f"expected a whole checkpoint in {folder}, got {len(found)} damaged ones; "
            "bring one back, or start anew in another folder (--name)"
        )
    return None


def paths_in(folder: str | Path) -> list[Path]:
    """The checkpoints of a folder, whole or not, the newest last."""
    return sorted(Path(folder).glob("step-*"))


def versions() -> dict[str, str]:
    """Of LIBRARIES, as they are installed."""
    return {name: version(name) for name in LIBRARIES}


def tell_of_versions(checkpoint: Checkpoint) -> None:
    """Warns where other libraries wrote a checkpoint: they may compute, say, a sum in another order."""
    before, now = checkpoint.versions, versions()
    others = [f"{name} {before.get(name)}" for name in LIBRARIES if before.get(name) != now[name]]
    if others:
        logger.warning(
            "checkpoint %s was written with %s, which are others now: the training goes on, but maybe not bit for bit "
            "as it would have there",
            checkpoint.folder.name,
            ", ".join(others),
        )


def identity(folder: str | Path) -> str:
    """Which checkpoints a folder has, in a few characters, without reading what is in them."""
    found = paths_in(folder)
    if not found:
        return "no checkpoint"
    details = hashlib.sha256()
    for path in found:
        details.update(path.name.encode())
        with contextlib.suppress(OSError):
            details.update((path / DETAILS).read_bytes())
    return f"{found[-1].name} ({details.hexdigest()[:8]})"


def check_shared(strategy: tf.distribute.Strategy, folder: str | Path, more: str = "") -> None:
    """Makes sure that all workers have found the same checkpoints in a folder, and the same of what is told besides.

    Raises:
        InputError: not all have.
    """
    advice = "put --runs where all hosts share it, and end what else trains in it"
    check_alike(strategy, f"all workers to find the same in {folder}", f"{identity(folder)}{more}", advice)


def _read(path: Path) -> Checkpoint:
    told = read_json(path / DETAILS, "a checkpoint's details")
    if state.sha256(path / ARRAYS) != told["sha256"]:
        raise InputError(f"{ARRAYS} is not what was written")
    return Checkpoint(
        path, *(told[name] for name in ("step", "details", "callbacks", "seconds", "finished", "versions"))
    )


class Checkpoints(keras.callbacks.Callback):
    """Writes checkpoints while the training goes on, and restores the newest. Place it last.

    Args:
        folder: of the checkpoints; of several workers the first one writes, and all read.
        every: steps between two; by default ten minutes. There is one at the end of a training in any case.
        keep: how many there are; older ones are removed.
        callbacks: those whose memory is kept too: they have `memory()`, which JSON can write, and `recall(memory)`.
        details: kept too, as JSON, for `Checkpoint.details`.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int = 0,
        *,
        keep: int = 2,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        details: Mapping[str, Any] | None = None,
        stopping: Stopping | None = None,
    ):
        super().__init__()
        for name, value, least in (("every", every, 0), ("keep", keep, 1)):
            if value < least:
                raise InputError(f"expected {name} of at least {least}, got {value}; raise it")
        self.folder, self.every, self.keep = Path(folder), every, keep
        self.callbacks, self.details = list(callbacks), dict(details or {})
        self.stopping = stopping or Stopping()
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future | None = None
        self._metrics: dict[str, np.ndarray] = {}
        self._saved, self._time = 0, time.monotonic()  # the last one: its step, and when
        self._rewound = 0  # the step after which weights and optimizer were put back
        self._seconds, self._begun = 0.0, self._time  # of trainings before this one, and when this one began

    @property
    def seconds(self) -> float:
        """That the training has taken, before it was restored too."""
        return self._seconds + time.monotonic() - self._begun

    def restore(self, model: keras.Model, checkpoint: Checkpoint | None = None) -> int:
        """Makes a compiled model what it was at the newest whole checkpoint; returns the step, 0 without checkpoints.

        Args:
            checkpoint: the newest one, if it has been found already.

        Raises:
            InputError: checkpoints of another model or optimizer, or damaged ones alone.
        """
        if is_chief():
            remove_unfinished(self.folder)
        checkpoint = checkpoint or newest(self.folder)
        if checkpoint is None:
            return 0
        self._metrics = self._apply(checkpoint, model)
        tell_of_versions(checkpoint)
        for callback, memory in zip(self.callbacks, checkpoint.callbacks, strict=True):
            callback.recall(memory)
        self._saved, self._seconds = checkpoint.step, checkpoint.seconds
        if is_chief():
            for path in self._paths():
                if path.name > checkpoint.folder.name:  # it is damaged
                    shutil.rmtree(path)
        return checkpoint.step

    def rewind(self) -> int | None:
        """Gives weights and optimizer back what they were at the newest checkpoint, but not the step.

        Returns:
            The checkpoint's step; None where there is none.
        """
        self.wait()
        agreed(self.model.distribute_strategy)  # that the first worker has written
        check_shared(self.model.distribute_strategy, self.folder)
        checkpoint = newest(self.folder)
        if checkpoint is None:
            return None
        iterations = self.model.optimizer.iterations
        step = steps_made(self.model.optimizer)
        self._apply(checkpoint, self.model)
        iterations.assign(step)
        self.model.reset_metrics()
        self._rewound = step
        return checkpoint.step

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._time = self._begun = time.monotonic()
        if (paths := self._paths()) and _step_of(paths[-1]) > steps_made(self.model.optimizer):
            raise InputError(
                f"expected {self.folder} without checkpoints of later steps, got {paths[-1].name}; restore it or "
                "name another folder"
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self._metrics and not self._at_epoch_end():  # Keras has just reset them
            self._build_metrics()
            state.assign(state.metrics_of(self.model), self._metrics, "the checkpoint")
        self._metrics = {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not self._at_epoch_end():  # an epoch is over when it has been evaluated
            self._step()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._step(finished=self.model.stop_training or epoch + 1 == self.params.get("epochs"))

    def on_train_end(self, logs: dict | None = None) -> None:
        self.wait()

    def save(self, finished: bool = False) -> None:
        """Copies the state to memory, from where it is written while the training goes on.

        Args:
            finished: the training is over.

        Raises:
            InputError: the one before could not be written.
        """
        self.wait()
        step = steps_made(self.model.optimizer)
        metrics = state.read(state.metrics_of(self.model))  # of all workers, by all of them
        told = {
            "step": step,
            "seconds": self.seconds,
            "finished": finished,
            "details": self.details,
            "callbacks": [callback.memory() for callback in self.callbacks],
            "versions": versions(),
        }
        self._saved, self._time = step, time.monotonic()
        if is_chief():
            arrays = state.read(state.variables_of(self.model)) | metrics
            self._writing = self._writer.submit(self._write, step, arrays, told)

    def wait(self) -> None:
        """Until what is being written is on the disk.

        Raises:
            InputError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except OSError as error:
            raise InputError(
                f"expected room for a checkpoint in {self.folder}, got {error}; make room and train on from "
                f"the last one, {self._last()}"
            ) from error

    def _step(self, finished: bool = False) -> None:
        """Saves if it is time, or if the training ends."""
        step = steps_made(self.model.optimizer)
        if self._writing is not None and self._writing.done():
            self.wait()  # tells of an error soon
        if self.every:
            due = step // self.every > self._saved // self.every
        else:
            due = time.monotonic() - self._time > 60 * MINUTES
        due = due and step != self._rewound  # it would be the last one over again
        due, stop = agreed(self.model.distribute_strategy, due or finished, self.stopping.received is not None)
        if (due or stop) and step > self._saved:
            self.save(finished)
        if stop and not finished:
            self.wait()
            self.stopping.stop(step)

    def _at_epoch_end(self) -> bool:
        params, step = self.params or {}, steps_made(self.model.optimizer)
        return bool(params.get("steps")) and (step % params["steps"] == 0 or step == params.get("total_steps"))

    def _apply(self, checkpoint: Checkpoint, model: keras.Model) -> dict[str, np.ndarray]:
        """Gives a model the state of a checkpoint; returns the running means, which Keras is to reset first."""
        arrays, metrics = checkpoint.arrays()
        state.assign(state.variables_of(model), arrays, str(checkpoint.folder))
        return {} if checkpoint.finished else metrics  # the last evaluation's

    def _build_metrics(self) -> None:
        """Gives metrics their variables, which Keras does at a first batch."""
        if self.model._compile_metrics is None or self.model._compile_metrics.built:
            return
        inputs = {name: tf.zeros([1, 1], tf.int32) for name in self.model.input_names}
        outputs = self.model.compute_output_spec(inputs)
        self.model._symbolic_build(data_batch=(inputs, tf.zeros(outputs.shape[:-1], tf.int32)))

    def _write(self, step: int, arrays: Mapping[str, np.ndarray], told: dict) -> None:
        for name, array in arrays.items():
            if name.startswith(("model/", "optimizer/")) and not np.isfinite(array).all():
                return logger.warning("step %d is not saved: %s is no longer finite", step, name)
        with new_folder(self.folder / f"step-{step:08}", durable=True) as folder:
            told["sha256"] = state.write_arrays(folder / ARRAYS, arrays)
            write_json(folder / DETAILS, told)
        for old in self._paths()[: -self.keep]:
            shutil.rmtree(old)

    def _paths(self) -> list[Path]:
        return paths_in(self.folder)

    def _last(self) -> str:
        return self._paths()[-1].name if self._paths() else "of which there is none"


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
