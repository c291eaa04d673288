"""The head for masked tokens against `transformers`: files that it wrote and what it computed (golden/make_bert.py).

Tolerance 1e-4 (logits are of order 1): float32 sums in another order.
"""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kerasformer.errors import InputError
from kerasformer.models.bert.model import Bert
from kerasformer.models.heads import CausalLM, Classifier, MaskedLM, from_folder
from kerasformer.serving.export import export
from kerasformer.text.vocabulary import train_char

GOLDEN = Path(__file__).parent / "golden"
FOLDER = GOLDEN / "bert_masked"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
WEIGHTS, TABLE = "model.safetensors", "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "bert_masked.npz")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the checkpoint, to change."""
    shutil.copytree(FOLDER, tmp_path / "model")
    return tmp_path / "model"


def inputs_of(golden) -> dict[str, np.ndarray]:
    return {name: golden[name] for name in Bert.input_names}


def add(folder: Path, **tensors: np.ndarray) -> None:
    save_file(load_file(folder / WEIGHTS) | tensors, folder / WEIGHTS)


def test_logits_equal_transformers(golden):
    logits = MaskedLM.from_pretrained(FOLDER)(inputs_of(golden))
    real = golden["padding_mask"].astype(bool)
    np.testing.assert_allclose(np.asarray(logits)[real], golden["logits"][real], **TOLERANCE)


def test_jax_computes_the_same_without_tensorflow(on_jax, tmp_path, golden):
    program = f"""
import jax, numpy as np
from kerasformer.models.heads import MaskedLM
golden = np.load({str(GOLDEN / "bert_masked.npz")!r})
model = MaskedLM.from_pretrained({str(FOLDER)!r})
inputs = {{name: golden[name] for name in model.backbone.input_names}}
np.save({str(tmp_path / "logits.npy")!r}, jax.jit(model)(inputs))
"""
    on_jax(program)
    ours = MaskedLM.from_pretrained(FOLDER)(inputs_of(golden))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours, **TOLERANCE)


def test_what_we_write_holds_the_tensors_that_transformers_wrote(tmp_path):
    from_folder(FOLDER).save_pretrained(tmp_path)
    theirs, ours = load_file(FOLDER / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    their_config, our_config = (json.loads((f / "config.json").read_text()) for f in (FOLDER, tmp_path))
    assert our_config["architectures"] == ["BertForMaskedLM"]
    assert {name: their_config[name] for name in our_config.keys() & their_config.keys()}.items() <= our_config.items()


def test_the_folder_names_its_head_and_there_is_no_pooler(caplog):
    model = from_folder(FOLDER)
    assert isinstance(model, MaskedLM) and model.tokenizer.mask_id == 4
    assert not [v.path for v in model.weights if "pooler" in v.path]
    assert not caplog.records  # nothing that is used is missing


def test_the_output_table_is_that_of_the_embedding(golden):
    model = MaskedLM.from_pretrained(FOLDER)
    table = model.backbone.output_table
    assert table is model.backbone.embedding.token.embeddings
    assert sum(v is table for v in model.trainable_variables) == 1
    assert len(model.trainable_variables) == len(model.backbone.trainable_variables) + 5
    model.backbone.embedding.token.embeddings.assign(np.zeros(table.shape))
    logits = model(inputs_of(golden))
    np.testing.assert_array_equal(logits, np.broadcast_to(model.head.bias, logits.shape))


def test_a_copy_of_the_table_and_a_second_name_of_the_bias_are_understood(folder, golden):
    tensors = load_file(folder / WEIGHTS)
    tensors["cls.predictions.decoder.weight"] = tensors[TABLE]
    tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
    more = {"cls.seq_relationship.bias": np.zeros(2, np.float32), "bert.pooler.dense.bias": np.zeros(16, np.float32)}
    save_file(tensors | more | {"bert.pooler.dense.weight": np.zeros((16, 16), np.float32)}, folder / WEIGHTS)
    np.testing.assert_array_equal(
        MaskedLM.from_pretrained(folder)(inputs_of(golden)), MaskedLM.from_pretrained(FOLDER)(inputs_of(golden))
    )
    assert Bert.from_pretrained(folder).pooler is not None  # which other heads read


def test_an_output_table_of_its_own_is_used_by_this_head_alone(folder, caplog):
    own = load_file(folder / WEIGHTS)[TABLE] + 1
    add(folder, **{"cls.predictions.decoder.weight": own})
    np.testing.assert_array_equal(MaskedLM.from_pretrained(folder).backbone.output_table, own)
    assert not caplog.records
    classifier = Classifier.from_pretrained(folder, labels=["a", "b"])
    assert classifier.backbone.output_table is classifier.backbone.embedding.token.embeddings
    assert "cls.predictions." in caplog.text and "of a head that is not used" in caplog.text


def test_a_classifier_starts_from_it_with_a_fresh_pooler(caplog):
    model = Classifier.from_pretrained(FOLDER, labels=["yes", "no"])
    assert "no weights for pooler/kernel, pooler/bias" in caplog.text
    np.testing.assert_array_equal(model.backbone.embedding.token.embeddings, load_file(FOLDER / WEIGHTS)[TABLE])
    with pytest.raises(InputError, match="expected a classifier, got .* has no classifier that names them"):
        Classifier.from_pretrained(FOLDER)


@pytest.mark.parametrize(
    "save", [lambda model, f: model.save_pretrained(f), lambda m, f: m.backbone.save_pretrained(f)]
)
def test_it_starts_from_other_checkpoints_with_a_fresh_head(bert_tiny, tmp_path, caplog, save):
    other = Classifier.from_pretrained(bert_tiny)
    other.tokenizer.save(tmp_path)
    save(other, tmp_path)
    model = MaskedLM.from_pretrained(tmp_path)
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "no head for masked tokens" in record.message
    kept = {v.path.partition("/")[2]: v for v in other.backbone.weights}
    for variable in model.backbone.weights:
        np.testing.assert_array_equal(variable, kept[variable.path.partition("/")[2]])


def test_half_a_head_is_refused(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if "transform.dense" not in n}, folder / WEIGHTS)
    with pytest.raises(InputError, match="got -cls.predictions.transform.dense.weight -cls.predictions.transform"):
        MaskedLM.from_pretrained(folder)


def test_models_tokenizers_and_exports_of_another_kind_are_refused(tmp_path):
    gpt = GOLDEN / "gpt_tiny"
    with pytest.raises(InputError, match="expected a model with the task MaskedLM, got a GPT"):
        MaskedLM.from_pretrained(gpt)
    with pytest.raises(InputError, match="expected a model with the task CausalLM, got a Bert"):
        CausalLM.from_pretrained(FOLDER)
    with pytest.raises(InputError, match="expected a WordPiece tokenizer for a Bert, got a BPE"):
        MaskedLM(Bert.from_pretrained(FOLDER), train_char(["a"]))
    with pytest.raises(InputError, match="to export, got one of MaskedLM; train one of those on it first"):
        export(from_folder(FOLDER), tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_bfloat16_logits_are_float32_and_near(golden):
    logits = MaskedLM.from_pretrained(FOLDER, dtype="mixed_bfloat16")(inputs_of(golden))
    assert logits.dtype == "float32"
    real = golden["padding_mask"].astype(bool)
    np.testing.assert_allclose(np.asarray(logits)[real], golden["logits"][real], atol=0.15)  # 8 bits
