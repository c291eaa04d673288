"""BERT against `transformers`: files that it wrote and what it computed with them (golden/make_bert.py).

Tolerance 1e-4 (hidden states are of order 1): float32 sums in another order, through up to six layers.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from kerasformer.errors import InputError
from kerasformer.models.bert.model import Bert
from kerasformer.models.heads import Classifier

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "bert_tiny"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "bert_tiny.npz")


def inputs_of(golden) -> dict[str, np.ndarray]:
    return {name: golden[name] for name in Bert.input_names}


def assert_equal_where_real(ours, theirs, padding_mask):
    real = padding_mask.astype(bool)
    np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], **TOLERANCE)


def test_backbone_equals_transformers(golden):
    outputs = Bert.from_pretrained(TINY)(inputs_of(golden))
    assert_equal_where_real(outputs["hidden_states"], golden["hidden_states"], golden["padding_mask"])
    np.testing.assert_allclose(outputs["pooled"], golden["pooled"], **TOLERANCE)


def test_classifier_equals_transformers(golden):
    model = Classifier.from_pretrained(TINY)
    assert model.labels == ["cat", "dog", "neither"]
    np.testing.assert_allclose(model(inputs_of(golden)), golden["logits"], **TOLERANCE)


def test_what_we_write_holds_the_tensors_that_transformers_wrote(tmp_path):
    from safetensors.numpy import load_file

    Classifier.from_pretrained(TINY).save_pretrained(tmp_path)
    theirs, ours = load_file(TINY / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    their_config, our_config = (json.loads((f / "config.json").read_text()) for f in (TINY, tmp_path))
    assert {name: their_config[name] for name in our_config.keys() & their_config.keys()}.items() <= our_config.items()


def test_minilm_equals_transformers(minilm):
    golden = np.load(GOLDEN / "minilm.npz")
    ids = golden["token_ids"]
    inputs = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": golden["padding_mask"]}
    outputs = Bert.from_pretrained(minilm)(inputs)
    assert_equal_where_real(outputs["hidden_states"], golden["hidden_states"], golden["padding_mask"])
    np.testing.assert_allclose(outputs["pooled"], golden["pooled"], **TOLERANCE)


def test_minilm_tokenizer_equals_transformers(minilm):
    golden = np.load(GOLDEN / "minilm.npz")
    model = Classifier.from_pretrained(minilm, labels=["a", "b"])
    encoded = model.tokenizer.encode([str(sentence) for sentence in golden["sentences"]], max_length=64)
    np.testing.assert_array_equal(encoded.token_ids, golden["token_ids"][golden["padding_mask"] == 1])


def test_jax_computes_the_same_without_tensorflow(on_jax, tmp_path, golden):
    program = f"""
import jax, numpy as np
from kerasformer.models.heads import Classifier
golden = np.load({str(GOLDEN / "bert_tiny.npz")!r})
model = Classifier.from_pretrained({str(TINY)!r})
inputs = {{name: golden[name] for name in model.backbone.input_names}}
np.save({str(tmp_path / "logits.npy")!r}, jax.jit(model)(inputs))
"""
    on_jax(program)
    ours = Classifier.from_pretrained(TINY)(inputs_of(golden))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours, **TOLERANCE)


def test_other_labels_start_a_fresh_head():
    model = Classifier.from_pretrained(TINY, labels=["yes", "no"])
    assert model.head.kernel.shape[0] == 2
    kept = Bert.from_pretrained(TINY).get_weights()
    for ours, theirs in zip(model.backbone.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_checkpoint_without_head_asks_for_labels(tmp_path):
    Classifier.from_pretrained(TINY).tokenizer.save(tmp_path)
    Bert.from_pretrained(TINY).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="expected a classifier, got .* which has no classifier that names them"):
        Classifier.from_pretrained(tmp_path)
    assert Classifier.from_pretrained(tmp_path, labels=["a", "b"]).labels == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "message"), [(["one"], "at least two labels"), (["a", "b", "a"], r"each label once, got \['a'\]")]
)
def test_bad_labels(labels, message):
    with pytest.raises(InputError, match=message):
        Classifier.from_pretrained(TINY, labels=labels)


def test_a_checkpoint_without_pooler_says_so(tmp_path, caplog):
    from safetensors.numpy import load_file, save_file

    Bert.from_pretrained(TINY).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if "pooler" not in n}, tmp_path / "model.safetensors")
    Bert.from_pretrained(tmp_path)
    assert "no weights for pooler/kernel, pooler/bias" in caplog.text


def test_names_of_converted_checkpoints_and_pretraining_heads_are_understood(tmp_path):
    from safetensors.numpy import load_file, save_file

    Bert.from_pretrained(TINY).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {
        "bert." + n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in tensors.items()
    }
    extra = {"cls.predictions.bias": np.zeros(15), "bert.embeddings.position_ids": np.arange(24)[None]}
    save_file(renamed | extra, tmp_path / "model.safetensors")
    for ours, theirs in zip(Bert.from_pretrained(tmp_path).weights, Bert.from_pretrained(TINY).weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("field", "value"), [("position_embedding_type", "relative_key"), ("is_decoder", True), ("hidden_act", "mish")]
)
def test_variants_that_are_not_bert_are_refused(field, value, tmp_path):
    Bert.from_pretrained(TINY).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(InputError, match=str(value)):
        Bert.from_pretrained(tmp_path)
