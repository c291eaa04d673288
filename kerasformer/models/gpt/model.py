"""GPT: a causal Transformer decoder (Radford et al. 2018 and 2019; Brown et al. 2020, arXiv 2005.14165).

Shapes: B batch, T length, S columns of the cache, N heads, H head size, D width, V vocabulary.
"""

import keras
from keras import KerasTensor, ops

from kerasformer.layers.activations import ACTIVATIONS
from kerasformer.layers.attention import Cache
from kerasformer.layers.block import Block
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.embedding import TokenAndPositionEmbedding
from kerasformer.layers.masks import padding_bias
from kerasformer.layers.norm import LayerNorm
from kerasformer.models.base import Model
from kerasformer.models.gpt.config import PRESETS, GPTConfig
from kerasformer.models.gpt.weights import TABLE
from kerasformer.text.bpe import BPE


@keras.saving.register_keras_serializable("kerasformer")
class GPT(Model):
    """Decoder: ids [B, T] -> hidden states [B, T, D], and that of the last real token, `pooled` [B, D].

    Padding stands on the right, where no real token sees it; without `padding_mask` all tokens are real.
    """

    config_class = GPTConfig
    input_names = ("token_ids", "padding_mask")
    optional_inputs = ("padding_mask",)
    table = TABLE
    tokenizer_class = BPE
    presets = PRESETS
    architectures = {
        "Model": "GPT2Model",
        "Classifier": "GPT2ForSequenceClassification",
        "CausalLM": "GPT2LMHeadModel",
    }

    def __init__(self, config: GPTConfig, **kwargs):
        super().__init__(config, **kwargs)
        policy = self.dtype_policy
        initializer = keras.initializers.RandomNormal(stddev=config.initializer_range)
        # Two sublayers a block add to the residual stream; at the start their sum is to be no wider than one alone.
        narrow = keras.initializers.RandomNormal(stddev=config.initializer_range / (2 * config.num_layers) ** 0.5)
        self.embedding = TokenAndPositionEmbedding(
            config.vocab_size, config.max_length, config.dim, initializer=initializer, dtype=policy, name="embedding"
        )
        rate = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        self.embedding_dropout = Dropout(rate, dtype=policy, name="embedding_dropout")
        self.blocks = [
            Block(
                config.num_heads,
                config.mlp_dim,
                prenorm=config.prenorm,
                is_causal=True,
                window=config.window if i % 2 else 0,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=ACTIVATIONS[config.activation],
                epsilon=config.norm_epsilon,
                initializer=initializer,
                output_initializer=narrow,
                dtype=policy,
                name=f"block_{i}",
            )
            for i in range(config.num_layers)
        ]
        self.final_norm = (
            LayerNorm(epsilon=config.norm_epsilon, dtype=policy, name="final_norm") if config.prenorm else None
        )
        self.own_output = self.make_own_output(initializer)
        self.build()

    def call(self, inputs: dict[str, KerasTensor], training: bool = False) -> dict[str, KerasTensor]:
        token_ids, padding_mask = inputs["token_ids"], inputs.get("padding_mask")
        x = self.embedding_dropout(self.embedding(token_ids), training=training)
        for block in self.blocks:
            x = block(x, training=training)
        x = self.final_norm(x) if self.final_norm else x
        if padding_mask is None:
            return {"hidden_states": x, "pooled": x[:, -1]}
        last = ops.maximum(ops.sum(ops.cast(padding_mask, "int32"), axis=1) - 1, 0)  # [B]
        return {"hidden_states": x, "pooled": ops.squeeze(ops.take_along_axis(x, last[:, None, None], axis=1), 1)}

    def extend(
        self,
        token_ids: KerasTensor,
        caches: list[Cache],
        start: int | KerasTensor,
        *,
        positions: KerasTensor,
        visible: KerasTensor,
    ) -> tuple[KerasTensor, list[Cache]]:
        """Reads T more tokens of each row, [B, T] -> hidden states [B, T, D], and the caches with them.

        Rows may begin anywhere in the cache (padding then stands on the left): `positions` and `visible` say where.

        Args:
            caches: one for each block, with `start` columns filled.
            positions: [B, T], of the tokens in their own row.
            visible: [B, S], 1 at the columns that hold real tokens, or will.
        """
        x = self.embedding(token_ids, positions=positions)
        attention_bias = padding_bias(visible, self.compute_dtype)
        extended = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, attention_bias=attention_bias, cache=cache, start=start)
            extended.append(cache)
        return self.final_norm(x) if self.final_norm else x, extended

    def empty_caches(self, batch: int, length: int) -> list[Cache]:
        """Caches for `length` tokens in each of `batch` rows."""
        heads = self.config.num_heads
        room = ops.zeros((batch, heads, length, self.config.dim // heads), self.compute_dtype)
        return [Cache(room, room) for _ in self.blocks]
