"""Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762).

Shapes: B batch, T target length, S source length, D width, N heads, H head size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import KerasTensor, ops

from kerasformer import backend
from kerasformer.gradients import custom_gradient
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.masks import HIDDEN, hidden_from
from kerasformer.layers.reductions import summed


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
        qkv = self.query_key_value(x)
        if x.shape[1] == 1:  # one token: the same without a transpose, which TensorFlow would make for nothing
            query, key, value = ops.unstack(ops.reshape(qkv, (batch, 3, self.num_heads, 1, head_size)), 3, axis=1)
        else:
            qkv = ops.transpose(ops.reshape(qkv, (batch, length, 3, self.num_heads, head_size)), (2, 0, 3, 1, 4))
            query, key, value = ops.unstack(qkv, 3, axis=0)  # each [B, N, T, H]
        if cache is not None:
            cache = Cache(write_columns(cache.keys, key, start), write_columns(cache.values, value, start))
            key, value = cache  # [B, N, S, H]

        keys, bias = ops.shape(key)[2], attention_bias
        if self.is_causal:
            # Chosen, not added: TensorFlow would regroup two sums, and no longer fuse one with the product.
            hidden = hidden_from(length, keys, start=start, window=self.window)
            bias = ops.where(hidden[None, None], HIDDEN, 0.0 if bias is None else bias)
        kept = self.dropout.factors((batch, self.num_heads, length, keys), query.dtype) if training else None
        attended = attend(query, key, value, bias, kept)
        output = self.output_projection(side_by_side(attended))
        return output if cache is None else (output, cache)


def attend(
    query: KerasTensor,
    key: KerasTensor,
    value: KerasTensor,
    bias: KerasTensor | None = None,
    kept: KerasTensor | None = None,
) -> KerasTensor:
    """What each query [B, N, T, H] reads of the values [B, N, S, H], by the softmax of its products with the keys.

    Args:
        bias: added to the scores; broadcasts to [B, N, T, S], and its axis of the heads is known.
        kept: dropout's factors of the weights, [B, N, T, S].
    """
    if bias is not None:
        # TensorFlow adds what is the same for all heads in the kernel of the product, which takes hundreds of times
        # longer if it has to broadcast another axis.
        heads = bias.shape[-3] if len(bias.shape) > 2 else 1
        shape = (ops.shape(query)[0], heads, ops.shape(query)[2], ops.shape(key)[2])
        bias = ops.broadcast_to(ops.cast(bias, query.dtype), shape)
    given = {name: part for name, part in (("bias", bias), ("kept", kept)) if part is not None}

    @custom_gradient
    def written(
        query: KerasTensor, key: KerasTensor, value: KerasTensor, *others: KerasTensor
    ) -> tuple[KerasTensor, Callable]:
        others = dict(zip(given, others, strict=True))
        scale, bias, kept = _scale(query), others.get("bias"), others.get("kept")
        scores = ops.matmul(query * scale, _turned(key))
        weights = attention_weights(scores if bias is None else scores + bias)
        dropped = weights if kept is None else weights * kept
        attended = ops.matmul(dropped, value)

        def gradient(upstream):
            pull = ops.matmul(upstream, _turned(value))  # the gradient of the dropped weights
            slope = _slope(weights, dropped, pull, attended, upstream)
            for_value = ops.matmul(_turned(dropped), upstream)
            for_bias = [] if bias is None else [_of_heads(slope, bias.shape[1]) / scale]
            for_kept = [] if kept is None else [weights * pull]
            return ops.matmul(slope, key), ops.matmul(_turned(slope), query), for_value, *for_bias, *for_kept

        return attended, gradient

    return written(query, key, value, *given.values())


def side_by_side(heads: KerasTensor) -> KerasTensor:
    """[B, N, T, H] -> [B, T, N * H]."""
    batch, count, length, size = ops.shape(heads)
    if backend.is_fused_on_cpu() and heads.shape[2] == 1 and count > 1:
        # XLA drops the transpose of one token, and the product that follows then computes an index for each element:
        # five times the time. Two halves keep it from that.
        halves = ops.split(heads, [count // 2], axis=1)
        flat = [ops.reshape(half, (batch, 1, half.shape[1] * size)) for half in halves]
        return ops.concatenate(flat, axis=-1)
    return ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (batch, length, count * size))


def _of_heads(x: KerasTensor, heads: int) -> KerasTensor:
    """[B, N, T, S] as it is or, for one head, the sum of all."""
    return ops.sum(x, axis=1, keepdims=True) if heads == 1 else x


@backend.fusible
def _slope(
    weights: KerasTensor, dropped: KerasTensor, pull: KerasTensor, attended: KerasTensor, upstream: KerasTensor
) -> KerasTensor:
    """The gradient of the products of queries and keys, from that of the dropped weights, `pull`.

    A row's mean pull is the product of what was read and its gradient (Dao et al. 2022, arXiv 2205.14135, appendix
    B.2): H numbers to add up rather than S.
    """
    dtype, scale = attended.dtype, _scale(attended)
    weights, dropped, pull, attended, upstream = (
        ops.cast(part, "float32") for part in (weights, dropped, pull, attended, upstream)
    )
    mean = summed(attended * upstream, -1, keepdims=True, parts=4)
    return backend.cast((dropped * pull - weights * mean) * scale, dtype)


def _scale(query: KerasTensor) -> float:
    return 1 / math.sqrt(query.shape[-1])


def _turned(x: KerasTensor) -> KerasTensor:
    return ops.swapaxes(x, -2, -1)


def attention_weights(scores: KerasTensor) -> KerasTensor:
    """Softmax over the last axis.

    Computed in float32 whatever the dtype: bfloat16 cannot add up many small weights.
    """
    if backend.is_softmax_exact(keras.backend.standardize_dtype(scores.dtype)):
        return _softmax_of(scores)
    return _softmax(scores)


@backend.fusible
def _softmax(scores: KerasTensor) -> KerasTensor:
    return backend.cast(_softmax_of(ops.cast(scores, "float32")), scores.dtype)


def _softmax_of(scores: KerasTensor) -> KerasTensor:
    return ops.softmax(scores) if scores.shape[-1] != 1 else ops.ones_like(scores)  # of one, Keras's warns


def write_columns(cache: KerasTensor, columns: KerasTensor, start: int | KerasTensor) -> KerasTensor:
    """The cache [B, N, S, H] with `columns` [B, N, T, H] at `start` and after."""
    batch, heads, room, size = ops.shape(cache)
    if isinstance(start, int) and start == 0:  # the prompt: nothing stands in the cache yet
        return ops.pad(columns, ((0, 0), (0, 0), (0, room - ops.shape(columns)[2]), (0, 0)))
    flat = ops.reshape(cache, (batch * heads, room * size))  # the fewer axes, the faster TensorFlow writes
    part = ops.reshape(columns, (batch * heads, -1))
    return ops.reshape(backend.slice_update(flat, (0, start * size), part), (batch, heads, room, size))
