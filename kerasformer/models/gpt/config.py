"""The sizes of a GPT, and the published ones."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from kerasformer.models.config import UNPUBLISHED, Config, Preset

_UNPUBLISHED_FIELDS = ("prenorm", "attention_window")


@dataclass(frozen=True)
class GPTConfig(Config):
    """Defaults are the smallest GPT-2."""

    vocab_size: int = 50_257
    num_layers: int = 12
    num_heads: int = 12
    dim: int = 768
    mlp_dim: int = 3072
    max_length: int = 1024
    prenorm: bool = True  # False is GPT-1: normalisation after each sublayer, and none at the end
    window: int = 0  # of GPT-3: every other layer sees this many positions; 0 for all
    dropout: float = 0.1
    attention_dropout: float = 0.1
    embedding_dropout: float | None = None  # as `dropout` by default
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_embeddings: bool = True  # tokens are scored by their embeddings; False gives the scores a matrix of their own

    model_type: ClassVar[str] = "gpt2"
    hf_names: ClassVar[dict[str, str]] = {
        "vocab_size": "vocab_size",
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "dim": "n_embd",
        "mlp_dim": "n_inner",
        "max_length": "n_positions",
        "prenorm": "prenorm",
        "window": "attention_window",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "activation": "activation_function",
        "norm_epsilon": "layer_norm_epsilon",
        "embedding_dropout": "embd_pdrop",
        "initializer_range": "initializer_range",
        "tie_embeddings": "tie_word_embeddings",
    }
    hf_aliases: ClassVar[dict[str, str]] = {
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "dim": "hidden_size",
        "max_length": "max_position_embeddings",
    }
    hf_required: ClassVar[dict[str, object]] = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> Self:
        """Reads `config.json`'s fields; the MLP is four times as wide as the stream unless they say otherwise."""
        values = {"embd_pdrop": 0.1, **values}
        if not str(values.get("model_type")).endswith(UNPUBLISHED):
            values = {name: value for name, value in values.items() if name not in _UNPUBLISHED_FIELDS}
        is_default = values.get("n_inner") is None
        config = super().from_hf({name: v for name, v in values.items() if not (is_default and name == "n_inner")})
        changes: dict[str, Any] = {"mlp_dim": 4 * config.dim} if is_default else {}
        if config.embedding_dropout == config.dropout:
            changes["embedding_dropout"] = None
        return dataclasses.replace(config, **changes)

    def to_hf(self) -> dict[str, Any]:
        """The fields of `config.json`."""
        values = super().to_hf()
        if self.embedding_dropout is None:
            values["embd_pdrop"] = self.dropout
        if self.prenorm and not self.window:
            return {name: value for name, value in values.items() if name not in _UNPUBLISHED_FIELDS}
        return values | {"model_type": self.model_type + UNPUBLISHED}


_GPT1 = "Radford et al. 2018, Improving Language Understanding by Generative Pre-Training (compare arXiv 1810.04805)"
_GPT2 = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners (sizes also in arXiv 2005.14165)"
_GPT3 = "Brown et al. 2020, arXiv 2005.14165, table 2.1"


def _sizes(num_layers: int, dim: int, num_heads: int, **others) -> dict:
    return {"num_layers": num_layers, "dim": dim, "num_heads": num_heads, "mlp_dim": 4 * dim, **others}


def _gpt3(name: str, num_layers: int, dim: int, num_heads: int, num_parameters: int) -> Preset:
    # The paper does not tell the width of its bands; 256 is that of the Sparse Transformer's text models, which it
    # cites (Child et al. 2019, arXiv 1904.10509): pass window=256 for them. No weights were published.
    values = _sizes(num_layers, dim, num_heads, max_length=2048)
    return Preset(f"gpt3_{name}", values, num_parameters, f"openai/gpt-3 {name}", _GPT3)


PRESETS = [
    Preset(
        "gpt1",
        _sizes(12, 768, 12, vocab_size=40_478, max_length=512, prenorm=False),
        116_534_784,
        "openai-community/openai-gpt",
        _GPT1,
    ),
    Preset("gpt2", _sizes(12, 768, 12), 124_439_808, "openai-community/gpt2", _GPT2),
    Preset("gpt2_medium", _sizes(24, 1024, 16), 354_823_168, "openai-community/gpt2-medium", _GPT2),
    Preset("gpt2_large", _sizes(36, 1280, 20), 774_030_080, "openai-community/gpt2-large", _GPT2),
    Preset("gpt2_xl", _sizes(48, 1600, 25), 1_557_611_200, "openai-community/gpt2-xl", _GPT2),
    _gpt3("small", 12, 768, 12, 125_226_240),
    _gpt3("medium", 24, 1024, 16, 355_871_744),
    _gpt3("large", 24, 1536, 16, 760_300_032),
    # Table 2.1 has 24 heads of 128 for a width of 2048, which 16 heads of 128 make up: and 1.3 billion parameters.
    _gpt3("xl", 24, 2048, 16, 1_315_723_264),
    _gpt3("2.7b", 32, 2560, 32, 2_651_553_280),
    _gpt3("6.7b", 32, 4096, 32, 6_658_404_352),
    # Table 2.1 has a width of 5140, which its 40 heads of 128 do not make up; 5120 they do.
    _gpt3("13b", 40, 5120, 40, 12_853_386_240),
    _gpt3("175b", 96, 12_288, 96, 174_604_259_328),
]
