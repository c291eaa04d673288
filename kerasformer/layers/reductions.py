"""Sums and maxima over one axis."""

from keras import KerasTensor, ops

from kerasformer import backend


def summed(x: KerasTensor, axis: int, keepdims: bool = False) -> KerasTensor:
    """The sum over `axis`."""
    return ops.sum(backend.folded(ops.add, x, axis), axis=axis, keepdims=keepdims)


def largest(x: KerasTensor, axis: int, keepdims: bool = False) -> KerasTensor:
    """The maximum over `axis`."""
    return ops.max(backend.folded(ops.maximum, x, axis), axis=axis, keepdims=keepdims)
