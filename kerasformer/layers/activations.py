"""Activations whose gradient is written out, so that a step reads memory as few times as it can."""

import functools
import math
from collections.abc import Callable

from keras import KerasTensor, activations, ops

from kerasformer import backend

SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715  # of the tanh approximation


def written(value_and_slope: Callable) -> Callable:
    """A function of which x -> its value and slope is given, both in the dtype of x.

    The slope is computed in the forward pass, and nothing else is kept for the backward pass. A graph that has none
    leaves it out.
    """
    fusible = backend.fusible(value_and_slope)

    @ops.custom_gradient
    def activation(x: KerasTensor) -> tuple[KerasTensor, Callable]:
        value, slope = fusible(x)

        def gradient(*args, upstream=None):
            return (args[0] if upstream is None else upstream) * slope

        return value, gradient

    return functools.wraps(value_and_slope)(activation)


@written
def gelu(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """x * Phi(x), Phi the normal distribution's CDF (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    Computed in float32 whatever the dtype of `x`.
    """
    wide = ops.cast(x, "float32")
    scaled = wide * math.sqrt(0.5)
    cdf = 0.5 * ops.erf(scaled) + 0.5
    density = ops.exp(-0.5 * math.log(2 * math.pi) - scaled * scaled)
    return ops.cast(wide * cdf, x.dtype), ops.cast(cdf + wide * density, x.dtype)


@written
def gelu_tanh(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """The tanh approximation of GELU that GPT-2 uses, computed in float32."""
    wide = ops.cast(x, "float32")
    square = wide * wide
    tanh = ops.tanh(wide * (SCALE + SCALE * CUBIC * square))
    half = 0.5 * tanh + 0.5
    inner = wide * (SCALE + 3 * SCALE * CUBIC * square)  # x times the derivative of what the tanh is of
    return ops.cast(wide * half, x.dtype), ops.cast(half + 0.5 * inner * (1 - tanh * tanh), x.dtype)


ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": activations.relu,
    "silu": activations.silu,
}
