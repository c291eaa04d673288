"""Losses per example: the training step sums them and divides once."""

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable("kerasformer")
class Crossentropy(keras.losses.Loss):
    """Cross-entropy of logits [..., C] and class ids [...].

    Args:
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2015, arXiv 1512.00567).
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"expected label_smoothing in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Loss of each example [...], in nats."""
        if len(y_true.shape) != len(y_pred.shape) - 1:
            raise ValueError(f"expected class ids, a dimension less than the logits {y_pred.shape}, got {y_true.shape}")
        log_probabilities = ops.log_softmax(ops.cast(y_pred, "float32"))
        target = ops.cast(y_true, "int32")[..., None]
        loss = -ops.squeeze(ops.take_along_axis(log_probabilities, target, axis=-1), -1)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * ops.mean(log_probabilities, axis=-1)
        return loss

    def get_config(self) -> dict:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
