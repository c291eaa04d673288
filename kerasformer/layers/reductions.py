"""Sums and maxima over one axis."""

import functools
from collections.abc import Callable

from keras import KerasTensor, ops

from kerasformer import backend

PARTS = 8  # of an axis; what combines more than 12, XLA writes to memory on its way


def summed(x: KerasTensor, axis: int, keepdims: bool = False) -> KerasTensor:
    """The sum over `axis`."""
    return _reduced(ops.sum, ops.add, x, axis, keepdims)


def largest(x: KerasTensor, axis: int, keepdims: bool = False) -> KerasTensor:
    """The maximum over `axis`."""
    return _reduced(ops.max, ops.maximum, x, axis, keepdims)


def _reduced(reduce: Callable, combine: Callable, x: KerasTensor, axis: int, keepdims: bool) -> KerasTensor:
    """`x` reduced over `axis`. On CPUs, XLA does so number by number, and combines parts of an axis in vectors."""
    over = functools.partial(reduce, axis=axis, keepdims=keepdims)
    length = x.shape[axis]
    if not backend.is_fused_on_cpu() or length is None or length < 2 * PARTS:
        return over(x)
    *parts, rest = ops.split(x, [length // PARTS * i for i in range(1, PARTS + 1)], axis=axis)
    most = over(functools.reduce(combine, parts))
    return combine(most, over(rest)) if length % PARTS else most
