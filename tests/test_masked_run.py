"""Masked language models: their loss, their training, and the recipe from text files to a classifier that goes on."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasformer as kf
from kerasformer.cli import main
from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, MaskedData, MaskedRecipe, TextTrain
from kerasformer.data.documents import Texts
from kerasformer.data.prepare import prepare
from kerasformer.errors import InputError
from kerasformer.models.heads import MaskedLM, from_folder
from kerasformer.text.vocabulary import train_char, train_wordpiece
from kerasformer.training import run
from kerasformer.training.train import evaluate_run, train

GOLDEN = Path(__file__).parent / "golden"
PIPELINES = Path(__file__).parent.parent / "pipelines"
# Lines of one word each: those that are seen tell the hidden ones, of which a guess without them costs ln 8 = 2.08.
TEXT = "".join(f"{word} " * 60 + "\n" for word in "the cat sat on a mat dog ran".split())


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "bert_masked.npz")


@pytest.fixture(scope="module")
def inputs(golden) -> dict[str, np.ndarray]:
    return {name: golden[name] for name in kf.Bert.input_names}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT * 10)
    return path


def pretrained(**options) -> kf.MaskedLM:
    model = kf.MaskedLM.from_pretrained(GOLDEN / "bert_masked")
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False, **options)
    return model


def without_dropout() -> kf.MaskedLM:
    """Of one layer alone."""
    trained = pretrained()
    config = dataclasses.replace(trained.backbone.config, num_layers=1, dropout=0.0, attention_dropout=0.0)
    model = kf.MaskedLM(kf.Bert(config), trained.tokenizer)
    weights = {weight.path.partition("/")[2]: weight for weight in trained.weights}
    for weight in model.weights:
        weight.assign(weights[weight.path.partition("/")[2]])
    return model


def test_the_loss_of_rows_with_padding_is_that_of_transformers(golden, inputs):
    found = pretrained().evaluate(inputs, golden["labels"], verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(float(golden["loss"]), rel=1e-5)  # the mean over what is to be predicted
    logits = pretrained(loss=kf.losses.Crossentropy()).evaluate(inputs, golden["labels"], verbose=0)
    assert logits == pytest.approx(float(golden["loss"]), rel=1e-5)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_logits(golden, inputs, jit):
    labels = tf.constant(golden["labels"])
    found = []
    for options in ({"jit_compile": jit}, {"loss": kf.losses.Crossentropy(), "jit_compile": False}):
        model = without_dropout()
        model.compile("sgd", **options)
        weights = model.weights_of(labels, None)
        assert float(tf.reduce_sum(weights)) == (golden["labels"] >= 0).sum()
        loss, _, gradients = model._gradients({n: tf.constant(v) for n, v in inputs.items()}, labels, weights)
        found.append([loss, *gradients])
    assert len(found[0]) == 1 + len(model.trainable_variables)
    for value, expected in zip(*found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_with_nothing_to_predict_changes_nothing(golden, inputs):
    model = pretrained()
    before = model.get_weights()
    model.fit(inputs, np.full_like(golden["labels"], -1), epochs=1, verbose=0)
    for value, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_texts_of_one_row_each_are_masked_and_learned_from():
    model = pretrained()
    texts = ["the cat sat on the mat .", "a dog ran .", "dogs ran"]
    batches = kf.data.Batches(model.tokenizer.encode(texts, max_length=12), model.tokenizer, 12, batch_size=3)
    masking = kf.data.Masking(model.tokenizer, share=0.5)

    def mask(step, inputs):
        token_ids, labels = masking(inputs["token_ids"], 3 * step + tf.range(3, dtype=tf.int64))
        return inputs | {"token_ids": token_ids}, labels

    [(inputs, labels)] = batches.dataset().enumerate().map(mask).as_numpy_iterator()
    assert not (labels[inputs["padding_mask"] == 0] >= 0).any() and inputs["padding_mask"].sum() == 9 + 6 + 5
    assert (labels >= 0).sum(axis=1).tolist() == [4, 2, 2]  # half of 7, 4 and 3 tokens, to even
    logits = np.array(model(inputs), np.float64)
    losses = (
        np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0]
    )
    found = model.evaluate(batches.dataset().enumerate().map(mask), verbose=0)
    assert found == pytest.approx(losses[labels >= 0].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("head", "folder", "said"),
    [
        (kf.CausalLM, "gpt_tiny", "token_ids, padding_mask to predict the logits of, got a list; call generate to"),
        (
            kf.MaskedLM,
            "bert_masked",
            r"token_ids, segment_ids, .* got a list; call model.tokenizer.in_graph\(\)\(texts\)",
        ),
    ],
)
def test_texts_are_not_what_predict_takes(head, folder, said):
    model = head.from_pretrained(GOLDEN / folder)
    with pytest.raises(InputError, match=f"expected a dict of {said}"):
        model.predict(["the cat"])
    inputs = model.tokenizer.in_graph()(["a", "cat " * 2000])  # cut to what the model takes
    assert model.predict(inputs, verbose=0).shape == (2, inputs["token_ids"].shape[1], model.tokenizer.vocab_size)


def test_training_in_python(text, tmp_path):
    tokenizer = train_wordpiece(lambda: [text.read_text()], vocab_size=40)
    data = {"tokenizer": tokenizer, "max_length": 20, "batch_size": 8}
    train, valid = kf.data.masked_language_modelling(text, **data, whole_words=True)
    config = kf.BertConfig(
        vocab_size=tokenizer.vocab_size, num_layers=1, num_heads=2, dim=16, mlp_dim=32, max_length=20, dropout=0.0
    )
    model = kf.MaskedLM(kf.Bert(config), tokenizer)
    model.compile(kf.optimizers.adamw(1e-2, steps=4), jit_compile=False)
    history = model.fit(train, validation_data=valid, steps_per_epoch=2, epochs=2, verbose=0)
    assert history.history["val_loss"][-1] < math.log(tokenizer.vocab_size)
    assert model.evaluate(valid, verbose=0) == pytest.approx(history.history["val_loss"][-1])  # the same masks
    model.save_pretrained(tmp_path)
    assert from_folder(tmp_path).backbone.config.vocab_size == tokenizer.vocab_size
    with pytest.raises(InputError, match="expected windows of at most the model's 20 tokens, got 30"):
        model.fit(kf.data.masked_language_modelling(text, **data | {"max_length": 30})[0])


@pytest.fixture(scope="module")
def commands(text, tmp_path_factory):
    """A run through the command line: its folder, and what `train` and `evaluate` printed."""
    runs = tmp_path_factory.mktemp("runs")
    flags = (
        "--model.preset None --model.num_layers 1 --model.num_heads 2 --model.dim 32 --model.dropout 0 "
        "--data.tokenizer wordpiece --data.vocab_size 40 --data.max_length 16 --data.batch_size 16 "
        "--train.steps 80 --train.evaluate_every 40 --train.steps_per_execution 4 --train.learning_rate 2e-2 "
        "--train.beta_2 0.95 --train.compile none --train.precision float32 --name words"
    )
    arguments = ["train", str(PIPELINES / "bert_pretrain.py"), "--data.train", str(text), "--runs", str(runs)]
    assert main([*arguments, *flags.split()]) == 0
    return runs / "words"


def test_a_recipe_trains_from_scratch_and_logs(commands):
    lines = [json.loads(line) for line in (commands / "metrics.jsonl").read_text().splitlines()]
    first, last = [line for line in lines if "evaluation" in line]
    assert [first["step"], last["step"]] == [40, 80]
    assert last["val_loss"] < first["val_loss"] and last["val_loss"] < 1.3
    assert last["val_perplexity"] == pytest.approx(math.exp(last["val_loss"])) and "val_bits_per_byte" not in last
    names = {"recipe.json", "metrics.jsonl", "metrics.csv", "tensorboard", "checkpoints", "model", "figures.json"}
    assert {path.name for path in commands.iterdir()} == names
    assert run.kind_of(commands) is MaskedRecipe
    model = MaskedLM.from_pretrained(commands / "model")
    assert model.backbone.config.max_length == 16 and model.tokenizer.vocab_size <= 40


def test_the_run_is_evaluated_on_other_text(commands, text, capsys):
    assert main(["evaluate", str(commands), "--data", str(text)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"loss", "perplexity"} and figures["loss"] < 1.5
    assert figures == evaluate_run(commands, (text,))  # the same masks


def test_a_classifier_goes_on_from_the_run(commands, animals, tmp_path, capsys):
    arguments = [
        "--model.from_pretrained",
        str(commands / "model"),
        "--data.train",
        str(animals),
        "--train.epochs",
        "1",
    ]
    settings = ["--data.max_length", "16", "--train.compile", "none", "--runs", str(tmp_path)]
    assert main(["train", str(PIPELINES / "bert_classify.py"), "--name", "pets", *arguments, *settings]) == 0
    assert '"accuracy"' in capsys.readouterr().out
    assert from_folder(tmp_path / "pets/model").labels == ["cat", "dog"]


def test_training_goes_on_from_a_checkpoint_and_a_prepared_text(commands, text, tmp_path):
    tokenizer = MaskedLM.from_pretrained(commands / "model").tokenizer
    prepare(Texts([text], documents="lines"), tmp_path / "prepared", tokenizer=tokenizer)
    recipe = MaskedRecipe(
        "more",
        MaskedData((tmp_path / "prepared",), max_length=16, batch_size=16, whole_words=True),
        LanguageModel(commands / "model"),
        TextTrain(steps=2, learning_rate=1e-4, compile="none", precision="bfloat16", optimizer="muon", peak_tflops=1.0),
        runs=tmp_path / "runs",
    )
    assert train(recipe)["val_loss"] < 1.5
    other = tmp_path / "other.txt"
    other.write_text("zebra " * 300)
    prepare(Texts([other]), tmp_path / "foreign", tokenizer=train_wordpiece(lambda: [other.read_text()], vocab_size=30))
    foreign = dataclasses.replace(
        recipe, name="no", data=dataclasses.replace(recipe.data, train=(tmp_path / "foreign",))
    )
    with pytest.raises(InputError, match="expected a text prepared with the model's tokenizer"):
        train(foreign)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"data": {"tokenizer": None}},
            "expected a tokenizer for text files, got none; pass --data.tokenizer wordpiece",
        ),
        ({"data": {"tokenizer": "bpe"}}, "bpe: expected tokenizer.json or vocab.txt, got neither"),
        ({"data": {"mask_share": 0.0}}, "expected --data.mask_share as a share above 0 and below 1, got 0.0"),
        ({"data": {"max_length": 2}}, "expected --data.max_length as a whole number of at least 3, got 2"),
        ({"data": {"vocab_size": 9}}, "vocab_size: expected at least"),
        ({"model": {"preset": "gpt2"}}, "expected one of the presets bert_tiny_uncased"),
        ({"model": {"from_pretrained": GOLDEN / "gpt_tiny"}}, "expected a model with the task MaskedLM, got a GPT"),
    ],
)
def test_bad_input_writes_nothing(text, tmp_path, parts, message):
    recipe = MaskedRecipe(
        "bad",
        MaskedData((text,), tokenizer="wordpiece", vocab_size=90, max_length=16),
        LanguageModel(num_layers=1, num_heads=2, dim=16),
        TextTrain(steps=2),
        runs=tmp_path / "runs",
    )
    changed = {part: dataclasses.replace(getattr(recipe, part), **values) for part, values in parts.items()}
    with pytest.raises(InputError) as caught:
        train(dataclasses.replace(recipe, **changed))
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_text_of_another_kind_of_tokens_is_refused(text, tmp_path):
    prepare(Texts([text]), tmp_path / "bytes", tokenizer=train_char([TEXT]))
    prepare(Texts([text]), tmp_path / "words", tokenizer=train_wordpiece(lambda: [text.read_text()], vocab_size=40))
    sizes, two = LanguageModel(num_layers=1, num_heads=2, dim=16), TextTrain(steps=2)
    masked = MaskedRecipe("a", MaskedData((tmp_path / "bytes",), max_length=9), sizes, two, runs=tmp_path / "runs")
    with pytest.raises(InputError, match="expected a WordPiece tokenizer, whose .MASK. hides tokens, got a BPE"):
        train(masked)
    causal = LanguageRecipe("b", LanguageData((tmp_path / "words",), max_length=9), sizes, runs=tmp_path / "runs")
    with pytest.raises(InputError, match="expected a BPE tokenizer for a GPT, got a WordPiece"):
        train(dataclasses.replace(causal, train=dataclasses.replace(causal.train, steps=2)))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_two_replicas_learn_what_one_does(text, tmp_path):
    """Each of them reads its half of the batches in two parts."""
    flags = (
        "--model.preset None --model.num_layers 1 --model.num_heads 2 --model.dim 16 --model.dropout 0 "
        "--data.tokenizer wordpiece --data.vocab_size 40 --data.max_length 16 --data.batch_size 8 "
        "--train.steps 3 --train.evaluate_every 0 --train.learning_rate 1e-2 --train.compile none "
        "--train.precision float32 --runs runs"
    )
    losses = {}
    ways = {"one": "--train.strategy one", "two": "--train.strategy mirrored --train.devices 2 --train.accumulate 2"}
    for name, strategy in ways.items():
        arguments = f"train {PIPELINES}/bert_pretrain.py --name {name} --data.train {text} {flags} {strategy}".split()
        command = [sys.executable, "-m", "kerasformer", *arguments]
        environment = os.environ | {"PYTHONPATH": str(PIPELINES.parent)}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        lines = (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [record["step_loss"] for record in map(json.loads, lines) if "step_loss" in record]
    assert len(losses["one"]) == 3
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)
