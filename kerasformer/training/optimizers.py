"""Optimizers with the settings that Transformers are trained with."""

import keras

from kerasformer.training.schedules import WarmupLinear

# Biases, and the scales and shifts of normalisations.
NOT_DECAYED = ["bias", "gamma", "beta"]


def adamw(
    learning_rate: float,
    *,
    steps: int,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    clip_norm: float | None = 1.0,
) -> keras.optimizers.AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) under warm-up and linear decay.

    Args:
        learning_rate: at the end of the warm-up.
        steps: length of the whole run, in optimizer steps.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices and embeddings; biases and normalisations are not decayed.
        clip_norm: the gradients' global norm is cut to this; None or 0 leaves them.
    """
    schedule = WarmupLinear(learning_rate, steps, round(warmup * steps))
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, global_clipnorm=clip_norm
    )
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
