"""Sums and maxima over one axis."""

import functools
from collections.abc import Callable

from keras import KerasTensor, ops

from kerasformer import backend

PARTS = 8  # of an axis; what combines more than 12, XLA writes to memory on its way


def summed(x: KerasTensor, axis: int, keepdims: bool = False, parts: int = PARTS) -> KerasTensor:
    """The sum over `axis`.

    Args:
        parts: fewer for a short last axis, as vectors hold 8 or 16 of its numbers.
    """
    return _reduced(ops.sum, ops.add, x, axis, keepdims, parts)


def largest(x: KerasTensor, axis: int, keepdims: bool = False) -> KerasTensor:
    """The maximum over `axis`."""
    return _reduced(ops.max, ops.maximum, x, axis, keepdims, PARTS)


def _reduced(reduce: Callable, combine: Callable, x: KerasTensor, axis: int, keepdims: bool, parts: int) -> KerasTensor:
    """`x` reduced over `axis`. On CPUs, XLA does so number by number, and combines parts of an axis in vectors.

    The order of the sum is the same where the length is known when the function is traced and where it is not: which of
    them it is hangs on what the process traced before.
    """
    over = functools.partial(reduce, axis=axis, keepdims=keepdims)
    length = ops.shape(x)[axis]
    if not backend.is_fused_on_cpu() or (isinstance(length, int) and length < parts):
        return over(x)
    size, before = length // parts, (slice(None),) * (axis % len(x.shape))
    pieces = [x[(*before, slice(i * size, (i + 1) * size))] for i in range(parts)]
    most, rest = over(functools.reduce(combine, pieces)), x[(*before, slice(parts * size, None))]
    return most if isinstance(length, int) and length % parts == 0 else combine(most, over(rest))
