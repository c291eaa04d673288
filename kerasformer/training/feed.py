"""What a training takes from its input pipeline, counted where each batch is handed over."""

import tensorflow as tf


class Feed:
    """Counts in the pipeline itself, at its end: no Python runs for a batch, and no step is made longer."""

    def __init__(self):
        self._counts: tf.Variable | None = None

    def counted(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; nothing may be prefetched behind it, or the prefetching is what is timed."""
        with tf.device("CPU:0"):
            self._counts = tf.Variable(tf.zeros(2, tf.float64), trainable=False)
        # The parts of a zip are asked in their order: first what time it is, then for the batch, which may take long.
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip(clock, dataset).map(self._count).with_options(options)

    def read(self) -> tuple[float, float] | None:
        """Seconds waited for batches, and real tokens in them, since the beginning; None where nobody counts."""
        return None if self._counts is None else tuple(self._counts.numpy().tolist())

    def _count(self, asked: tf.Tensor, batch: tuple) -> tuple:
        waited, inputs = tf.timestamp() - asked, batch[0]
        real = inputs.get("padding_mask", tf.ones_like(inputs["token_ids"]))
        self._counts.assign_add([waited, tf.cast(tf.reduce_sum(real), tf.float64)])
        return batch
