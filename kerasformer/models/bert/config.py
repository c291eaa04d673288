"""The sizes of a BERT, and the published ones (Devlin et al. 2018, arXiv 1810.04805)."""

from dataclasses import dataclass
from typing import ClassVar

from kerasformer.models.config import Config, Preset


@dataclass(frozen=True)
class BertConfig(Config):
    """Defaults are BERT-base, uncased."""

    vocab_size: int = 30_522
    num_layers: int = 12
    num_heads: int = 12
    dim: int = 768
    mlp_dim: int = 3072
    max_length: int = 512
    num_segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    initializer_range: float = 0.02
    pooler: bool = True  # the layer on the first token's state; masked language models have none
    tie_embeddings: bool = True  # tokens are scored by their embeddings; False gives the scores a matrix of their own

    model_type: ClassVar[str] = "bert"
    hf_names: ClassVar[dict[str, str]] = {
        "vocab_size": "vocab_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "dim": "hidden_size",
        "mlp_dim": "intermediate_size",
        "max_length": "max_position_embeddings",
        "num_segments": "type_vocab_size",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "activation": "hidden_act",
        "norm_epsilon": "layer_norm_eps",
        "initializer_range": "initializer_range",
        "tie_embeddings": "tie_word_embeddings",
    }
    hf_required: ClassVar[dict[str, object]] = {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }


_BERT, _SMALL = "Devlin et al. 2018, arXiv 1810.04805", "Turc et al. 2019, arXiv 1908.08962"
_MINILM = "Wang et al. 2020, arXiv 2002.10957"


def _sizes(num_layers: int, dim: int, num_heads: int | None = None) -> dict[str, int]:
    return {"num_layers": num_layers, "dim": dim, "num_heads": num_heads or dim // 64, "mlp_dim": 4 * dim}


PRESETS = [
    Preset("bert_tiny_uncased", _sizes(2, 128), 4_385_920, "google/bert_uncased_L-2_H-128_A-2", _SMALL),
    Preset("bert_mini_uncased", _sizes(4, 256), 11_170_560, "google/bert_uncased_L-4_H-256_A-4", _SMALL),
    Preset("bert_small_uncased", _sizes(4, 512), 28_763_648, "google/bert_uncased_L-4_H-512_A-8", _SMALL),
    Preset("bert_medium_uncased", _sizes(8, 512), 41_373_184, "google/bert_uncased_L-8_H-512_A-8", _SMALL),
    Preset("bert_base_uncased", _sizes(12, 768), 109_482_240, "google-bert/bert-base-uncased", _BERT),
    Preset(
        "bert_base_cased", _sizes(12, 768) | {"vocab_size": 28_996}, 108_310_272, "google-bert/bert-base-cased", _BERT
    ),
    Preset("bert_large_uncased", _sizes(24, 1024), 335_141_888, "google-bert/bert-large-uncased", _BERT),
    Preset(
        "bert_large_cased",
        _sizes(24, 1024) | {"vocab_size": 28_996},
        333_579_264,
        "google-bert/bert-large-cased",
        _BERT,
    ),
    Preset(
        "bert_base_multilingual_cased",
        _sizes(12, 768) | {"vocab_size": 119_547},
        177_853_440,
        "google-bert/bert-base-multilingual-cased",
        _BERT,
    ),
    Preset(
        "bert_base_multilingual_uncased",
        _sizes(12, 768) | {"vocab_size": 105_879},
        167_356_416,
        "google-bert/bert-base-multilingual-uncased",
        _BERT,
    ),
    Preset("minilm_l6_uncased", _sizes(6, 384, 12), 22_713_216, "nreimers/MiniLM-L6-H384-uncased", _MINILM),
    Preset("minilm_l12_uncased", _sizes(12, 384, 12), 33_360_000, "microsoft/MiniLM-L12-H384-uncased", _MINILM),
]
