"""Keras's own ways to keep and copy a model: `.keras` files, checkpoints of them, clones, copies and pickles."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasformer as kf
from kerasformer.layers.rows import Int8Policy
from kerasformer.lazy import register_with_keras
from kerasformer.training.schedules import SCHEDULES
from kerasformer.training.tuning import freeze

GOLDEN = Path(__file__).parent / "golden"
# Keras 3.15 converts variables in a way that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def multi_head() -> kf.MultiHead:
    backbone, tokenizer = kf.Bert.from_pretrained(GOLDEN / "bert_tiny"), kf.WordPiece.from_folder(GOLDEN / "bert_tiny")
    return kf.MultiHead({"animal": kf.Classifier(backbone, ["cat", "dog"], tokenizer), "words": kf.MaskedLM(backbone)})


def untied() -> kf.CausalLM:
    sizes = {"vocab_size": 20, "num_layers": 1, "num_heads": 2, "dim": 8, "mlp_dim": 12, "max_length": 16}
    return kf.CausalLM(kf.GPT(kf.GPTConfig(**sizes, tie_embeddings=False)), generation_config={"do_sample": True})


MODELS = {
    "Bert": lambda: kf.Bert.from_pretrained(GOLDEN / "bert_tiny"),
    "GPT": lambda: kf.GPT.from_pretrained(GOLDEN / "gpt_tiny"),
    "Classifier": lambda: kf.Classifier.from_pretrained(GOLDEN / "bert_tiny", dtype="mixed_bfloat16"),
    "several labels": lambda: kf.Classifier(kf.Bert.from_pretrained(GOLDEN / "bert_tiny"), ["a"], multi_label=True),
    "MaskedLM": lambda: kf.MaskedLM.from_pretrained(GOLDEN / "bert_masked"),
    "CausalLM": lambda: kf.CausalLM.from_pretrained(GOLDEN / "gpt_tiny"),
    "untied": untied,
    "MultiHead": multi_head,
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
# The others are copied in the same way, by what the test of files asks of each.
COPIED = {"Classifier", "untied", "MultiHead"}
each_to_copy = pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name, marks=() if name in COPIED else pytest.mark.slow) for name, make in MODELS.items()],
)


def outputs(model) -> dict[str, np.ndarray]:
    ids = np.array([[2, 5, 6, 3]])
    given = model(dict.fromkeys(("token_ids", "segment_ids", "padding_mask"), ids // 9 * 0) | {"token_ids": ids})
    given = given if isinstance(given, dict) else {"": given}
    return {name: keras.ops.convert_to_numpy(value) for name, value in given.items()}


def assert_equal(ours, theirs) -> None:
    assert type(ours) is type(theirs) and ours.dtype_policy.name == theirs.dtype_policy.name
    for (name, value), wanted in zip(outputs(ours).items(), outputs(theirs).values(), strict=True):
        np.testing.assert_array_equal(value, wanted, err_msg=name)


@every_model
def test_a_file_holds_the_whole_model(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(again, model)
    assert [v.path for v in again.weights] == [v.path for v in model.weights]
    for name in ("labels", "text_pair", "multi_label", "generation_config"):
        assert getattr(again, name, None) == getattr(model, name, None)
    if tokenizer := getattr(model, "tokenizer", None):
        assert again.tokenizer.encode(["the cat sat."], max_length=8).token_ids.tolist() == (
            tokenizer.encode(["the cat sat."], max_length=8).token_ids.tolist()
        )
        assert (again.tokenizer.max_length, again.tokenizer.max_positions) == (
            tokenizer.max_length,
            tokenizer.max_positions,
        )


@each_to_copy
def test_copies_and_pickles_hold_it_too_and_a_clone_its_shapes(make):
    model = make()
    assert_equal(copy.deepcopy(model), model)
    assert_equal(pickle.loads(pickle.dumps(model)), model)
    clone = keras.models.clone_model(model)
    assert [v.shape for v in clone.weights] == [v.shape for v in model.weights]
    assert any((a != b).any() for a, b in zip(clone.get_weights(), model.get_weights(), strict=True))


def test_int8_weights_are_kept(tmp_path):
    sizes = {"vocab_size": 15, "num_layers": 1, "num_heads": 2, "dim": 8, "mlp_dim": 16, "max_length": 12}
    model = kf.Bert(kf.BertConfig(**sizes), dtype=Int8Policy("bfloat16"))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again.dtype_policy, Int8Policy)
    assert_equal(again, model)


@pytest.fixture(scope="module")
def batches(classifier):
    texts, labels = ["the cat", "a dog ran", "the mat .", "dog"] * 4, ["cat", "dog", "cat", "dog"] * 4
    model = classifier()
    return kf.data.classification(
        (texts, labels), tokenizer=model.tokenizer, labels=model.labels, max_length=8, batch_size=8, split=0
    )[0]


def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(classifier, batches, tmp_path):
    model = classifier()
    freeze(model, "embeddings")
    options = {"loss": kf.losses.Crossentropy(0.1), "metrics": ["accuracy"], "accumulate": 2, "loss_weights": 2.0}
    model.compile(kf.optimizers.adamw(1e-2, steps=6), **options, jit_compile=False)
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model.fit(batches, epochs=2, callbacks=[saved], verbose=0)
    again = keras.saving.load_model(tmp_path / "1.keras")
    assert (again.accumulate, again.loss_weight, again.loss.label_smoothing) == (2, 2.0, 0.1)
    assert [layer.trainable for layer in again.backbone.layers] == [layer.trainable for layer in model.backbone.layers]
    again.fit(batches, epochs=2, initial_epoch=1, verbose=0)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


OPTIMIZERS = ["adamw", "muon", "lamb", "adafactor", "lion", "sgd", "adamw"]


@pytest.mark.parametrize(("name", "schedule"), [*zip(OPTIMIZERS, SCHEDULES, strict=True)])
def test_optimizers_and_schedules_are_made_again_of_their_configs(name, schedule):
    made = getattr(kf.optimizers, name)(1e-2, steps=9, schedule=schedule, rate_shares={"a/kernel": 0.5})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is type(made) and again.get_config() == made.get_config()
    rates = [np.asarray(optimizer._learning_rate(3)) for optimizer in (made, again)]
    assert rates[0] == rates[1]


def test_a_language_model_s_own_loss_stays_the_one_without_logits(gpt):
    model = kf.CausalLM(gpt.backbone)
    model.compile(kf.optimizers.adamw(1e-3, steps=3))
    assert not copy.deepcopy(model).sees_logits
    model.compile(kf.optimizers.adamw(1e-3, steps=3), weighted_metrics=["accuracy"])
    assert copy.deepcopy(model).sees_logits


def test_loss_weights_of_several_heads_are_kept():
    model = multi_head()
    losses = {"animal": kf.losses.Crossentropy(0.2)}
    model.compile(kf.optimizers.adamw(1e-3, steps=3), loss=losses, loss_weights={"words": 0.5})
    again = copy.deepcopy(model)
    assert again.loss_weights == [1.0, 0.5]
    assert again.losses_by_head["animal"].label_smoothing == 0.2


def test_importing_the_package_is_enough_to_load_one(tmp_path):
    model = multi_head()
    model.compile(kf.optimizers.adamw(1e-3, steps=3))
    model.save(tmp_path / "model.keras")
    program = f"import kerasformer, keras; print(keras.saving.load_model({str(tmp_path / 'model.keras')!r}).optimizer)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "AdamW" in done.stdout


def test_so_it_is_after_keras():
    register_with_keras("after", {"Bert": "kerasformer.models.bert.model"})
    config = keras.saving.serialize_keras_object(MODELS["Bert"]()) | {"registered_name": "after>Bert"}
    assert isinstance(keras.saving.deserialize_keras_object(config), kf.Bert)
