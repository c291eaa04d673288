"""Objects of a wrong kind are refused where they are passed in, and data say what they are in one line."""

import io
from contextlib import redirect_stdout

import keras
import numpy as np
import pytest

import kerasformer as kf
from kerasformer.data.encoding import encode, unlabelled
from kerasformer.errors import InputError
from kerasformer.training.progress import LossBar

LABELLED = (["a cat", "the dog"] * 4, ["cat", "dog"] * 4)


@pytest.fixture(scope="module")
def model(classifier):
    model = classifier()
    model.compile("sgd", jit_compile=False)
    return model


@pytest.fixture(scope="module")
def batches(model):
    batches, _ = kf.data.classification(
        LABELLED, tokenizer=model.tokenizer, labels=model.labels, max_length=8, batch_size=4, split=0
    )
    return batches


def test_what_cannot_be_exported(model, tmp_path):
    several = kf.MultiHead({"animal": model, "words": kf.MaskedLM(model.backbone, model.tokenizer)})
    for what, advice in {
        several: "got one of MultiHead; pass one of its heads",
        model.backbone: "got one of Bert; train one of those on it first",
        several.heads["words"]: "got one of MaskedLM; train one of those on it first",
        None: "got one of NoneType; train one of those on it first",
    }.items():
        with pytest.raises(InputError, match=f"expected a model of Classifier or CausalLM to export, {advice}"):
            kf.export(what, tmp_path / "export")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("heads", [None, [], 3, "topic", {3: None}, {"topic": None}])
def test_heads_that_are_none(heads):
    with pytest.raises(InputError, match="expected"):
        kf.MultiHead(heads)


NO_PATHS = [None, 3, "", b"x", ["a"]]


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_paths_that_are_none(model, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (
        kf.Classifier.from_pretrained,
        kf.Bert.from_pretrained,
        kf.WordPiece.from_folder,
        kf.BPE.from_folder,
        model.save_pretrained,
        model.backbone.save_pretrained,
        model.tokenizer.save,
        kf.callbacks.TensorBoard,
        kf.check,
        kf.serve,
        lambda path: kf.export(model, path),
    ):
        with pytest.raises(InputError, match="expected the path of a folder, got "):
            call(path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("files", [None, 3, [None], [["a"]]], ids=repr)
def test_files_of_text_that_are_none(model, files):
    with pytest.raises(InputError, match="expected files as a sequence of paths, got "):
        kf.data.language_modelling(files, tokenizer=model.tokenizer)


@pytest.mark.parametrize("backbone", [None, "bert", keras.layers.Dense(2)], ids=repr)
@pytest.mark.parametrize("head", [lambda b: kf.Classifier(b, ["a", "b"]), kf.CausalLM, kf.MaskedLM])
def test_backbones_that_are_none(head, backbone):
    with pytest.raises(InputError, match="expected a backbone, such as a kf.Bert or a kf.GPT, got "):
        head(backbone)


@pytest.mark.parametrize("config", [None, {"vocab_size": 3}], ids=repr)
def test_configs_that_are_none(config):
    with pytest.raises(InputError, match="expected a BertConfig, got "):
        kf.Bert(config)


@pytest.mark.parametrize("labels", [None, 3, "ab"], ids=repr)
def test_labels_that_are_none(model, labels):
    with pytest.raises(InputError, match="expected a list of labels, got "):
        kf.Classifier(model.backbone, labels)


def test_callbacks_and_their_data(model, batches):
    wrong = {
        "expected labelled Batches to evaluate on, got a NoneType": lambda: kf.callbacks.Evaluation(None),
        "expected labelled Batches to evaluate on, got unlabelled Batches": lambda: kf.callbacks.Evaluation(
            unlabelled(["a cat"], tokenizer=model.tokenizer)
        ),
        "expected Windows or MaskedWindows to evaluate on, got a Batches": lambda: kf.callbacks.Perplexity(batches),
        "expected a kf.callbacks.Evaluation as evaluation, got a Batches": lambda: kf.callbacks.TensorBoard(
            "b", batches
        ),
        "expected a tokenizer, as model.tokenizer, got a NoneType": lambda: kf.data.classification(
            LABELLED, tokenizer=None, split=0
        ),
        "expected learning_rate as a number of at least 0, got None": lambda: kf.optimizers.adamw(None, steps=3),
        "expected decay as a number above 0, got None": lambda: kf.tuning.rate_shares(model, None),
        "expected steps as a number above 0, got None": lambda: kf.optimizers.adamw(1e-3, steps=None),
        "expected a schedule of linear, .* got 'line'": lambda: kf.optimizers.adamw(1e-3, steps=3, schedule="line"),
        "expected accumulate as a whole number of at least 1, got None": lambda: model.compile("sgd", accumulate=None),
        "expected an optimizer, got None": lambda: kf.Classifier(model.backbone, ["a", "b"]).compile(None),
        "expected jit_compile as True, False or \"auto\", got 'yes'": lambda: model.compile("sgd", jit_compile="yes"),
        "expected no y beside Batches": lambda: model.fit(batches, [0, 1]),
        "expected no sample_weight beside Batches": lambda: model.evaluate(batches, sample_weight=[0, 1]),
    }
    for message, call in wrong.items():
        with pytest.raises(InputError, match=message):
            call()


def test_data_say_what_they_are(model, batches):
    examples = kf.data.read_examples(LABELLED)
    assert repr(batches) == "Batches(8 texts, 2 labels, max_length=8, batch_size=4)"
    assert repr(examples) == "Examples(8 texts, labelled)"
    assert repr(encode(examples, tokenizer=model.tokenizer, max_length=8, batch_size=2)) == (
        "Batches(8 texts, max_length=8, batch_size=2)"
    )


def test_the_bar_shows_loss_and_metrics_alone(model, batches):
    shown = io.StringIO()
    with redirect_stdout(shown):
        history = model.fit(batches, verbose=2).history
    assert "loss: " in shown.getvalue() and "accuracy: " in shown.getvalue()
    assert {"gradient_norm", "tokens", "step_loss"} <= history.keys()
    for name in ("gradient_norm", "tokens", "step_loss", "positions", "rows"):
        assert name not in shown.getvalue()
    own = keras.callbacks.ProgbarLogger()
    with redirect_stdout(shown):
        model.fit(batches, verbose=2, callbacks=[own])
    assert "gradient_norm" in shown.getvalue()
    assert isinstance(LossBar(), keras.callbacks.ProgbarLogger) and np.isfinite(history["loss"]).all()
