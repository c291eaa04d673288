"""The Transformer block: self-attention, then an MLP, each inside a residual connection."""

from collections.abc import Callable
from functools import partial

import keras
from keras import KerasTensor

from kerasformer.gradients import recomputed
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
        window: how many positions each sees, if causal; 0 for all.
        output_initializer: of what each sublayer adds to the residual stream; `initializer` by default.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        *,
        prenorm: bool,
        is_causal: bool = False,
        window: int = 0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: Callable = gelu,
        epsilon: float = 1e-12,
        initializer: str | keras.Initializer = "glorot_uniform",
        output_initializer: str | keras.Initializer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.remat = False  # a training that is short of memory sets it: the backward pass then keeps the input alone
        policy = self.dtype_policy
        weights = {"initializer": initializer, "output_initializer": output_initializer, "dtype": policy}
        residual = {"prenorm": prenorm, "dropout": dropout, "epsilon": epsilon, "dtype": policy}
        self.attention = SelfAttention(
            num_heads,
            is_causal=is_causal,
            window=window,
            dropout=attention_dropout,
            **weights,
            name="attention",
        )
        self.attention_residual = Residual(**residual, name="attention_residual")
        self.mlp = MLP(mlp_dim, activation=activation, **weights, name="mlp")
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
        start: int | KerasTensor = 0,
        training: bool = False,
    ) -> KerasTensor | tuple[KerasTensor, Cache]:
        """[B, T, D] -> [B, T, D]; with `cache` (see SelfAttention) also the cache that the next call needs."""
        if self.remat and training:
            act = partial(self._act, attention_bias=attention_bias, training=True)
            layers = (self.attention, self.attention_residual, self.mlp_residual)
            generators = [layer.dropout.seed_generator for layer in layers if layer.dropout.seed_generator]
            return recomputed(act, x, self.variables, generators)
        return self._act(x, attention_bias, cache, start, training)

    def _act(
        self,
        x: KerasTensor,
        attention_bias: KerasTensor | None = None,
        cache: Cache | None = None,
        start: int | KerasTensor = 0,
        training: bool = False,
    ) -> KerasTensor | tuple[KerasTensor, Cache]:
        x, entered = self.attention_residual.enter(x)
        attended = self.attention(entered, attention_bias=attention_bias, cache=cache, start=start, training=training)
        if cache is not None:
            attended, cache = attended
        x = self.attention_residual(x, attended, training=training)
        x, entered = self.mlp_residual.enter(x)
        x = self.mlp_residual(x, self.mlp(entered), training=training)
        return x if cache is None else (x, cache)
