"""Which labels a classifier has, and when those of a folder are its own: order, number, names and kind."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from folder_variants import IDS, MASK, MULTI_LABEL, Variant
from safetensors.numpy import load_file, save_file

import kerasformer as kf
from kerasformer.cli import main
from kerasformer.errors import InputError
from kerasformer.models.heads import Classifier
from kerasformer.models.labels import MULTI_LABEL as MULTI
from kerasformer.serving.classifier import ServedClassifier
from kerasformer.training.train import evaluate_run, train

TEXTS = ["the cat sat", "a dog"]


def edited(folder: Path, **values) -> Path:
    config = json.loads((folder / "config.json").read_text())
    changed = {name: value for name, value in (config | values).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


@pytest.fixture(scope="module")
def saved(classifier, tmp_path_factory) -> Path:
    """A classifier of the labels a, b and c, which no test changes."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    classifier(["a", "b", "c"]).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """The same in a folder of its own."""
    return shutil.copytree(saved, tmp_path / "model")


def logits(model) -> np.ndarray:
    ids = np.array([[2, 5, 6, 3], [2, 12, 3, 0]])
    inputs = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": (ids > 0).astype(int)}
    return np.asarray(model(inputs))


@pytest.mark.parametrize("order", ["abc", "cab", "bac"])
def test_labels_in_another_order_keep_the_trained_head(order, folder, caplog):
    model, trained = Classifier.from_pretrained(folder, list(order)), Classifier.from_pretrained(folder)
    assert model.labels == list(order)
    np.testing.assert_array_equal(logits(model), logits(trained)[:, ["abc".index(label) for label in order]])
    assert not caplog.records


def test_a_head_without_bias_is_reordered_as_well(tmp_path, gpt):
    trained = kf.Classifier(kf.GPT(gpt.backbone.config), ["x", "y"], gpt.tokenizer)
    trained.save_pretrained(tmp_path)
    model = Classifier.from_pretrained(tmp_path, ["y", "x"])
    np.testing.assert_array_equal(np.asarray(model.head.kernel), np.asarray(trained.head.kernel)[::-1])


@pytest.mark.parametrize(
    "labels", [["a", "b"], ["a", "b", "c", "d"], ["x", "y"], ["A", "b", "c"], ["a ", "b", "c"], ["LABEL_0", "b", "c"]]
)
def test_other_labels_start_a_fresh_head_with_one_warning(labels, folder, caplog):
    model = Classifier.from_pretrained(folder, labels)
    assert model.labels == labels
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    told = rf"classifier of the labels 'a', 'b', 'c' and not {', '.join(map(repr, labels))}: a fresh classifier takes"
    assert re.search(told, record.message)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"id2label": {"2": "z", "0": "x", "1": "y"}, "label2id": ...}, ["x", "y", "z"]),
        ({"id2label": {"0": 0, "1": 1, "2": True}, "label2id": ...}, ["0", "1", "True"]),
        ({"id2label": ..., "label2id": ..., "num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"id2label": {"0": "x", "1": "y"}, "num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"label2id": {"c": 0, "b": 1, "a": 2}}, ["a", "b", "c"]),
        ({"problem_type": None}, ["a", "b", "c"]),
        ({"architectures": ...}, ["a", "b", "c"]),
        ({"architectures": ["TFBertForSequenceClassification"]}, ["a", "b", "c"]),
        ({"architectures": "BertForSequenceClassification"}, ["a", "b", "c"]),
    ],
)
def test_labels_are_read_as_transformers_reads_them(values, labels, folder):
    assert Classifier.from_pretrained(edited(folder, **values)).labels == labels


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"id2label": {"1": "a", "2": "b", "3": "c"}},
            "has an id2label whose ids are not 0, 1 and so on, '1', '2', '3'",
        ),
        ({"id2label": {"0": "a", "2": "b", "4": "c"}}, "has an id2label whose ids are not 0, 1 and so on"),
        ({"id2label": {"x": "a", "y": "b", "z": "c"}}, "has an id2label whose ids are not 0, 1 and so on"),
        ({"id2label": ["a", "b", "c"]}, "has an id2label whose ids are not 0, 1 and so on"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "has an id2label that gives several ids one name"),
        ({"id2label": ..., "num_labels": "3"}, "has num_labels '3'"),
        ({"problem_type": "regression"}, "has a model of problem_type regression, which predicts a number"),
        (
            {"id2label": {"0": "score"}, "label2id": ...},
            "has a model of problem_type regression, which predicts a number",
        ),
        ({"problem_type": "ranking"}, "has a model of problem_type 'ranking'"),
        ({"architectures": ["BertForTokenClassification"]}, "has the classifier of BertForTokenClassification"),
        ({"architectures": "BertForMultipleChoice"}, "has the classifier of BertForMultipleChoice"),
        ({"architectures": ["BertModel"]}, "has the classifier of BertModel"),
    ],
)
def test_a_classifier_of_another_kind_is_refused_unless_labels_are_given(values, reason, folder, caplog):
    edited(folder, **values)
    with pytest.raises(InputError, match=f"expected a classifier, got .*model, which {reason}") as caught:
        Classifier.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    model = Classifier.from_pretrained(folder, ["a", "b", "c"])
    assert model.labels == ["a", "b", "c"]
    [record] = caplog.records
    assert reason in record.message and "a fresh classifier takes its place" in record.message


def test_a_head_of_another_number_of_rows_is_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "classifier.bias": np.zeros(2, np.float32)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"!classifier.bias \[2\] for \[3\]"):
        Classifier.from_pretrained(folder, ["c", "b", "a"])


def test_a_second_run_goes_on_with_the_head_of_the_first(recipe, run, tmp_path, caplog):
    _, figures = run
    caplog.clear()
    again = recipe(tmp_path, model={"from_pretrained": figures["model"]}, train={"learning_rate": 1e-9, "epochs": 1})
    assert train(again)["accuracy"] == pytest.approx(figures["accuracy"], abs=1e-6)
    assert "fresh" not in caplog.text


# The rest is of classifiers whose labels may be true of a text in any number.


@pytest.fixture
def multi_label(folder) -> Path:
    return edited(folder, problem_type=MULTI)


def test_each_label_has_a_probability_of_its_own(multi_label, tmp_path):
    model = kf.Classifier.from_pretrained(multi_label, dtype="float32")
    assert model.multi_label
    probabilities = model.predict(TEXTS)
    single = kf.Classifier.from_pretrained(edited(multi_label, problem_type=None), dtype="float32").predict(TEXTS)
    odds = probabilities / (1 - probabilities)
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), single, rtol=1e-4)
    assert np.abs(probabilities.sum(axis=1) - 1).min() > 0.01
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["problem_type"] == MULTI
    np.testing.assert_array_equal(kf.Classifier.from_pretrained(tmp_path / "saved").predict(TEXTS), probabilities)


def test_one_label_alone_may_be_true_or_not(multi_label):
    tensors = load_file(multi_label / "model.safetensors")
    tensors |= {name: tensors[name][:1] for name in ("classifier.weight", "classifier.bias")}
    save_file(tensors, multi_label / "model.safetensors")
    model = kf.Classifier.from_pretrained(edited(multi_label, id2label={"0": "spam"}, label2id={"spam": 0}))
    assert model.predict(TEXTS).shape == (2, 1)


def test_the_probabilities_are_those_of_the_sigmoid_of_transformers(tmp_path):
    kf.WordPiece([f"w{i}" for i in range(252)] + ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]).save(tmp_path)
    golden = np.load(Path(__file__).parent / "golden" / "folders.npz")["any labels/logits"]
    model = kf.Classifier.from_pretrained(Variant("BertForSequenceClassification", MULTI_LABEL).write(tmp_path))
    inputs = {"token_ids": IDS, "padding_mask": MASK, "segment_ids": np.zeros_like(IDS)}
    np.testing.assert_allclose(model.predict(inputs, verbose=0), 1 / (1 + np.exp(-golden)), rtol=1e-4, atol=1e-5)


def test_what_is_served_gives_them_too(multi_label):
    model = kf.Classifier.from_pretrained(multi_label)
    served, expected = ServedClassifier(model), model.predict(TEXTS)
    answers = served.signatures()["serving_default"](text=tf.constant(TEXTS))
    np.testing.assert_allclose(answers["probabilities"], expected, rtol=0, atol=1e-6)
    assert [label.decode() for label in answers["label"].numpy()] == [model.labels[i] for i in expected.argmax(axis=1)]
    assert served.description()["multi_label"] is True


def test_the_command_names_all_labels_that_are_likelier_than_not(multi_label, capsys):
    assert main(["predict", str(multi_label), *TEXTS]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == TEXTS
    for answer in answers:
        assert answer["labels"] == [label for label, value in answer["probabilities"].items() if value >= 0.5]


def test_they_are_not_trained_nor_measured_with_one_label_a_text(multi_label):
    model = kf.Classifier.from_pretrained(multi_label)
    message = f"expected a classifier of one label a text, as the data have, got one of problem_type {MULTI}"
    with pytest.raises(InputError, match=message):
        model.compile()
    batches, _ = kf.data.classification(
        (TEXTS, ["a", "b"]), tokenizer=model.tokenizer, labels=model.labels, max_length=8, split=0
    )
    model.compile(loss="binary_crossentropy", metrics=[])
    for call in (model.fit, model.evaluate):
        with pytest.raises(InputError, match=message):
            call(batches, verbose=0)


def test_a_run_s_model_that_became_one_is_not_measured(run, tmp_path):
    recipe, _ = run
    shutil.copytree(recipe.folder, tmp_path / "run")
    edited(tmp_path / "run" / "model", problem_type=MULTI)
    with pytest.raises(InputError, match=f"got one of problem_type {MULTI}"):
        evaluate_run(tmp_path / "run", [recipe.data.train])


@pytest.mark.parametrize(("problem", "wanted"), [(MULTI, False), (None, True)])
def test_the_other_kind_of_head_starts_fresh_where_it_is_asked_for(problem, wanted, folder, caplog):
    edited(folder, problem_type=problem)
    model = Classifier.from_pretrained(folder, ["a", "b", "c"], multi_label=wanted)
    assert model.multi_label is wanted
    [record] = caplog.records
    assert re.search("has a classifier of problem_type .*: a fresh classifier takes its place", record.message)


def test_a_run_on_one_label_a_text_starts_a_fresh_head(recipe, classifier, tmp_path, caplog):
    classifier(dim=32, mlp_dim=32).save_pretrained(tmp_path / "model")
    edited(tmp_path / "model", problem_type=MULTI)
    start = {"data": {"split": 0.0}, "model": {"from_pretrained": tmp_path / "model"}, "train": {"epochs": 1}}
    figures = train(recipe(tmp_path, **start))
    assert f"has a classifier of problem_type {MULTI}: a fresh classifier takes its place" in caplog.text
    assert not kf.Classifier.from_pretrained(figures["model"]).multi_label
