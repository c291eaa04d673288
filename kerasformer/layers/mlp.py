"""Position-wise feed-forward network (Vaswani et al. 2017, arXiv 1706.03762, section 3.3)."""

from collections.abc import Callable

import keras
from keras import KerasTensor

from kerasformer.layers.activations import gelu
from kerasformer.layers.dense import Dense


class MLP(keras.layers.Layer):
    """Two dense layers, D -> mlp_dim -> D, with `activation` between them.

    Args:
        output_initializer: of the second layer; `initializer` by default.
    """

    def __init__(
        self,
        mlp_dim: int,
        *,
        activation: Callable = gelu,
        initializer: str | keras.Initializer = "glorot_uniform",
        output_initializer: str | keras.Initializer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mlp_dim, self.activation = mlp_dim, activation
        self.initializer, self.output_initializer = initializer, output_initializer or initializer

    def build(self, input_shape):
        def dense(units, name, initializer, activation=None):
            return Dense(units, activation, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)

        self.up = dense(self.mlp_dim, "up", self.initializer, self.activation)
        self.down = dense(input_shape[-1], "down", self.output_initializer)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.mlp_dim))
        self.built = True

    def call(self, x: KerasTensor) -> KerasTensor:
        """[B, T, D] -> [B, T, D]."""
        return self.down(self.up(x))
