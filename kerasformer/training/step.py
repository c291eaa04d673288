"""The training step of every head, behind Keras's own `compile`, `fit`, `evaluate` and `predict`.

Losses and weights are summed, divided once, and applied once, so that padding, class weights and (with several
micro-batches or replicas) uneven parts count as they should.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.training.feed import Feed
from kerasformer.training.optimizers import AdamW

# What `fit` logs of a step alone: its loss, the gradient's norm before clipping, real tokens, and those and padding.
STEP_LOGS = ("step_loss", "gradient_norm", "tokens", "positions")


class TrainingStep:
    """Mixin before a head's Keras model: its step, and `fit` and `evaluate` on the data that the head learns from.

    Beside the metrics, which are running means, `fit` logs STEP_LOGS of each step. A head says what its data are
    (`batches_class`, `training_set`, `validation_set`) and, if not Keras's loss of its outputs, what it loses.
    """

    batches_class: ClassVar[type]

    def training_set(self, batches: Any, epochs: range, steps_per_epoch: int | None) -> tuple[tf.data.Dataset, int]:
        """What these epochs see of the head's data, one after another, and the steps of each."""
        raise NotImplementedError

    def validation_set(self, batches: Any) -> tf.data.Dataset:
        """The head's data once."""
        raise NotImplementedError

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
        weights = self.weights_of(labels, sample_weight)
        loss_sum, outputs, gradients = self._gradients(inputs, labels, weights)
        # A batch whose weights are all zero teaches nothing; it must not divide by zero.
        weight_sum = tf.maximum(tf.reduce_sum(weights), 1e-12)
        gradient_norm = self._update(gradients, weight_sum)
        self._update_metrics(loss_sum, weight_sum, labels, outputs, sample_weight)
        positions = tf.size(inputs["token_ids"])
        return self.get_metrics_result() | {
            "step_loss": loss_sum / weight_sum,
            "gradient_norm": gradient_norm,
            "tokens": tf.reduce_sum(inputs["padding_mask"]) if "padding_mask" in inputs else positions,
            "positions": positions,
        }

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.weights_of(labels, sample_weight)
        loss_sum, outputs = self.sum_losses(inputs, labels, weights, training=False)
        self._update_metrics(loss_sum, tf.maximum(tf.reduce_sum(weights), 1e-12), labels, outputs, sample_weight)
        return self.get_metrics_result()

    def weights_of(self, labels: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
        """How much each label counts, float32 and of the shape of `labels`."""
        return tf.ones(tf.shape(labels)) if sample_weight is None else tf.cast(sample_weight, tf.float32)

    def sum_losses(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Sum of the weighted losses, and the outputs that metrics are to see."""
        outputs = self(inputs, training=training)
        return tf.reduce_sum(_elementwise(self.loss)(labels, outputs) * weights), outputs

    def sum_gradients(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
        """What `sum_losses` gives, and the sum's gradients."""
        with tf.GradientTape() as tape:
            loss_sum, outputs = self.sum_losses(inputs, labels, weights, training=True)
        variables = [variable.value for variable in self.trainable_variables]
        gradients = tape.gradient(loss_sum, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss_sum, outputs, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _apply_gradients(self, gradients: list[tf.Tensor], weight_sum: tf.Tensor) -> tf.Tensor:
        """One optimizer step on the mean gradient; returns that gradient's global norm."""
        gradients = [gradient / tf.cast(weight_sum, gradient.dtype) for gradient in gradients]
        gradient_norm = tf.linalg.global_norm(gradients)
        self.optimizer.apply(gradients, self.trainable_variables)
        return gradient_norm

    def _update_metrics(
        self,
        loss_sum: tf.Tensor,
        weight_sum: tf.Tensor,
        labels: tf.Tensor,
        outputs: tf.Tensor | None,
        sample_weight: tf.Tensor | None,
    ) -> None:
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss_sum / weight_sum, sample_weight=weight_sum)
            else:
                metric.update_state(labels, outputs, sample_weight=sample_weight)

    def fit(
        self,
        x: Any = None,
        *args,
        epochs: int = 1,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_data: Any = None,
        **kwargs,
    ) -> keras.callbacks.History:
        """Keras's `fit`; `x` and `validation_data` may be of the head's `batches_class`.

        Raises:
            InputError: data that are not for this model, or an epoch of no whole number of executions.
        """
        if isinstance(x, self.batches_class):
            rows = x.batch_size
            x, steps_per_epoch = self.training_set(x, range(initial_epoch, epochs), steps_per_epoch)
            if steps_per_epoch % self.steps_per_execution:
                raise InputError(
                    f"expected steps_per_execution to divide the {steps_per_epoch} steps of an epoch, "
                    f"got {self.steps_per_execution}; change one of them"
                )
            kwargs["shuffle"] = False  # they are in order already
            self.feed = Feed(rows)
            if self.distribute_strategy.num_replicas_in_sync == 1 and not kwargs.get("class_weight"):
                x = self.feed.counted(x)  # elsewhere Keras prefetches behind it
        if isinstance(validation_data, self.batches_class):
            validation_data = self.validation_set(validation_data)
        return super().fit(
            x,
            *args,
            epochs=epochs,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation_data,
            **kwargs,
        )

    def evaluate(self, x: Any = None, *args, **kwargs) -> list[float] | dict[str, float]:
        """Keras's `evaluate`; `x` may be of the head's `batches_class`."""
        if isinstance(x, self.batches_class):
            x = self.validation_set(x)
        return super().evaluate(x, *args, **kwargs)


def _elementwise(loss: str | keras.Loss | Callable) -> Callable:
    """A Keras loss before its reduction."""
    return loss.call if isinstance(loss, keras.losses.Loss) else keras.losses.get(loss)
