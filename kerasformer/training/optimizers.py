"""Optimizers with the settings that Transformers are trained with."""

import keras
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.training.schedules import SCHEDULES

# Biases, and the scales and shifts of normalisations.
NOT_DECAYED = ["bias", "gamma", "beta"]


class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW, whose update of a variable is two operations: each one pass over memory, in place.

    The arithmetic is the same; Keras makes some twenty operations of it, which take long to trace and to compile.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        if self.weight_decay and self._use_weight_decay(variable):
            rate = tf.cast(learning_rate, variable.dtype) * self.weight_decay
            # Not before the gradient is there: all products at once would take as much memory as the weights.
            with tf.control_dependencies([gradient]):
                variable.assign(variable * (1 - rate))  # one product; Keras makes two and a difference
        if variable.dtype != tf.float32:  # the operation reads its slots as float32
            return super().update_step(gradient, variable, learning_rate)
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),
        )

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        """Nothing: a variable decays where it is updated."""


def steps_made(optimizer: keras.Optimizer) -> int:
    """How many steps an optimizer has made."""
    return int(tf.convert_to_tensor(optimizer.iterations))


def global_clipnorm(optimizer: keras.Optimizer) -> float | None:
    """What the norm of all gradients together is cut to."""
    return getattr(optimizer, "inner_optimizer", optimizer).global_clipnorm


def leave_to_step(optimizer: keras.Optimizer, strategy: tf.distribute.Strategy) -> None:
    """Takes from an optimizer what the training step does: adding up over replicas, then cutting to the global norm.

    Raises:
        InputError: an optimizer made outside the strategy's scope, which would update one replica alone.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer._distribution_strategy is not strategy:
        raise InputError(
            "expected an optimizer made within the model's strategy.scope(), got one from outside; "
            "make model and optimizer inside"
        )
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    if optimizer.global_clipnorm:
        optimizer._clip_gradients = lambda gradients: gradients


def adamw(
    learning_rate: float,
    *,
    steps: int,
    warmup: float = 0.1,
    schedule: str = "linear",
    floor: float = 0.0,
    weight_decay: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    clip_norm: float | None = 1.0,
) -> AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) under warm-up and decay of its rate.

    Args:
        learning_rate: at the end of the warm-up.
        steps: length of the whole run, in optimizer steps.
        warmup: share of the steps in which the rate rises.
        schedule: how the rate falls after that: "linear", "cosine", or "wsd", in the last fifth alone.
        floor: the rate at the end.
        weight_decay: of matrices and embeddings; biases and normalisations are not decayed.
        clip_norm: the gradients' global norm is cut to this; None or 0 leaves them.
    """
    rate = SCHEDULES[schedule](learning_rate, steps, round(warmup * steps), floor)
    optimizer = AdamW(rate, weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, global_clipnorm=clip_norm)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def muon(
    learning_rate: float,
    *,
    steps: int,
    warmup: float = 0.1,
    schedule: str = "linear",
    floor: float = 0.0,
    weight_decay: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    clip_norm: float | None = 1.0,
) -> keras.optimizers.Muon:
    """Keras's Muon (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982), and AdamW for all but the layers' matrices.

    A step costs more than AdamW's, and fewer are needed. Its updates are as large as AdamW's: so can the rates be.

    Args:
        learning_rate, steps, warmup, schedule, floor, weight_decay, clip_norm: as of `adamw`.
        beta_1, beta_2, epsilon: of AdamW.
    """
    optimizer = keras.optimizers.Muon(
        SCHEDULES[schedule](learning_rate, steps, round(warmup * steps), floor),
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay,
        adam_beta_1=beta_1,
        adam_beta_2=beta_2,
        epsilon=epsilon,
        global_clipnorm=clip_norm,
    )
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


OPTIMIZERS = {"adamw": adamw, "muon": muon}
