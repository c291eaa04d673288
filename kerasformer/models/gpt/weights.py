"""Where each variable of GPT stands in a Hugging Face `gpt2` checkpoint."""

from kerasformer.models.weights import TRANSPOSE, Row, Table


def _norm(ours: str, theirs: str) -> list[Row]:
    return [Row(f"{ours}/gamma", (f"{theirs}.weight",)), Row(f"{ours}/beta", (f"{theirs}.bias",))]


def _dense(ours: str, theirs: str) -> list[Row]:
    # Their Conv1D holds kernels as [in, out].
    return [Row(f"{ours}/kernel", (f"{theirs}.weight",), TRANSPOSE), Row(f"{ours}/bias", (f"{theirs}.bias",))]


_BLOCK, _LAYER = "block_{i}", "h.{i}"

TABLE = Table(
    rows=[
        Row("embedding/token/embeddings", ("wte.weight",)),
        Row("embedding/position/embeddings", ("wpe.weight",)),
        *_norm(f"{_BLOCK}/attention_residual/norm", f"{_LAYER}.ln_1"),
        *_dense(f"{_BLOCK}/attention/query_key_value", f"{_LAYER}.attn.c_attn"),
        *_dense(f"{_BLOCK}/attention/output", f"{_LAYER}.attn.c_proj"),
        *_norm(f"{_BLOCK}/mlp_residual/norm", f"{_LAYER}.ln_2"),
        *_dense(f"{_BLOCK}/mlp/up", f"{_LAYER}.mlp.c_fc"),
        *_dense(f"{_BLOCK}/mlp/down", f"{_LAYER}.mlp.c_proj"),
        *_norm("final_norm", "ln_f"),
    ],
    prefix="transformer.",
    heads={
        "Classifier": [Row("head/kernel", ("score.weight",))],
        "CausalLM": [Row("output/embeddings", ("lm_head.weight",))],
    },
    fresh=("output/.*",),
    optional=("final_norm/.*", "output/.*"),
    output=("lm_head.weight", "wte.weight"),
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),  # constants of old checkpoints
)
