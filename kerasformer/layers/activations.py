"""Activations whose gradient is written out, so that a step reads memory as few times as it can."""

import functools
import math
from collections.abc import Callable

from keras import KerasTensor, activations, ops

from kerasformer import backend
from kerasformer.gradients import custom_gradient

SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715  # of the tanh approximation


def written(value_and_slope: Callable) -> Callable:
    """A function of which x -> its value and slope is given, both in float32 whatever the dtype of x.

    The backward pass keeps x and computes the slope anew: together with the value it would be in memory in between.
    """

    @backend.fusible
    def forward(x: KerasTensor) -> KerasTensor:
        return backend.cast(value_and_slope(ops.cast(x, "float32"))[0], x.dtype)

    @backend.fusible
    def backward(x: KerasTensor, upstream: KerasTensor) -> KerasTensor:
        slope = value_and_slope(ops.cast(x, "float32"))[1]
        return backend.cast(ops.cast(upstream, "float32") * slope, x.dtype)

    @custom_gradient
    def activation(x: KerasTensor) -> tuple[KerasTensor, Callable]:
        return forward(x), functools.partial(backward, x)

    return functools.wraps(value_and_slope)(activation)


@written
def gelu(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """x * Phi(x), Phi the normal distribution's CDF (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    scaled = x * math.sqrt(0.5)
    cdf = 0.5 * ops.erf(scaled) + 0.5
    density = ops.exp(-0.5 * math.log(2 * math.pi) - scaled * scaled)
    return x * cdf, cdf + x * density


@written
def gelu_tanh(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """The tanh approximation of GELU that GPT-2 uses."""
    square = x * x
    tanh = ops.tanh(x * (SCALE + SCALE * CUBIC * square))
    half = 0.5 * tanh + 0.5
    inner = x * (SCALE + 3 * SCALE * CUBIC * square)  # x times the derivative of what the tanh is of
    return x * half, half + 0.5 * inner * (1 - tanh * tanh)


@written
def silu(x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """x * sigmoid(x) (Elfwing et al. 2017, arXiv 1702.03118)."""
    gate = ops.sigmoid(x)
    return x * gate, gate + x * gate * (1 - gate)


ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": activations.relu,
    "silu": silu,
}
