"""What BERT makes of a hidden state before it is compared with the tokens' embeddings."""

from collections.abc import Callable

import keras
from keras import KerasTensor

from kerasformer.layers.dense import Dense
from kerasformer.layers.norm import LayerNorm


class TokenTransform(keras.layers.Layer):
    """Dense layer, activation and normalisation; and `bias` [V], which the products with the embeddings get.

    Args:
        vocab_size: V.
        activation: of the dense layer.
        epsilon: of the normalisation.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        activation: str | Callable,
        epsilon: float,
        initializer: str | keras.Initializer = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.activation, self.initializer = vocab_size, activation, initializer
        self.norm = LayerNorm(epsilon=epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        dim, policy = input_shape[-1], self.dtype_policy
        self.transform = Dense(
            dim, self.activation, kernel_initializer=self.initializer, dtype=policy, name="transform"
        )
        self.transform.build(input_shape)
        self.norm.build(input_shape)
        # Float32 whatever the policy: it is added to float32 logits.
        self.bias = self.add_weight(
            (self.vocab_size,), initializer="zeros", dtype="float32", autocast=False, name="bias"
        )
        self.built = True

    def call(self, x: KerasTensor) -> KerasTensor:
        """[..., D] -> [..., D]."""
        return self.norm(self.transform(x))
