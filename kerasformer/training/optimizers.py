"""Optimizers with the settings that Transformers are trained with, each under warm-up and decay of its rate."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasformer.config import Training
from kerasformer.errors import InputError
from kerasformer.models.head import Head
from kerasformer.training import updates
from kerasformer.training.schedules import SCHEDULES
from kerasformer.training.tuning import rate_shares
from kerasformer.training.updates import AdamW

__all__ = ["OPTIMIZERS", "AdamW", "adafactor", "adamw", "lamb", "lion", "muon", "of_recipe", "rate_shares", "sgd"]


def steps_made(optimizer: keras.Optimizer) -> int:
    """How many steps an optimizer has made."""
    return int(tf.convert_to_tensor(optimizer.iterations))


def global_clipnorm(optimizer: keras.Optimizer) -> float | None:
    """What the norm of all gradients together is cut to."""
    return getattr(optimizer, "inner_optimizer", optimizer).global_clipnorm


def leave_to_step(optimizer: keras.Optimizer, strategy: tf.distribute.Strategy) -> None:
    """Takes from an optimizer what the training step does: adding up over replicas, then cutting to the global norm.

    Raises:
        InputError: an optimizer made outside the strategy's scope, which would update one replica alone, or one that
            adds up gradients itself; or moving averages with float16's scaled losses.
    """
    scaled, optimizer = optimizer, getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer is not scaled and optimizer.use_ema:
        raise InputError(
            "expected no moving averages with scaled losses, whose first steps, where averages begin, can be left out, "
            "got use_ema; train in bfloat16, which scales none"
        )
    if optimizer._distribution_strategy is not strategy:
        raise InputError(
            "expected an optimizer made within the model's strategy.scope(), got one from outside; "
            "make model and optimizer inside"
        )
    if optimizer.gradient_accumulation_steps:
        raise InputError(
            f"expected an optimizer without gradient_accumulation_steps, got {optimizer.gradient_accumulation_steps}; "
            "pass compile(accumulate=), which divides a batch"
        )
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    if optimizer.global_clipnorm:
        optimizer._clip_gradients = lambda gradients: gradients


def adamw(
    learning_rate: float, *, steps: int, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8, **settings
) -> AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) under warm-up and decay of its rate.

    Args:
        learning_rate: at the end of the warm-up.
        steps: length of the whole run, in optimizer steps.
        **settings: of `common`, such as warmup, schedule, weight_decay and clip_norm.
    """
    own = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    return AdamW(**own, **common(learning_rate, steps=steps, **settings))


def muon(
    learning_rate: float,
    *,
    steps: int,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    momentum: float = 0.95,
    **settings,
) -> keras.optimizers.Muon:
    """Keras's Muon (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982), and AdamW for all but the layers' matrices.

    A step costs more than AdamW's, and fewer are needed. Its updates are as large as AdamW's: so can the rates be.

    Args:
        beta_1, beta_2, epsilon: of AdamW.
        momentum: of Muon.
        **settings: of `common`, and as of `adamw`.
    """
    adam = {"adam_beta_1": beta_1, "adam_beta_2": beta_2, "epsilon": epsilon}
    return updates.Muon(**adam, momentum=momentum, **common(learning_rate, steps=steps, **settings))


def lamb(
    learning_rate: float, *, steps: int, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-6, **settings
) -> keras.optimizers.Lamb:
    """LAMB (You et al. 2019, arXiv 1904.00962), for batches of thousands: AdamW whose step is in proportion to a
    variable's norm.

    Args:
        **settings: of `common`, and as of `adamw`.
    """
    own = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    return updates.Lamb(**own, **common(learning_rate, steps=steps, **settings))


def lion(
    learning_rate: float, *, steps: int, beta_1: float = 0.9, beta_2: float = 0.99, **settings
) -> keras.optimizers.Lion:
    """Lion (Chen et al. 2023, arXiv 2302.06675): the sign of a momentum, and so a single slot a weight.

    Its authors advise a third to a tenth of AdamW's rate, and as much more weight decay.

    Args:
        **settings: of `common`, and as of `adamw`.
    """
    return updates.Lion(beta_1=beta_1, beta_2=beta_2, **common(learning_rate, steps=steps, **settings))


def adafactor(learning_rate: float, *, steps: int, **settings) -> updates.Adafactor:
    """Adafactor (Shazeer & Stern 2018, arXiv 1804.04235): a matrix has one slot a row and one a column.

    Rates are in proportion to a variable's root mean square, and never above 1 / sqrt(step): the paper's is 1e-2.

    Args:
        **settings: of `common`, and as of `adamw`.
    """
    return updates.Adafactor(**common(learning_rate, steps=steps, **settings))


def sgd(learning_rate: float, *, steps: int, momentum: float = 0.9, **settings) -> keras.optimizers.SGD:
    """Stochastic gradient descent with momentum, and weight decay apart from the gradient (arXiv 1711.05101).

    Args:
        **settings: of `common`, and as of `adamw`.
    """
    return updates.SGD(momentum=momentum, **common(learning_rate, steps=steps, **settings))


def common(
    learning_rate: float,
    *,
    steps: int,
    warmup: float = 0.1,
    schedule: str = "linear",
    floor: float = 0.0,
    weight_decay: float = 0.01,
    clip_norm: float | None = 1.0,
    ema: float = 0.0,
    rate_shares: Mapping[str, float] | None = None,
    **shape: float,
) -> dict[str, Any]:
    """What every optimizer has, as Keras's classes take it.

    Args:
        learning_rate: at the end of the warm-up.
        steps: length of the whole run, in optimizer steps.
        warmup: share of the steps in which the rate rises; or, from 1 on, their number.
        schedule: how the rate falls after that, of `SCHEDULES`.
        floor: the rate at the end.
        weight_decay: of matrices and embeddings; biases and normalisations are not decayed.
        clip_norm: the gradients' global norm is cut to this; None or 0 leaves them.
        ema: momentum of an exponential moving average of the weights, which is evaluated and saved; 0 for none.
        rate_shares: the share of the rate at which a variable is trained, by its path; see `tuning.rate_shares`.
        **shape: what the schedule alone has: `power` of "polynomial", `decay_share` of "wsd".

    Raises:
        InputError: a rate or steps that are no number, an unknown schedule, or a warm-up that is longer than the run.
    """
    numbers = {
        "learning_rate": learning_rate,
        "warmup": warmup,
        "floor": floor,
        "weight_decay": weight_decay,
        "ema": ema,
    }
    for name, value in numbers.items():
        if not isinstance(value, int | float | np.number) or not value >= 0:
            raise InputError(f"expected {name} as a number of at least 0, got {value!r:.60}; change it")
    if not isinstance(steps, int | float | np.number) or not steps > 0:
        raise InputError(f"expected steps as a number above 0, got {steps!r}; pass the length of the run")
    if schedule not in SCHEDULES:
        raise InputError(f"expected a schedule of {', '.join(SCHEDULES)}, got {schedule!r}; name one")
    warmup_steps = round(warmup * steps) if warmup < 1 else round(warmup)
    if warmup_steps > steps:
        raise InputError(f"expected a warmup of at most the run's {steps} steps, got {warmup_steps}; lower it")
    return {
        "learning_rate": SCHEDULES[schedule](learning_rate, steps, warmup_steps, floor, **shape),
        "weight_decay": weight_decay,
        "global_clipnorm": clip_norm,
        "use_ema": bool(ema),
        "ema_momentum": ema,
        "rate_shares": rate_shares,
    }


OPTIMIZERS: dict[str, Callable[..., keras.Optimizer]] = {
    "adamw": adamw,
    "muon": muon,
    "lamb": lamb,
    "adafactor": adafactor,
    "lion": lion,
    "sgd": sgd,
}


def of_recipe(settings: Training, model: Head, steps: int) -> keras.Optimizer:
    """The optimizer of a recipe for a run of so many steps on this model.

    Raises:
        InputError: a warm-up that is longer than the run.
    """
    return OPTIMIZERS[settings.optimizer](
        settings.learning_rate,
        steps=steps,
        warmup=settings.warmup,
        schedule=settings.schedule,
        floor=settings.min_learning_rate,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        ema=settings.ema,
        rate_shares=rate_shares(model, settings.layer_decay),
        **settings.own_settings,
    )
