"""Where each variable of Bert stands in a Hugging Face `bert` checkpoint."""

from kerasformer.models.weights import COPY, STACK, Row, Table


def _norm(ours: str, theirs: str) -> list[Row]:
    return [Row(f"{ours}/gamma", (f"{theirs}.weight",)), Row(f"{ours}/beta", (f"{theirs}.bias",))]


def _dense(ours: str, *theirs: str) -> list[Row]:
    transform = STACK if len(theirs) > 1 else COPY
    return [
        Row(f"{ours}/kernel", tuple(f"{name}.weight" for name in theirs), transform),
        Row(f"{ours}/bias", tuple(f"{name}.bias" for name in theirs), transform),
    ]


_BLOCK, _LAYER = "block_{i}", "encoder.layer.{i}"
_PREDICTIONS = "cls.predictions"

TABLE = Table(
    rows=[
        Row("embedding/token/embeddings", ("embeddings.word_embeddings.weight",)),
        Row("embedding/position/embeddings", ("embeddings.position_embeddings.weight",)),
        Row("embedding/segment/embeddings", ("embeddings.token_type_embeddings.weight",)),
        *_norm("embedding_norm", "embeddings.LayerNorm"),
        *_dense(
            f"{_BLOCK}/attention/query_key_value",
            *(f"{_LAYER}.attention.self.{name}" for name in ("query", "key", "value")),
        ),
        *_dense(f"{_BLOCK}/attention/output", f"{_LAYER}.attention.output.dense"),
        *_norm(f"{_BLOCK}/attention_residual/norm", f"{_LAYER}.attention.output.LayerNorm"),
        *_dense(f"{_BLOCK}/mlp/up", f"{_LAYER}.intermediate.dense"),
        *_dense(f"{_BLOCK}/mlp/down", f"{_LAYER}.output.dense"),
        *_norm(f"{_BLOCK}/mlp_residual/norm", f"{_LAYER}.output.LayerNorm"),
        *_dense("pooler", "pooler.dense"),
    ],
    prefix="bert.",
    heads={
        "Classifier": _dense("head", "classifier"),
        "MaskedLM": [
            *_dense("head/transform", f"{_PREDICTIONS}.transform.dense"),
            *_norm("head/norm", f"{_PREDICTIONS}.transform.LayerNorm"),
            Row("head/bias", (f"{_PREDICTIONS}.bias",)),
            Row("output/embeddings", (f"{_PREDICTIONS}.decoder.weight",)),
        ],
    },
    # Checkpoints trained on masked language modelling alone have no pooler, nor do the models.
    fresh=("pooler/.*", "output/.*"),
    optional=("pooler/.*", "output/.*"),
    output=(f"{_PREDICTIONS}.decoder.weight", "embeddings.word_embeddings.weight"),
    untied_copies={f"{_PREDICTIONS}.decoder.bias": f"{_PREDICTIONS}.bias"},
    # Classes of tokens, and of the choices of a question, are named like those of texts.
    shared_names=("Classifier",),
    other_heads=(r"cls\.seq_relationship\..*",),  # whether one sentence follows another
    ignored=(r"(bert\.)?embeddings\.position_ids",),  # a constant
    # The names of checkpoints that were converted from TensorFlow 1; and a second name of the output's bias.
    renamed=(
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^cls\.predictions\.decoder\.bias$", f"{_PREDICTIONS}.bias"),
    ),
)
