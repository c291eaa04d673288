"""Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762).

Shapes: B batch, T target length, S source length, D width, N heads, H head size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import KerasTensor, ops

from kerasformer import backend
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.masks import causal_penalty
from kerasformer.layers.reductions import summed
from kerasformer.layers.rows import project


class Cache(NamedTuple):
    """Room for the keys and values of S tokens, each [B, N, S, H], filled from the front."""

    keys: KerasTensor
    values: KerasTensor


class SelfAttention(keras.layers.Layer):
    """Self-attention whose queries, keys and values come from one product.

    Args:
        num_heads: N; must divide the width D.
        is_causal: each position sees itself and those before it.
        window: if causal, how many positions it sees, itself included; 0 for all of them.
        dropout: share of attention weights dropped in training.
        output_initializer: of the projection back into the residual stream; `initializer` by default.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        is_causal: bool = False,
        window: int = 0,
        dropout: float = 0.0,
        initializer: str | keras.Initializer = "glorot_uniform",
        output_initializer: str | keras.Initializer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads, self.is_causal, self.window = num_heads, is_causal, window
        self.initializer, self.output_initializer = initializer, output_initializer or initializer
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        dim = input_shape[-1]
        if dim % self.num_heads:
            raise ValueError(f"expected a width that num_heads divides, got dim={dim} and num_heads={self.num_heads}")

        def dense(units, name, initializer):
            return Dense(units, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)

        self.query_key_value = dense(3 * dim, "query_key_value", self.initializer)
        self.output_projection = dense(dim, "output", self.output_initializer)
        self.query_key_value.build(input_shape)
        self.output_projection.build(input_shape)
        self.built = True

    def call(
        self,
        x: KerasTensor,
        attention_bias: KerasTensor | None = None,
        cache: Cache | None = None,
        start: int | KerasTensor = 0,
        training: bool = False,
    ) -> KerasTensor | tuple[KerasTensor, Cache]:
        """Attends within `x` [B, T, D] -> [B, T, D], and to what stands before it in the cache.

        Args:
            attention_bias: added to the scores; broadcasts to [B, N, T, S].
            cache: when given, `x` is written into its columns `start` to `start` + T, and it is returned as well.
            start: how many tokens the cache holds, the same for each row.
        """
        batch, length, dim = ops.shape(x)
        head_size = dim // self.num_heads
        qkv = ops.reshape(self.query_key_value(x), (batch, length, 3, self.num_heads, head_size))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3, axis=0)  # each [B, N, T, H]
        if cache is not None:
            cache = Cache(write_columns(cache.keys, key, start), write_columns(cache.values, value, start))
            key, value = cache  # [B, N, S, H]

        scores = project(query * (1 / math.sqrt(head_size)), key)  # [B, N, T, S]
        penalty = None if attention_bias is None else -ops.cast(attention_bias, scores.dtype)
        if self.is_causal:
            keys = ops.shape(key)[2]
            hidden = causal_penalty(length, keys, scores.dtype, start=start, window=self.window)
            penalty = hidden if penalty is None else penalty + hidden
        weights = attention_weights(scores) if penalty is None else attention_weights(scores, penalty)
        weights = self.dropout(weights, training=training)
        attended = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # [B, T, N, H]
        output = self.output_projection(ops.reshape(attended, (batch, length, dim)))
        return output if cache is None else (output, cache)


@ops.custom_gradient
def attention_weights(scores: KerasTensor, *penalty: KerasTensor) -> tuple[KerasTensor, Callable]:
    """Softmax over the last axis of `scores` less a penalty that broadcasts to them.

    Computed in float32 whatever the dtype: bfloat16 cannot add up many small weights. The backward pass reads the
    weights alone.
    """
    if backend.is_softmax_exact(keras.backend.standardize_dtype(scores.dtype)):
        weights = _softmax_of(_less(scores, *penalty))
    else:
        weights = _softmax(scores, *penalty)

    def gradient(*args, upstream=None):
        slope = _softmax_gradient(weights, args[0] if upstream is None else upstream)
        return slope, *(-summed_to(slope, ops.shape(part)) for part in penalty)

    return weights, gradient


@backend.fusible
def _softmax(scores: KerasTensor, *penalty: KerasTensor) -> KerasTensor:
    return backend.cast(_softmax_of(ops.cast(_less(scores, *penalty), "float32")), scores.dtype)


def _softmax_of(scores: KerasTensor) -> KerasTensor:
    return ops.softmax(scores) if scores.shape[-1] != 1 else ops.ones_like(scores)  # of one, Keras's warns


def _less(scores: KerasTensor, *penalty: KerasTensor) -> KerasTensor:
    # Subtracted: TensorFlow fuses a product and a sum of these shapes into a kernel hundreds of times slower.
    return scores - penalty[0] if penalty else scores


@backend.fusible
def _softmax_gradient(weights: KerasTensor, upstream: KerasTensor) -> KerasTensor:
    wide = ops.cast(weights, "float32")
    product = wide * ops.cast(upstream, "float32")
    return backend.cast(product - wide * summed(product, -1, keepdims=True), upstream.dtype)


def summed_to(x: KerasTensor, shape: tuple) -> KerasTensor:
    """The gradient of what was broadcast from `shape`, of which `x` is that of the result."""
    whole = (1,) * (len(x.shape) - len(shape)) + tuple(shape)
    axes = [axis for axis, size in enumerate(whole) if isinstance(size, int) and size == 1]
    return ops.reshape(ops.sum(x, axis=axes, keepdims=True) if axes else x, shape)


def write_columns(cache: KerasTensor, columns: KerasTensor, start: int | KerasTensor) -> KerasTensor:
    """The cache [B, N, S, H] with `columns` [B, N, T, H] at `start` and after."""
    batch, heads, room, size = ops.shape(cache)
    if isinstance(start, int) and start == 0:  # the prompt: nothing stands in the cache yet
        return ops.pad(columns, ((0, 0), (0, 0), (0, room - ops.shape(columns)[2]), (0, 0)))
    flat = ops.reshape(cache, (batch * heads, room * size))  # the fewer axes, the faster TensorFlow writes
    part = ops.reshape(columns, (batch * heads, -1))
    return ops.reshape(backend.slice_update(flat, (0, start * size), part), (batch, heads, room, size))
