"""Tiny random Hugging Face folders, each odd in one way, as golden/make_folders.py and the tests write them.

Shapes: V tokens, D width, L positions, M width of the MLP.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

V, D, L, M = 257, 8, 16, 12
IDS = np.array([[7, 1, 250, 3, 9, 9], [30, 31, 32, 0, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], np.int32)
BERT = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": M}
BERT |= {"max_position_embeddings": L}
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": 1, "n_head": 2, "n_inner": M, "n_positions": L}
GPT2 |= {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 0}

Tensors = dict[str, np.ndarray]
Edit = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Variant:
    """A folder.

    Args:
        named: the class of `transformers` in its config.json.
        config: further fields of it.
        edit: changes the tensors of a folder as `transformers` writes it.
        read_as: the class that reads it; the named one by default.
    """

    named: str
    config: Mapping[str, Any] = field(default_factory=dict)
    edit: Edit = dict
    read_as: str | None = None

    def write(self, folder: Path) -> Path:
        """Writes `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        model_type, sizes, backbone = ("bert", BERT, bert) if self.named.startswith("Bert") else ("gpt2", GPT2, gpt2)
        values = {"model_type": model_type, "architectures": [self.named], **sizes, **self.config}
        (folder / "config.json").write_text(json.dumps(values))
        tensors = self.edit(backbone() | random(2, HEADS.get(self.named, {})))
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder


def random(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    numbers = np.random.default_rng(seed)
    return {name: numbers.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def dense(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def bert() -> Tensors:
    layer, tables = "bert.encoder.layer.0.", {"word": V, "position": L, "token_type": 2}
    shapes = {f"bert.embeddings.{name}_embeddings.weight": (rows, D) for name, rows in tables.items()}
    shapes |= norm("bert.embeddings.LayerNorm") | dense("bert.pooler.dense", D, D)
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        shapes |= dense(layer + name, D, D)
    shapes |= dense(f"{layer}intermediate.dense", M, D) | dense(f"{layer}output.dense", D, M)
    return random(0, shapes | norm(f"{layer}attention.output.LayerNorm") | norm(f"{layer}output.LayerNorm"))


def gpt2() -> Tensors:
    layer = "transformer.h.0."
    shapes = {"transformer.wte.weight": (V, D), "transformer.wpe.weight": (L, D)} | norm("transformer.ln_f")
    shapes |= norm(f"{layer}ln_1") | norm(f"{layer}ln_2")
    products = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, M), "mlp.c_proj": (M, D)}
    for name, shape in products.items():
        shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[1:]}
    return random(1, shapes)


PREDICTIONS = "cls.predictions."
MASKED_HEAD = {f"{PREDICTIONS}bias": (V,)} | dense(f"{PREDICTIONS}transform.dense", D, D)
MASKED_HEAD |= norm(f"{PREDICTIONS}transform.LayerNorm")
HEADS = {
    "BertForSequenceClassification": dense("classifier", 3, D),
    "BertForTokenClassification": dense("classifier", 3, D),
    "BertForMultipleChoice": dense("classifier", 1, D),
    "BertForQuestionAnswering": dense("qa_outputs", 2, D),
    "BertForNextSentencePrediction": dense("cls.seq_relationship", 2, D),
    "BertForMaskedLM": MASKED_HEAD,
    "BertForPreTraining": MASKED_HEAD | dense("cls.seq_relationship", 2, D),
    "GPT2ForSequenceClassification": {"score.weight": (3, D)},
    "GPT2ForTokenClassification": dense("classifier", 3, D),
    "GPT2ForQuestionAnswering": dense("qa_outputs", 2, D),
    "GPT2DoubleHeadsModel": dense("multiple_choice_head.summary", 1, D),
}


def sampled(logits: np.ndarray) -> np.ndarray:
    """Some of the logits of each token, or all of a text's."""
    return logits[..., :: max(1, logits.shape[-1] // 16)]


def with_tensor(name: str, of: str, change: Callable[[np.ndarray], np.ndarray] = np.flipud) -> Edit:
    """Adds a tensor that another one is changed into."""
    return lambda tensors: tensors | {name: change(tensors[of])}


def renamed(change: Callable[[str], str]) -> Edit:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


LABELS = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
MULTI_LABEL = {**LABELS, "problem_type": "multi_label_classification"}
WTE, WORDS, DECODER = "transformer.wte.weight", "bert.embeddings.word_embeddings.weight", f"{PREDICTIONS}decoder."
GAMMA, UNTIED = "bert.embeddings.LayerNorm.", {"tie_word_embeddings": False}
LM, MASKED = "GPT2LMHeadModel", "BertForMaskedLM"

VARIANTS = {
    "tied": Variant(LM),
    "tied, both names": Variant(LM, edit=with_tensor("lm_head.weight", WTE, np.copy)),
    "tied, output's name": Variant(LM, edit=renamed(lambda name: "lm_head.weight" if name == WTE else name)),
    "own output": Variant(LM, edit=with_tensor("lm_head.weight", WTE)),
    "own output, said": Variant(LM, UNTIED, with_tensor("lm_head.weight", WTE)),
    "own output, equal": Variant(LM, UNTIED, with_tensor("lm_head.weight", WTE, np.copy)),
    "no prefix": Variant(LM, edit=renamed(lambda name: name.removeprefix("transformer."))),
    "some prefixes": Variant(LM, edit=renamed(lambda n: n.removeprefix("transformer.") if "h.0" in n else n)),
    "other names of sizes": Variant(LM, {"num_attention_heads": 4, "n_head": 2}),
    "float16": Variant(LM, edit=lambda tensors: {name: t.astype(np.float16) for name, t in tensors.items()}),
    "two heads": Variant("GPT2DoubleHeadsModel", read_as=LM),
    "masked": Variant(MASKED),
    "masked, output's name": Variant(MASKED, edit=renamed(lambda n: f"{DECODER}weight" if n == WORDS else n)),
    "masked, own output": Variant(MASKED, edit=with_tensor(f"{DECODER}weight", WORDS)),
    "masked, two biases": Variant(MASKED, edit=with_tensor(f"{DECODER}bias", f"{PREDICTIONS}bias")),
    "masked, two gammas": Variant(MASKED, edit=with_tensor(f"{GAMMA}gamma", f"{GAMMA}weight")),
    "pretraining": Variant("BertForPreTraining", read_as=MASKED),
    "any labels": Variant("BertForSequenceClassification", MULTI_LABEL),
    "one label": Variant("GPT2ForSequenceClassification", LABELS),
}
