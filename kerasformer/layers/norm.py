"""Layer normalisation (Ba et al. 2016, arXiv 1607.06450) whose gradient is written out."""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from kerasformer import backend
from kerasformer.gradients import custom_gradient
from kerasformer.layers.reductions import summed


class LayerNorm(keras.layers.LayerNormalization):
    """Keras's LayerNormalization over the last axis, variables and all.

    The gradient that TensorFlow derives makes more passes over memory than the formula needs.
    """

    def call(self, inputs: KerasTensor, fork: bool = False) -> KerasTensor | tuple[KerasTensor, KerasTensor]:
        """[..., D] -> [..., D].

        Args:
            fork: returns the inputs too, for what reads them beside: the backward pass adds its gradient on the way.
        """
        rows, shape = ops.reshape(inputs, (-1, inputs.shape[-1])), ops.shape(inputs)
        # Tensors, as a written gradient takes nothing else; float32 where the weights are held in bfloat16.
        gamma, beta = (ops.cast(ops.copy(weight), "float32") for weight in (self.gamma, self.beta))
        weights = gamma, beta, ops.convert_to_tensor(self.epsilon, "float32")
        if fork:
            return tuple(ops.reshape(part, shape) for part in forked(rows, *weights))
        return ops.reshape(normalise(rows, *weights), shape)

    def compute_output_spec(
        self, inputs: KerasTensor, fork: bool = False
    ) -> KerasTensor | tuple[KerasTensor, KerasTensor]:
        spec = KerasTensor(inputs.shape, dtype=self.compute_dtype)
        return (spec, spec) if fork else spec


@custom_gradient
def normalise(
    x: KerasTensor, gamma: KerasTensor, beta: KerasTensor, epsilon: KerasTensor
) -> tuple[KerasTensor, Callable]:
    """Rows [rows, D] of mean 0 and variance 1, times gamma [D], plus beta [D]; in float32 whatever the dtype of x."""
    return _with_gradient(x, gamma, beta, epsilon)


@custom_gradient
def forked(
    x: KerasTensor, gamma: KerasTensor, beta: KerasTensor, epsilon: KerasTensor
) -> tuple[tuple[KerasTensor, KerasTensor], Callable]:
    """The rows as they are, and normalised."""
    y, gradient = _with_gradient(x, gamma, beta, epsilon)
    return (x, y), lambda for_x, for_y: gradient(for_y, for_x)


def _with_gradient(
    x: KerasTensor, gamma: KerasTensor, beta: KerasTensor, epsilon: KerasTensor
) -> tuple[KerasTensor, Callable]:
    y, mean, scale = _forward(x, gamma, beta, epsilon)

    def gradient(*upstreams):
        return *_backward(x, mean, scale, gamma, *upstreams), ops.zeros_like(epsilon)

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
    x: KerasTensor,
    mean: KerasTensor,
    scale: KerasTensor,
    gamma: KerasTensor,
    upstream: KerasTensor,
    *beside: KerasTensor,
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """The gradients of x, gamma and beta, from that of the normalised rows, and of x beside them."""
    upstream = ops.cast(upstream, "float32")
    normal = (ops.cast(x, "float32") - mean) * scale
    product = upstream * normal
    shift, slope = _mean(upstream * gamma), _mean(product * gamma)
    dx = (upstream * gamma - shift - normal * slope) * scale
    for part in beside:
        dx = dx + ops.cast(part, "float32")
    return backend.cast(dx, x.dtype), summed(product, 0), summed(upstream, 0)


def _mean(x: KerasTensor) -> KerasTensor:
    """[rows, D] -> [rows, 1]."""
    return summed(x, -1, keepdims=True) / x.shape[-1]
