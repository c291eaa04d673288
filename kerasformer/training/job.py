"""What the recipes of `train` differ in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasformer.data.batches import Batches
from kerasformer.data.masking import AnyWindows
from kerasformer.training.tasks import CausalLM, Classifier, MaskedLM

Data = Batches | AnyWindows


@dataclass(frozen=True)
class Job:
    """A model, what it learns from, and how it is watched.

    Args:
        model: not compiled yet.
        validation: what is held out, if anything.
        summary: one line on such data.
        steps: of the whole training.
        interval: steps from one evaluation to the next.
        trial: gives batches to try XLA on, and the number of shapes that batches have.
        evaluation: follows the model on what is held out.
        figures: of a saved model, by its folder, on what is held out.
        loss: the head's own by default.
        monitor: what of the logs tells the best model.
        shown: what TensorBoard is told besides.
    """

    model: Classifier | CausalLM | MaskedLM
    training: Data
    validation: Data | None
    summary: Callable[[Data], str]
    steps: int
    interval: int
    trial: Callable[[], tuple[tf.data.Dataset, int]]
    evaluation: keras.callbacks.Callback | None
    figures: Callable[[Path], dict[str, float]]
    loss: keras.Loss | None = None
    class_weight: dict[int, float] | None = None
    steps_per_execution: int = 1
    monitor: str = "val_loss"
    shown: dict[str, Any] = field(default_factory=dict)
