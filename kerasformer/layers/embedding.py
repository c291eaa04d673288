"""Embeddings of tokens, their positions and, in BERT, the segment that they belong to."""

import keras
from keras import KerasTensor, ops

from kerasformer.layers.rows import Rows


class Embedding(keras.layers.Layer):
    """A learned vector for each of `size` things, [size, dim]."""

    def __init__(self, size: int, dim: int, *, initializer: str | keras.Initializer = "uniform", **kwargs):
        super().__init__(**kwargs)
        self.shape, self.initializer = (size, dim), keras.initializers.get(initializer)

    def build(self, input_shape):
        self.rows = Rows(self, "embeddings", self.shape, self.initializer)
        self.built = True

    @property
    def embeddings(self) -> keras.Variable:
        """[size, dim]."""
        return self.rows.weight

    def call(self, ids: KerasTensor) -> KerasTensor:
        """Integer ids [...] -> [..., dim]."""
        return self.rows.take(ids, self.compute_dtype)

    def products(self, x: KerasTensor) -> KerasTensor:
        """[..., dim] -> [..., size]: the product with the vector of each thing."""
        return self.rows.product(x)


class TokenAndPositionEmbedding(keras.layers.Layer):
    """Sum of a token's, its position's and (with `num_segments`) its segment's learned vectors.

    Args:
        vocab_size: rows of the token table.
        max_length: rows of the position table: the longest sequence.
        dim: width D of each vector.
        num_segments: rows of the segment table; 0 for none.
    """

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        dim: int,
        *,
        num_segments: int = 0,
        initializer: str | keras.Initializer = "uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)

        def table(rows, name):
            return Embedding(rows, dim, initializer=initializer, dtype=self.dtype_policy, name=name)

        self.token = table(vocab_size, "token")
        self.position = table(max_length, "position")
        self.segment = table(num_segments, "segment") if num_segments else None

    def build(self, input_shape):
        self.token.build(input_shape)
        self.position.build(input_shape)
        if self.segment:
            self.segment.build(input_shape)
        self.built = True

    def call(
        self, token_ids: KerasTensor, segment_ids: KerasTensor | None = None, positions: KerasTensor | None = None
    ) -> KerasTensor:
        """Integer ids [B, T] -> [B, T, D]; `positions` defaults to 0 .. T - 1."""
        if positions is None:
            positions = ops.arange(ops.shape(token_ids)[1])
        x = self.token(token_ids) + self.position(positions)
        return x if segment_ids is None else x + self.segment(segment_ids)
