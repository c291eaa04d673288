"""The two ends of a tf.data pipeline: elements that Python computes, and batches that are handed to a training."""

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

    return tf.data.Dataset.range(count).map(tf.autograph.experimental.do_not_convert(read))


def handed_out(dataset: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    """The dataset, which is known to hold so many steps, none if below 0, and is not tuned while it runs.

    An iterator that is dropped before its end would otherwise wait for tf.data's autotuner, for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.apply(tf.data.experimental.assert_cardinality(max(steps, 0))).with_options(options)
