"""What a training does when something goes wrong: a loss that is no number, a log that cannot be written."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.training.checkpoints import Checkpoints
from kerasformer.training.optimizers import steps_made

logger = logging.getLogger(__name__)

REWINDS = 3  # to one checkpoint
LOWER = "lower the learning rate (--train.learning_rate)"
SHOWN = 2  # steps of an execution whose data a message describes
_unwritten: set[Path] = set()


class Finite(keras.callbacks.Callback):
    """Ends a training whose loss or gradients are no numbers, or goes back and on with the data that follow.

    Nothing good comes after them, so place it before what saves anything.

    Args:
        describe: what the data of a step are, for the message.
        rewind: the checkpoints to go back to; without them the training ends.
    """

    def __init__(self, describe: Callable[[int], str] | None = None, rewind: Checkpoints | None = None):
        super().__init__()
        self.describe, self.checkpoints = describe, rewind
        self.rewinds: dict[int, int] = {}  # how often to the checkpoint of a step
        self.first = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.first = steps_made(self.model.optimizer)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # A scaled loss overflows now and then: its optimizer skips such a step.
        scaled = hasattr(self.model.optimizer, "inner_optimizer")
        names = ("step_loss", "loss") if scaled else ("step_loss", "loss", "gradient_norm")
        bad = [name for name in names if name in logs and not math.isfinite(float(logs[name]))]
        if not bad:
            return
        what = f"a finite {'gradient' if bad[0] == 'gradient_norm' else 'loss'}, got {float(logs[bad[0]])}"
        where = self._where()
        if self.checkpoints is None:
            advice = f"{LOWER}, or leave such data out (--train.on_nan rewind)"
            raise InputError(f"expected {what} at {where}; {advice}")
        step = self.checkpoints.rewind()
        if step is None:
            raise InputError(f"expected {what} at {where}, before the first checkpoint; {LOWER}")
        self.rewinds[step] = self.rewinds.get(step, 0) + 1
        if self.rewinds[step] > REWINDS:
            raise InputError(f"expected {what} at {where}, {REWINDS} rewinds to step {step} before; {LOWER}")
        logger.warning("expected %s at %s: back to the weights of step %d, and on with what follows", what, where, step)

    def _where(self) -> str:
        """The steps of this execution, and their data."""
        last = steps_made(self.model.optimizer)
        numbers = range(self.first, max(last, self.first + 1))
        steps = f"step {last}" if len(numbers) == 1 else f"one of the steps {numbers[0] + 1} to {last}"
        if self.describe is None:
            return steps
        more = ["..."] if len(numbers) > SHOWN else []
        return f"{steps} ({'; '.join([*map(self.describe, numbers[:SHOWN]), *more])})"


@contextmanager
def may_be_lost(path: Path) -> Iterator[None]:
    """Writing a log, for whose sake no training ends: where it cannot be written, one line says so."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        if path not in _unwritten:
            logger.warning("%s cannot be written (%s): the training goes on without", path, str(error).splitlines()[0])
        _unwritten.add(path)
    else:
        _unwritten.discard(path)
