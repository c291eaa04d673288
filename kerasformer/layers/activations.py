"""Activations whose gradient is written out, so that a step reads memory as few times as it can."""

import math
from collections.abc import Callable

from keras import KerasTensor, activations, ops


@ops.custom_gradient
def gelu(x: KerasTensor) -> tuple[KerasTensor, Callable]:
    """x * Phi(x), Phi the normal distribution's CDF (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    Computed in float32 whatever the dtype of `x`; the backward pass keeps `x` and Phi(x) alone.
    """
    wide = ops.cast(x, "float32")
    scaled = wide * math.sqrt(0.5)
    cdf = 0.5 * ops.erf(scaled) + 0.5

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        density = ops.exp(-0.5 * math.log(2 * math.pi) - scaled * scaled)
        return ops.cast(ops.cast(upstream, "float32") * (cdf + wide * density), x.dtype)

    return ops.cast(wide * cdf, x.dtype), gradient


def gelu_tanh(x: KerasTensor) -> KerasTensor:
    """The tanh approximation of GELU that GPT-2 uses, computed in float32."""
    return ops.cast(activations.gelu(ops.cast(x, "float32"), approximate=True), x.dtype)


ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": activations.relu,
    "silu": activations.silu,
}
