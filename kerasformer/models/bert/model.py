"""BERT: a bidirectional Transformer encoder (Devlin et al. 2018, arXiv 1810.04805)."""

import keras
from keras import KerasTensor

from kerasformer.layers.activations import ACTIVATIONS
from kerasformer.layers.block import Block
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.embedding import TokenAndPositionEmbedding
from kerasformer.layers.masks import padding_bias
from kerasformer.layers.norm import LayerNorm
from kerasformer.models.base import Model
from kerasformer.models.bert.config import PRESETS, BertConfig
from kerasformer.models.bert.weights import TABLE
from kerasformer.text.wordpiece import WordPiece


@keras.saving.register_keras_serializable("kerasformer")
class Bert(Model):
    """Encoder: ids [B, T] -> hidden states [B, T, D], and (with a pooler) the pooled first token [B, D]."""

    config_class = BertConfig
    input_names = ("token_ids", "segment_ids", "padding_mask")
    table = TABLE
    tokenizer_class = WordPiece
    presets = PRESETS
    architectures = {
        "Model": "BertModel",
        "Classifier": "BertForSequenceClassification",
        "MaskedLM": "BertForMaskedLM",
    }

    def __init__(self, config: BertConfig, **kwargs):
        super().__init__(config, **kwargs)
        policy = self.dtype_policy
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        self.embedding = TokenAndPositionEmbedding(
            config.vocab_size,
            config.max_length,
            config.dim,
            num_segments=config.num_segments,
            initializer=initializer,
            dtype=policy,
            name="embedding",
        )
        self.embedding_norm = LayerNorm(epsilon=config.norm_epsilon, dtype=policy, name="embedding_norm")
        self.embedding_dropout = Dropout(config.dropout, dtype=policy, name="embedding_dropout")
        self.blocks = [
            Block(
                config.num_heads,
                config.mlp_dim,
                prenorm=False,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=ACTIVATIONS[config.activation],
                epsilon=config.norm_epsilon,
                initializer=initializer,
                dtype=policy,
                name=f"block_{i}",
            )
            for i in range(config.num_layers)
        ]
        self.pooler = (
            Dense(config.dim, "tanh", kernel_initializer=initializer, dtype=policy, name="pooler")
            if config.pooler
            else None
        )
        self.own_output = self.make_own_output(initializer)
        self.build()

    def call(self, inputs: dict[str, KerasTensor], training: bool = False) -> dict[str, KerasTensor]:
        x = self.embedding(inputs["token_ids"], segment_ids=inputs["segment_ids"])
        x = self.embedding_dropout(self.embedding_norm(x), training=training)
        attention_bias = padding_bias(inputs["padding_mask"], self.compute_dtype)
        for block in self.blocks:
            x = block(x, attention_bias=attention_bias, training=training)
        return {"hidden_states": x} | ({"pooled": self.pooler(x[:, 0])} if self.pooler else {})
