"""Residual connections with layer normalisation before or after: the one place that decides."""

import keras
from keras import KerasTensor

from kerasformer.layers.dropout import Dropout
from kerasformer.layers.norm import LayerNorm


class Residual(keras.layers.Layer):
    """Surrounds a sublayer f: `norm(x + f(x))`, or with `prenorm` `x + f(norm(x))`.

    Post-norm is Vaswani et al. 2017 (arXiv 1706.03762), pre-norm Xiong et al. 2020 (arXiv 2002.04745). Use as
    `x, entered = residual.enter(x)` and `residual(x, f(entered))`.

    Args:
        prenorm: normalise what the sublayer reads, not what the residual stream becomes.
        dropout: share of the sublayer's output dropped in training.
        epsilon: added to the variance by the layer normalisation.
    """

    def __init__(self, *, prenorm: bool, dropout: float = 0.0, epsilon: float = 1e-12, **kwargs):
        super().__init__(**kwargs)
        self.prenorm = prenorm
        self.norm = LayerNorm(epsilon=epsilon, dtype=self.dtype_policy, name="norm")
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.built = True

    def enter(self, x: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """The stream, and what the sublayer is to read."""
        return self.norm(x, fork=True) if self.prenorm else (x, x)

    def call(self, x: KerasTensor, update: KerasTensor, training: bool = False) -> KerasTensor:
        """Joins the stream `x` and the sublayer's output `update`, both [B, T, D]."""
        x = x + self.dropout(update, training=training)
        return x if self.prenorm else self.norm(x)
