"""GPT against `transformers`: files that it wrote and what it computed with them (golden/make_gpt.py).

Tolerance 1e-4 (logits are of order 1 to 10): float32 sums in another order, through up to twelve layers.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from gpt_weights import large_tensors

from kerasformer.errors import InputError
from kerasformer.models import weights
from kerasformer.models.base import load
from kerasformer.models.bert.model import Bert
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.models.heads import CausalLM, Classifier

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "gpt_tiny"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
SIZES = {"vocab_size": 30, "num_layers": 2, "num_heads": 2, "dim": 8, "mlp_dim": 12, "max_length": 16}


def inputs_of(golden) -> dict[str, np.ndarray]:
    return {name: golden[name] for name in GPT.input_names}


def test_logits_equal_those_of_transformers(gpt_golden):
    real = gpt_golden["padding_mask"].astype(bool)
    ours = np.asarray(CausalLM.from_pretrained(TINY)(inputs_of(gpt_golden)))
    np.testing.assert_allclose(ours[real], gpt_golden["logits"][real], **TOLERANCE)


def test_the_shape_of_124m_equals_transformers():
    golden, model = np.load(GOLDEN / "gpt2_124m.npz"), GPT(GPTConfig())
    load(model, dict(large_tensors()), GOLDEN)
    logits = CausalLM(model)({"token_ids": golden["token_ids"]})[:, ::8, ::101]
    # The weights are random and wide, so logits reach 100: relative to that, 1e-4 is float32's own noise.
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4 * np.abs(golden["logits"]).max())


def test_a_classifier_reads_the_last_real_token_as_transformers_does(gpt_golden, tmp_path):
    model = Classifier(GPT.from_pretrained(TINY), ["a", "b", "c"])
    weights.apply(
        {"head/kernel": model.head.kernel},
        model.backbone.table.heads["Classifier"],
        {"score.weight": gpt_golden["score"]},
        "",
    )
    np.testing.assert_allclose(model(inputs_of(gpt_golden)), gpt_golden["classes"], **TOLERANCE)


def test_what_we_write_holds_the_tensors_that_transformers_wrote(tmp_path):
    from safetensors.numpy import load_file

    CausalLM.from_pretrained(TINY).save_pretrained(tmp_path)
    theirs, ours = load_file(TINY / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    their_config, our_config = (json.loads((f / "config.json").read_text()) for f in (TINY, tmp_path))
    assert our_config.keys() <= their_config.keys()
    assert our_config.items() <= their_config.items()


def test_reading_in_parts_equals_reading_at_once(gpt_golden):
    model, ids = CausalLM.from_pretrained(TINY).backbone, gpt_golden["token_ids"]
    batch, length = ids.shape
    places = np.broadcast_to(np.arange(length), (batch, length))
    caches, visible, parts = model.empty_caches(batch, length), np.ones((batch, length), np.int32), []
    for start, end in ((0, 5), (5, 6), (6, 9), (9, length)):
        hidden, caches = model.extend(ids[:, start:end], caches, start, positions=places[:, start:end], visible=visible)
        parts.append(hidden)
    at_once = model({"token_ids": ids})["hidden_states"]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), at_once, **TOLERANCE)


def test_padding_on_the_left_changes_nothing(gpt_golden):
    model, ids = CausalLM.from_pretrained(TINY).backbone, gpt_golden["token_ids"][:1, :7]
    pad, room = 4, 16
    padded = np.concatenate([np.full((1, pad), 3, np.int32), ids], axis=1)
    positions = np.maximum(np.arange(padded.shape[1])[None] - pad, 0)
    visible = (np.arange(room)[None] >= pad).astype(np.int32)
    hidden, _ = model.extend(padded, model.empty_caches(1, room), 0, positions=positions, visible=visible)
    np.testing.assert_allclose(hidden[:, pad:], model({"token_ids": ids})["hidden_states"], **TOLERANCE)


@pytest.mark.parametrize(("shape", "published"), [({}, True), ({"prenorm": False}, False), ({"window": 3}, False)])
def test_shapes_that_transformers_lacks_are_named_so(shape, published, tmp_path):
    model = GPT(GPTConfig(**SIZES, **shape))
    model.save_pretrained(tmp_path)
    model_type = json.loads((tmp_path / "config.json").read_text())["model_type"]
    assert model_type == ("gpt2" if published else "gpt2-kerasformer")
    again, ids = GPT.from_pretrained(tmp_path), np.arange(12).reshape(2, 6)
    assert again.config == model.config
    np.testing.assert_array_equal(again({"token_ids": ids})["pooled"], model({"token_ids": ids})["pooled"])


def test_every_other_layer_is_banded():
    assert [block.attention.window for block in GPT(GPTConfig(**SIZES, window=3)).blocks] == [0, 3]


def test_an_mlp_without_width_is_four_times_as_wide():
    values = GPTConfig(**SIZES).to_hf() | {"n_inner": None}
    assert GPTConfig.from_hf(values).mlp_dim == 32


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale_attn_weights", False), ("scale_attn_by_inverse_layer_idx", True), ("activation_function", "mish")],
)
def test_variants_that_are_not_gpt2_are_refused(field, value, tmp_path):
    GPT.from_pretrained(TINY).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(InputError, match=str(value)):
        GPT.from_pretrained(tmp_path)


def test_an_encoder_predicts_no_next_token():
    with pytest.raises(InputError, match="expected a model with the task CausalLM, got a Bert"):
        CausalLM(Bert.from_pretrained(GOLDEN / "bert_tiny"))


def test_jax_computes_the_same_without_tensorflow(on_jax, tmp_path, gpt_golden):
    program = f"""
import jax, numpy as np
from kerasformer.models.heads import CausalLM
gpt_golden = np.load({str(GOLDEN / "gpt_tiny.npz")!r})
model = CausalLM.from_pretrained({str(TINY)!r})
np.save({str(tmp_path / "logits.npy")!r}, jax.jit(model)({{name: gpt_golden[name] for name in model.input_names}}))
"""
    on_jax(program)
    ours = CausalLM.from_pretrained(TINY)(inputs_of(gpt_golden))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours, **TOLERANCE)
