"""Moving averages of the weights, which are evaluated and saved in the weights' place (Polyak & Juditsky 1992).

The optimizer keeps them (`ema` of `optimizers.common`) and the training does not read them. At the end of `fit`, Keras
leaves them in the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from kerasformer.training.optimizers import steps_made


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Within, the model has the averages of its weights, if its optimizer keeps any; after it, its weights."""
    _swap(model.optimizer)
    try:
        yield
    finally:
        _swap(model.optimizer)


class AveragedValidation(keras.callbacks.Callback):
    """Makes Keras's own `fit(validation_data=...)` evaluate the averages; this package's callbacks do so without it."""

    def on_test_begin(self, logs: dict | None = None) -> None:
        _swap(self.model.optimizer)

    def on_test_end(self, logs: dict | None = None) -> None:
        _swap(self.model.optimizer)


def _swap(optimizer: keras.Optimizer) -> None:
    """Exchanges weights and averages, bit for bit; before the first step there are no averages."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "use_ema", False) or not steps_made(optimizer):
        return
    for weight, average in zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True):
        kept = tf.identity(weight.value)
        weight.assign(average)
        average.assign(kept)
