"""Layer normalisation (Ba et al. 2016, arXiv 1607.06450) whose gradient is written out."""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from kerasformer import backend
from kerasformer.layers.reductions import summed


class LayerNorm(keras.layers.LayerNormalization):
    """Keras's LayerNormalization over the last axis, variables and all.

    The gradient that TensorFlow derives makes more passes over memory than the formula needs.
    """

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """[..., D] -> [..., D]."""
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        # Tensors, as a written gradient takes nothing else; float32 where the weights are held in bfloat16.
        gamma, beta = (ops.cast(ops.copy(weight), "float32") for weight in (self.gamma, self.beta))
        normal = normalise(rows, gamma, beta, ops.convert_to_tensor(self.epsilon, "float32"))
        return ops.reshape(normal, ops.shape(inputs))


@ops.custom_gradient
def normalise(
    x: KerasTensor, gamma: KerasTensor, beta: KerasTensor, epsilon: KerasTensor
) -> tuple[KerasTensor, Callable]:
    """Rows [rows, D] of mean 0 and variance 1, times gamma [D], plus beta [D]; in float32 whatever the dtype of x."""
    y, mean, scale = _forward(x, gamma, beta, epsilon)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return *_backward(x, mean, scale, gamma, upstream), ops.zeros_like(epsilon)

    return y, gradient


@backend.fusible
def _forward(
    x: KerasTensor, gamma: KerasTensor, beta: KerasTensor, epsilon: KerasTensor
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """The normalised rows, and the mean and scale [rows, 1] by which they were."""
    wide = ops.cast(x, "float32")
    mean = _mean(wide)
    centred = wide - mean
    scale = ops.rsqrt(_mean(ops.square(centred)) + epsilon)
    return backend.cast(centred * scale * gamma + beta, x.dtype), mean, scale


@backend.fusible
def _backward(
    x: KerasTensor, mean: KerasTensor, scale: KerasTensor, gamma: KerasTensor, upstream: KerasTensor
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """The gradients of x, gamma and beta."""
    upstream = ops.cast(upstream, "float32")
    normal = (ops.cast(x, "float32") - mean) * scale
    product = upstream * normal
    shift, slope = _mean(upstream * gamma), _mean(product * gamma)
    dx = (upstream * gamma - shift - normal * slope) * scale
    return backend.cast(dx, x.dtype), summed(product, 0), summed(upstream, 0)


def _mean(x: KerasTensor) -> KerasTensor:
    """[rows, D] -> [rows, 1]."""
    return summed(x, -1, keepdims=True) / x.shape[-1]
