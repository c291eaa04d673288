"""Attention masks as additive biases: 0 where a key may be seen, a large negative number where not.

Shapes: B batch, T target length, S source length.
"""

from keras import KerasTensor, ops

# Finite, so that a row whose keys are all hidden softmaxes to uniform and not to NaN; representable in bfloat16.
HIDDEN = -1e9


def padding_bias(padding_mask: KerasTensor, dtype: str) -> KerasTensor:
    """Bias [B, 1, 1, S] that hides padding, from an integer mask [B, S] with 1 at real tokens."""
    hidden = 1 - ops.cast(padding_mask, dtype)
    return hidden[:, None, None, :] * HIDDEN


def causal_bias(length: int, dtype: str, offset: int = 0) -> KerasTensor:
    """Bias [1, 1, T, offset + T] that hides the future; `offset` keys of a cache stand before the first query."""
    queries = ops.arange(length)[:, None] + offset
    keys = ops.arange(length + offset)[None, :]
    return ops.cast(ops.greater(keys, queries), dtype)[None, None] * HIDDEN
