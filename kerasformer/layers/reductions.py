"""Sums and maxima over one axis."""

import functools
from collections.abc import Callable

from keras import KerasTensor, ops

from kerasformer import backend

PARTS = 8  # of an axis; what combines more than 12, XLA writes to memory on its way
LONG = 4096  # rows of so many numbers or more are read in order, RUN of each part at a time
RUN = 64


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
    them it is hangs on what the process traced before. It is not for a LONG row, whose length layers know, nor for an x
    of one row alone, which a training step does not have.
    """
    over = functools.partial(reduce, axis=axis, keepdims=keepdims)
    length, axis = ops.shape(x)[axis], axis % len(x.shape)
    is_short = isinstance(length, int) and length < parts
    # A text's next token has one row: to call the functions that XLA makes of the parts takes longer than their sums.
    is_row = all(size == 1 for size in (*x.shape[:axis], *x.shape[axis + 1 :]))
    if not backend.is_fused_on_cpu() or is_short or is_row:
        return over(x)
    before = (slice(None),) * axis
    if axis == len(x.shape) - 1 and isinstance(length, int) and length >= LONG:
        size, outer = length // (parts * RUN) * RUN, ops.shape(x)[:-1]
        runs = ops.reshape(x[..., : parts * size], (*outer, size // RUN, parts, RUN))
        pieces = [ops.reshape(runs[..., i, :], (*outer, size)) for i in range(parts)]
    else:
        size = length // parts
        pieces = [x[(*before, slice(i * size, (i + 1) * size))] for i in range(parts)]
    most, rest = over(functools.reduce(combine, pieces)), x[(*before, slice(parts * size, None))]
    return most if isinstance(length, int) and length == parts * size else combine(most, over(rest))
