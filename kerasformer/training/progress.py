"""Keras's own progress bar, without what a step logs for others."""

from collections.abc import Sequence

import keras

from kerasformer.training.meter import METER_LOGS

# What `fit` logs of a step alone: its loss, the gradient's norm before clipping, real tokens, those and padding, rows.
STEP_LOGS = ("step_loss", "gradient_norm", "tokens", "positions", "rows")
HIDDEN = {*STEP_LOGS, *METER_LOGS} - {"tokens_per_second"}


class LossBar(keras.callbacks.ProgbarLogger):
    """Shows loss, metrics and tokens a second; the other logs are for TensorBoard and other callbacks."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(batch, _shown(logs))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, _shown(logs))


def with_bar(
    callbacks: Sequence[keras.callbacks.Callback] | None, verbose: str | int
) -> list | keras.callbacks.Callback:
    """The callbacks, and after them the bar, unless they have one or nothing is to be shown."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks or ())
    has_bar = any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in callbacks)
    return callbacks if has_bar or verbose in (0, None) else [*callbacks, LossBar()]


def _shown(logs: dict | None) -> dict:
    return {name: value for name, value in (logs or {}).items() if name not in HIDDEN}
