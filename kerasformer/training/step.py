"""The training step of every head, behind Keras's own `compile`, `fit`, `evaluate` and `predict`.

Losses and weights are summed, divided once, and applied once, so that padding, class weights and (with several
micro-batches or replicas) uneven parts count as they should.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasformer.data.batches import Batches
from kerasformer.data.encoding import unlabelled
from kerasformer.errors import InputError
from kerasformer.training.optimizers import AdamW

# What `fit` logs of a step alone: its loss, the gradient's norm before clipping, real tokens, and those and padding.
STEP_LOGS = ("step_loss", "gradient_norm", "tokens", "positions")


class TrainingStep:
    """Mixin before a head's Keras model: its step, and `fit` on Batches and `predict` on texts.

    Beside the metrics, which are running means, `fit` logs STEP_LOGS of each step.
    """

    def compile(self, *args, jit_compile: bool | str = "auto", **kwargs) -> None:
        """Keras's `compile`, with defaults for the head's loss and metrics.

        Args:
            jit_compile: True compiles forward and backward pass with XLA. "auto" leaves them to TensorFlow's own
                kernels, which are the faster ones in bfloat16 on a CPU, and compiles the update of an optimizer
                other than `AdamW`, whose many small operations XLA fuses. False uses no XLA at all.
        """
        super().compile(*args, jit_compile=False, **kwargs)
        self.optimizer.build(self.trainable_variables)  # inside of a tf.function it would be traced twice
        self._gradients = tf.function(self.sum_gradients, jit_compile=jit_compile is True)
        jit_update = not isinstance(self.optimizer, AdamW) if jit_compile == "auto" else jit_compile
        self._update = tf.function(self._apply_gradients, jit_compile=jit_update)

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = tf.ones(tf.shape(labels)) if sample_weight is None else tf.cast(sample_weight, tf.float32)
        loss_sum, outputs, gradients = self._gradients(inputs, labels, weights)
        # A batch whose weights are all zero teaches nothing; it must not divide by zero.
        weight_sum = tf.maximum(tf.reduce_sum(weights), 1e-12)
        gradient_norm = self._update(gradients, weight_sum)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss_sum / weight_sum, sample_weight=weight_sum)
            else:
                metric.update_state(labels, outputs, sample_weight=sample_weight)
        padding_mask = inputs["padding_mask"]
        return self.get_metrics_result() | {
            "step_loss": loss_sum / weight_sum,
            "gradient_norm": gradient_norm,
            "tokens": tf.reduce_sum(padding_mask),
            "positions": tf.size(padding_mask),
        }

    def sum_gradients(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Sum of the weighted losses, the outputs, and the sum's gradients."""
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            loss_sum = tf.reduce_sum(_elementwise(self.loss)(labels, outputs) * weights)
        variables = [variable.value for variable in self.trainable_variables]
        gradients = tape.gradient(loss_sum, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss_sum, outputs, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _apply_gradients(self, gradients: list[tf.Tensor], weight_sum: tf.Tensor) -> tf.Tensor:
        """One optimizer step on the mean gradient; returns that gradient's global norm."""
        gradients = [gradient / tf.cast(weight_sum, gradient.dtype) for gradient in gradients]
        gradient_norm = tf.linalg.global_norm(gradients)
        self.optimizer.apply(gradients, self.trainable_variables)
        return gradient_norm

    def fit(
        self,
        x: Batches | Any = None,
        *args,
        epochs: int = 1,
        initial_epoch: int = 0,
        validation_data: Batches | Any = None,
        **kwargs,
    ) -> keras.callbacks.History:
        """Keras's `fit`; `x` and `validation_data` may be Batches."""
        if isinstance(x, Batches):
            self._check_labels(x)
            # The trained model predicts, and is served, with inputs like those that it has learned from.
            self.text_pair = x.text_pair
            if self.tokenizer is not None:
                self.tokenizer.max_length = x.max_length
            kwargs |= {"steps_per_epoch": len(x), "shuffle": False}  # Batches are in order already
            x = x.dataset(range(initial_epoch, epochs))
        if isinstance(validation_data, Batches):
            self._check_labels(validation_data)
            validation_data = validation_data.dataset()
        return super().fit(
            x, *args, epochs=epochs, initial_epoch=initial_epoch, validation_data=validation_data, **kwargs
        )

    def evaluate(self, x: Batches | Any = None, *args, **kwargs) -> list[float] | dict[str, float]:
        """Keras's `evaluate`; `x` may be Batches."""
        if isinstance(x, Batches):
            self._check_labels(x)
            x = x.dataset()
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Batches | Sequence | Any, *args, **kwargs) -> np.ndarray:
        """Probabilities [N, C] of Batches, of texts, of (text, text_pair) tuples or of ids, in the order given."""
        if isinstance(x, str):
            x = [x]
        if isinstance(x, Sequence) and not isinstance(x, Batches):
            x = unlabelled(x, tokenizer=self.tokenizer, batch_size=kwargs.pop("batch_size", 32) or 32)
        if not isinstance(x, Batches):
            return _softmax(super().predict(x, *args, **kwargs))
        kwargs.setdefault("verbose", 0)
        logits = super().predict(x.dataset(), *args, **kwargs)
        probabilities = np.empty_like(logits)
        probabilities[np.concatenate(x.order())] = _softmax(logits)
        return probabilities

    def _check_labels(self, batches: Batches) -> None:
        if batches.labels is not None and list(batches.labels) != list(self.labels):
            raise InputError(
                f"expected data with the model's labels {list(self.labels)}, got {list(batches.labels)}; "
                "pass labels=model.labels when the data is read"
            )


def _elementwise(loss: str | keras.Loss | Callable) -> Callable:
    """A Keras loss before its reduction."""
    return loss.call if isinstance(loss, keras.losses.Loss) else keras.losses.get(loss)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
