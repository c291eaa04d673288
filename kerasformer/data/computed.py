"""A tf.data pipeline's beginning, where Python computes the elements."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf


def computed(
    count: int, element: Callable[[int], tuple[np.ndarray, ...]], signature: Sequence[tf.TensorSpec]
) -> tf.data.Dataset:
    """The elements 0 to `count` - 1, one after another.

    `tf.data.Dataset.from_generator` would slow the process down: for Python 3.11 and above it makes malloc give each
    block of 128 KB or more back to the system, so that every step is handed new pages, thousands of them.

    Args:
        signature: of the arrays that `element` returns.
    """

    def read(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
        tensors = tf.numpy_function(lambda i: element(int(i)), [i], [spec.dtype for spec in signature])
        return tuple(tf.ensure_shape(tensor, spec.shape) for tensor, spec in zip(tensors, signature, strict=True))

    return tf.data.Dataset.range(count).map(read)
