"""The Transformer block: self-attention, then an MLP, each inside a residual connection."""

from collections.abc import Callable

import keras
from keras import KerasTensor

from kerasformer.layers.activations import gelu
from kerasformer.layers.attention import Cache, SelfAttention
from kerasformer.layers.mlp import MLP
from kerasformer.layers.residual import Residual


class Block(keras.layers.Layer):
    """One layer of an encoder, or with `is_causal` of a decoder without cross-attention.

    Args:
        num_heads: attention heads; must divide the width.
        mlp_dim: width inside the MLP.
        prenorm: normalise before each sublayer (GPT-2) and not after (BERT).
        dropout: share of each sublayer's output dropped in training.
        attention_dropout: share of attention weights dropped in training.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        *,
        prenorm: bool,
        is_causal: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: Callable = gelu,
        epsilon: float = 1e-12,
        initializer: str | keras.Initializer = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        residual = {"prenorm": prenorm, "dropout": dropout, "epsilon": epsilon, "dtype": policy}
        self.attention = SelfAttention(
            num_heads,
            is_causal=is_causal,
            dropout=attention_dropout,
            initializer=initializer,
            dtype=policy,
            name="attention",
        )
        self.attention_residual = Residual(**residual, name="attention_residual")
        self.mlp = MLP(mlp_dim, activation=activation, initializer=initializer, dtype=policy, name="mlp")
        self.mlp_residual = Residual(**residual, name="mlp_residual")

    def build(self, input_shape):
        for layer in (self.attention, self.attention_residual, self.mlp, self.mlp_residual):
            layer.build(input_shape)
        self.built = True

    def call(
        self,
        x: KerasTensor,
        attention_bias: KerasTensor | None = None,
        cache: Cache | None = None,
        training: bool = False,
    ) -> KerasTensor | tuple[KerasTensor, Cache]:
        """[B, T, D] -> [B, T, D]; with `cache` (see SelfAttention) also the cache that the next call needs."""
        attended = self.attention(
            self.attention_residual.enter(x), attention_bias=attention_bias, cache=cache, training=training
        )
        if cache is not None:
            attended, cache = attended
        x = self.attention_residual(x, attended, training=training)
        x = self.mlp_residual(x, self.mlp(self.mlp_residual.enter(x)), training=training)
        return x if cache is None else (x, cache)
