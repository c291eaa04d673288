"""Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762).

Shapes: B batch, T target length, S source length, D width, N heads, H head size.
"""

import math

import keras
from keras import KerasTensor, ops

from kerasformer.layers.dropout import Dropout
from kerasformer.layers.masks import causal_bias

# Keys and values, each [B, N, S, H].
Cache = tuple[KerasTensor, KerasTensor]


class SelfAttention(keras.layers.Layer):
    """Self-attention whose queries, keys and values come from one product.

    Args:
        num_heads: N; must divide the width D.
        is_causal: each position sees itself and those before it.
        dropout: share of attention weights dropped in training.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        is_causal: bool = False,
        dropout: float = 0.0,
        initializer: str | keras.Initializer = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads, self.is_causal = num_heads, is_causal
        self.initializer = initializer
        self.dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape):
        dim = input_shape[-1]
        if dim % self.num_heads:
            raise ValueError(f"expected a width that num_heads divides, got dim={dim} and num_heads={self.num_heads}")

        def dense(units, name):
            return keras.layers.Dense(units, kernel_initializer=self.initializer, dtype=self.dtype_policy, name=name)

        self.query_key_value = dense(3 * dim, "query_key_value")
        self.output_projection = dense(dim, "output")
        self.query_key_value.build(input_shape)
        self.output_projection.build(input_shape)
        self.built = True

    def call(
        self,
        x: KerasTensor,
        attention_bias: KerasTensor | None = None,
        cache: Cache | None = None,
        training: bool = False,
    ) -> KerasTensor | tuple[KerasTensor, Cache]:
        """Attends within `x` [B, T, D] -> [B, T, D].

        Args:
            attention_bias: added to the scores; broadcasts to [B, N, T, S].
            cache: keys and values [B, N, P, H] of the P tokens before `x`. When given, the pair with the new ones
                appended is returned as well.
        """
        batch, length, dim = ops.shape(x)
        head_size = dim // self.num_heads
        qkv = ops.reshape(self.query_key_value(x), (batch, length, 3, self.num_heads, head_size))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3, axis=0)  # each [B, N, T, H]
        if cache is not None:
            key = ops.concatenate([cache[0], key], axis=2)  # [B, N, S, H]
            value = ops.concatenate([cache[1], value], axis=2)

        scores = ops.matmul(query * (1 / math.sqrt(head_size)), ops.swapaxes(key, 2, 3))  # [B, N, T, S]
        if attention_bias is not None:
            scores = scores + ops.cast(attention_bias, scores.dtype)
        if self.is_causal:
            scores = scores + causal_bias(length, scores.dtype, ops.shape(key)[2] - length)
        # In float32 whatever the policy: bfloat16 cannot add up many small weights.
        weights = ops.cast(ops.softmax(ops.cast(scores, "float32")), value.dtype)
        weights = self.dropout(weights, training=training)
        attended = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # [B, T, N, H]
        output = self.output_projection(ops.reshape(attended, (batch, length, dim)))
        return output if cache is None else (output, (key, value))
