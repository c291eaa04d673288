"""Dropout (Srivastava et al. 2014) that draws little randomness and makes one product an element."""

import keras
from keras import KerasTensor, ops

# A random word is drawn for two elements: drawing is most of what dropout costs on a CPU.
WORD, LEVELS = 2**31 - 1, 2**16


class Dropout(keras.layers.Layer):
    """Zeroes a share `rate` of the elements in training, to 1 in 65,536, and scales the rest up to keep the mean.

    Keras's own layer draws a word an element and selects instead of multiplying, which takes twice as long.
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"expected a dropout rate in [0, 1), got {rate}")
        self.dropped = round(rate * LEVELS)
        self.seed_generator = keras.random.SeedGenerator() if self.dropped else None

    def call(self, x: KerasTensor, training: bool = False) -> KerasTensor:
        """Any shape -> the same shape."""
        if not (training and self.dropped):
            return x
        *outer, last = ops.shape(x)
        half = (last + 1) // 2
        # In graphs, Keras views only a last axis of a known size.
        words = keras.random.randint((*outer, half, 1), -WORD, WORD, seed=self.seed_generator)
        draws = ops.reshape(ops.view(words, "uint16"), (*outer, 2 * half))[..., :last]  # of an odd axis, one is left
        scale = LEVELS / (LEVELS - self.dropped)
        return x * (ops.cast(draws >= self.dropped, x.dtype) * ops.cast(scale, x.dtype))
