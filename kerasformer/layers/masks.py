"""Attention masks as additive biases: 0 where a key may be seen, a large negative number where not.

Shapes: B batch, T target length, S source length.
"""

from keras import KerasTensor, ops

# Far below any score, so that what is hidden weighs exactly nothing; finite in float16, as an infinite one would make
# NaN of a row whose keys are all hidden.
HIDDEN = -3e4


def padding_bias(padding_mask: KerasTensor, dtype: str) -> KerasTensor:
    """Bias [B, 1, 1, S] that hides padding, from an integer mask [B, S] with 1 at real tokens."""
    hidden = 1 - ops.cast(padding_mask, dtype)
    return hidden[:, None, None, :] * HIDDEN


def hidden_from(length: int, keys: int, *, start: int | KerasTensor = 0, window: int = 0) -> KerasTensor:
    """Which keys queries that stand at `start`, `start` + 1, ... may not see, for they are the future: bool [T, S].

    Args:
        length: T.
        keys: S, counted from position 0.
        window: a query sees itself and the `window` - 1 keys before it; 0 for all before it.
    """
    distance = (ops.arange(length) + start)[:, None] - ops.arange(keys)[None, :]
    hidden = ops.less(distance, 0)
    return ops.logical_or(hidden, ops.greater_equal(distance, window)) if window else hidden
