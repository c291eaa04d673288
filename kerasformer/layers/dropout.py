"""Dropout (Srivastava et al. 2014) that draws little randomness and makes one product an element."""

import keras
from keras import KerasTensor, ops

# A random word is drawn for four elements: drawing is most of what dropout costs on a CPU.
WORD, LEVELS = 2**31 - 1, 2**8


class Dropout(keras.layers.Layer):
    """Zeroes a share `rate` of the elements in training, to 1 in 256, and scales the rest up to keep the mean.

    Keras's own layer draws a word an element and selects instead of multiplying, which takes three times as long.
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"expected a dropout rate in [0, 1), got {rate}")
        # A rate above 0 drops something, and one below 1 not everything.
        self.dropped = min(max(round(rate * LEVELS), 1), LEVELS - 1) if rate else 0
        self.seed_generator = keras.random.SeedGenerator() if self.dropped else None
        self.built = True

    def call(self, x: KerasTensor, training: bool = False) -> KerasTensor:
        """Any shape -> the same shape."""
        factors = self.factors(ops.shape(x), x.dtype) if training else None
        return x if factors is None else x * factors

    def factors(self, shape: tuple, dtype: str) -> KerasTensor | None:
        """What each element is multiplied with in training: 0, or above 1 where it is kept; none where all are."""
        if not self.dropped:
            return None
        *outer, last = shape
        words = (last + 3) // 4
        # In graphs, Keras views only a last axis of a known size.
        drawn = keras.random.randint((*outer, words, 1), -WORD, WORD, seed=self.seed_generator)
        draws = ops.reshape(ops.view(drawn, "uint8"), (*outer, 4 * words))[..., :last]  # up to three are left over
        scale = LEVELS / (LEVELS - self.dropped)
        return ops.cast(draws >= self.dropped, dtype) * ops.cast(scale, dtype)
