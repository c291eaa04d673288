"""Activations whose gradient is written out, so that a step reads memory as few times as it can."""

import math
from collections.abc import Callable

from keras import KerasTensor, activations, ops

SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715  # of the tanh approximation


@ops.custom_gradient
def gelu(x: KerasTensor) -> tuple[KerasTensor, Callable]:
    """x * Phi(x), Phi the normal distribution's CDF (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    Computed in float32 whatever the dtype of `x`.
    """
    wide = ops.cast(x, "float32")
    scaled = wide * math.sqrt(0.5)
    cdf = 0.5 * ops.erf(scaled) + 0.5

    def gradient(*args, upstream=None):
        density = ops.exp(-0.5 * math.log(2 * math.pi) - scaled * scaled)
        return times_slope(args[0] if upstream is None else upstream, cdf + wide * density)

    return ops.cast(wide * cdf, x.dtype), gradient


@ops.custom_gradient
def gelu_tanh(x: KerasTensor) -> tuple[KerasTensor, Callable]:
    """The tanh approximation of GELU that GPT-2 uses, computed in float32."""
    wide = ops.cast(x, "float32")
    square = wide * wide
    tanh = ops.tanh(wide * (SCALE + SCALE * CUBIC * square))
    half = 0.5 * tanh + 0.5

    def gradient(*args, upstream=None):
        inner = wide * (SCALE + 3 * SCALE * CUBIC * square)  # x times the derivative of what the tanh is of
        return times_slope(args[0] if upstream is None else upstream, half + 0.5 * inner * (1 - tanh * tanh))

    return ops.cast(wide * half, x.dtype), gradient


def times_slope(upstream: KerasTensor, slope: KerasTensor) -> KerasTensor:
    """Their product in the dtype of `upstream`, in which the slope is kept for the backward pass, and nothing else is.

    It waits for nothing, so TensorFlow computes it in the forward pass.
    """
    return upstream * ops.cast(slope, upstream.dtype)


ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": activations.relu,
    "silu": activations.silu,
}
