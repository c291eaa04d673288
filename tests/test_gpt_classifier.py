"""GPT as a classifier: the same data, training, folder and export as BERT, with its own tokenizer and pooling."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from exported import in_session, strings

import kerasformer as kf
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ["the cat sat", "", "a dog ran on the mat . " * 9, "犬"]


@pytest.fixture(scope="module")
def tokenizer() -> kf.BPE:
    return kf.BPE.from_folder(GOLDEN / "gpt_tiny")


@pytest.fixture(scope="module")
def trained(tokenizer):
    keras.utils.set_random_seed(0)
    random, words = np.random.default_rng(0), "the sat on mat mats a ran .".split()
    labels = random.choice(["cat", "dog"], 400)
    # A text tells of its label in one place, with words before it and after it.
    texts = [" ".join([*random.choice(words, 2), label, *random.choice(words, 3)]) for label in labels]
    sizes = {"num_layers": 1, "num_heads": 2, "dim": 32, "mlp_dim": 32, "max_length": 40, "dropout": 0.0}
    backbone = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, attention_dropout=0.0, **sizes), dtype="float32")
    model = kf.Classifier(backbone, ["cat", "dog"], tokenizer)
    train, valid = kf.data.classification(
        (texts, list(labels)), tokenizer=tokenizer, labels=model.labels, max_length=40, batch_size=8, split=0.25
    )
    model.compile(kf.optimizers.adamw(1e-2, steps=len(train) * 4))
    model.fit(train, epochs=4, verbose=0)
    return model, valid


def test_it_learns(trained):
    model, valid = trained
    [_, accuracy] = model.evaluate(valid, verbose=0)
    assert accuracy > 0.9


def test_the_folder_gives_the_same_answers(trained, tmp_path):
    model, _ = trained
    model.save_pretrained(tmp_path)
    again = kf.Classifier.from_pretrained(tmp_path, dtype="float32")
    np.testing.assert_array_equal(again.predict(TEXTS), model.predict(TEXTS))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["GPT2ForSequenceClassification"]
    assert config["pad_token_id"] == model.tokenizer.pad_id  # how transformers finds the last real token


def test_pairs_are_told_apart_from_single_texts(trained):
    model, _ = trained
    single, pair = model.predict(["the cat sat"]), model.predict([("the cat", " sat")])
    assert not np.allclose(single, pair)


def test_the_export_answers_as_predict_does(trained, tmp_path):
    model, _ = trained
    call = in_session(kf.export(model, tmp_path / "animals"))
    answers = call("serving_default", text=strings(TEXTS))
    np.testing.assert_allclose(answers["probabilities"], model.predict(TEXTS), rtol=0, atol=1e-5)
    assert len(call("serving_default", text=strings([]))["label"]) == 0
