"""Several heads on one backbone: a step, its sums over micro-batches and replicas, its logs and its files."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import Forked, run_python

from kerasformer.data.encoding import classification
from kerasformer.errors import InputError
from kerasformer.models.bert.config import BertConfig
from kerasformer.models.bert.model import Bert
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.models.heads import from_folder
from kerasformer.text.wordpiece import WordPiece
from kerasformer.training.losses import Crossentropy
from kerasformer.training.multihead import MultiHead
from kerasformer.training.strategies import strategy
from kerasformer.training.tasks import CausalLM, Classifier, MaskedLM

RATE = 0.1
LOSS_WEIGHTS = {"topic": 1.5, "words": 0.3}
ROWS, LENGTH = 4, 6
SIZES = {"vocab_size": 15, "num_layers": 1, "num_heads": 2, "dim": 8, "max_length": 8, "initializer_range": 0.3}
NUMBERS = np.random.default_rng(0)
INPUTS = {
    "token_ids": NUMBERS.integers(5, 15, (ROWS, LENGTH)).astype(np.int32),
    "segment_ids": np.zeros((ROWS, LENGTH), np.int32),
    "padding_mask": (np.arange(LENGTH) < [[6], [3], [5], [2]]).astype(np.int32),
}
# Each half of the rows, and so each micro-batch, has another share of each head's weight.
WORDS = np.where(NUMBERS.random((ROWS, LENGTH)) < [[0.9], [0.6], [0.2], [0.2]], INPUTS["token_ids"], -1)
LABELS = {"topic": np.array([0, 1, -1, 1], np.int32), "words": WORDS.astype(np.int32)}
WEIGHTS = {
    "topic": np.array([1.0, 0.5, 7.0, 4.0], np.float32),
    "words": NUMBERS.uniform(0.1, 3.0, (ROWS, LENGTH)).astype(np.float32),
}


def bert() -> Bert:
    keras.utils.set_random_seed(0)
    return Bert(BertConfig(**SIZES, mlp_dim=16, dropout=0.0, attention_dropout=0.0))


def make(**settings) -> MultiHead:
    backbone = bert()
    model = MultiHead({"topic": Classifier(backbone, ["cat", "dog"]), "words": MaskedLM(backbone)})
    model.compile(keras.optimizers.SGD(RATE), **{"loss_weights": LOSS_WEIGHTS} | settings)
    return model


def fit(model: MultiHead, **settings) -> dict[str, float]:
    """What a step on all rows logs."""
    given = {"sample_weight": WEIGHTS, "batch_size": ROWS, "verbose": 0, "shuffle": False} | settings
    return {name: values[-1] for name, values in model.fit(**{"x": INPUTS, "y": LABELS} | given).history.items()}


@pytest.fixture(scope="module")
def compiled():
    model = make()
    return model, model.get_weights()


def by_hand(model: MultiHead) -> tuple[dict[str, float], list[np.ndarray]]:
    """The losses, and the weights after a step of SGD, in plain TensorFlow: one forward pass for each head."""
    losses = {}
    with tf.GradientTape() as tape:
        for name, head in model.heads.items():
            known = LABELS[name] >= 0
            logits = head(INPUTS, training=True)[known]
            crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS[name][known], logits)
            weights = WEIGHTS[name][known]
            losses[name] = tf.reduce_sum(crossentropy * weights) / weights.sum()
        total = sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items())
    variables = model.trainable_variables
    gradients = tape.gradient(total, [v.value for v in variables], unconnected_gradients="zero")
    after = [v.numpy() - RATE * tf.convert_to_tensor(g) for v, g in zip(variables, gradients, strict=True)]
    logs = {"loss": total, "step_loss": total} | {f"{name}_loss": loss for name, loss in losses.items()}
    return {name: float(value) for name, value in logs.items()}, after


def assert_weights(model: keras.Model, expected: list) -> None:
    """Float32 sums in another order."""
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6, err_msg=variable.path)


def test_a_step_is_the_one_computed_by_hand(model):
    expected, after = by_hand(model)
    logs = fit(model)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert (logs["tokens"], logs["positions"]) == (16, ROWS * LENGTH)
    assert_weights(model, after)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_micro_batches_make_the_same_step(model, jit_compile):
    divided = make(accumulate=2, jit_compile=jit_compile)
    divided.set_weights(model.get_weights())
    assert fit(divided) == pytest.approx(fit(model), rel=1e-5)
    assert_weights(divided, model.trainable_variables)


def test_two_replicas_make_the_same_step(model):
    out, err = Forked([__file__], run_python).communicate()
    assert out, err
    replicas, logs, weights, evaluated, logits = json.loads(out.splitlines()[-1])
    assert replicas == 2
    assert logs == pytest.approx(fit(model), rel=1e-5)
    assert_weights(model, weights)
    alone = model.evaluate(INPUTS, LABELS, sample_weight=WEIGHTS, batch_size=ROWS, verbose=0)
    assert evaluated == pytest.approx(alone, rel=1e-5)
    for name, expected in model.predict(INPUTS, batch_size=ROWS, verbose=0).items():
        np.testing.assert_allclose(logits[name], expected, rtol=1e-4, atol=1e-5)


def test_the_backbone_reads_the_inputs_once(monkeypatch):
    model, calls = make(run_eagerly=True, jit_compile=False), []
    read = model.backbone.call
    monkeypatch.setattr(model.backbone, "call", lambda *args, **kwargs: calls.append(1) or read(*args, **kwargs))
    inputs = {name: tf.constant(value) for name, value in INPUTS.items()}
    shares = {name: tf.where(LABELS[name] < 0, 0.0, WEIGHTS[name]) for name in LABELS}
    model.sum_gradients(inputs, {name: tf.maximum(label, 0) for name, label in LABELS.items()}, shares)
    assert len(calls) == 1


def test_evaluating_does_not_depend_on_the_batches(model):
    expected, _ = by_hand(model)
    del expected["step_loss"]
    data = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS, WEIGHTS))
    for rows in (1, 3, ROWS):
        assert model.evaluate(data.batch(rows), verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(data.batch(ROWS), verbose=0)[0] == pytest.approx(expected["loss"], rel=1e-5)


def test_a_head_of_loss_weight_0_is_seen_and_teaches_nothing(model):
    watching = make(loss_weights={"words": 0}, jit_compile=False)
    watching.set_weights(model.get_weights())
    expected, _ = by_hand(model)
    before = watching.heads["words"].head.get_weights()
    logs = fit(watching)
    assert logs["words_loss"] == pytest.approx(expected["words_loss"], rel=1e-5)
    assert logs["loss"] == logs["topic_loss"] == pytest.approx(expected["topic_loss"], rel=1e-5)
    for old, new in zip(before, watching.heads["words"].head.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_step_without_labels_of_a_head_learns_from_the_others(model):
    logs = fit(model, sample_weight=WEIGHTS | {"topic": np.zeros(ROWS, np.float32)})
    assert logs["topic_loss"] == 0
    assert logs["loss"] == pytest.approx(LOSS_WEIGHTS["words"] * logs["words_loss"])
    assert np.isfinite(logs["gradient_norm"]) and logs["gradient_norm"] > 0


def test_a_head_may_have_another_loss(model):
    smooth = make(loss={"words": Crossentropy(label_smoothing=0.2)}, jit_compile=False)
    smooth.set_weights(model.get_weights())
    found = smooth.evaluate(INPUTS, LABELS, sample_weight=WEIGHTS, batch_size=ROWS, verbose=0, return_dict=True)
    known = LABELS["words"] >= 0
    losses = Crossentropy(label_smoothing=0.2).call(LABELS["words"][known], model(INPUTS)["words"][known])
    assert found["words_loss"] == pytest.approx(np.average(losses, weights=WEIGHTS["words"][known]), rel=1e-5)
    assert found["topic_loss"] == pytest.approx(by_hand(model)[0]["topic_loss"], rel=1e-5)


def test_each_head_is_written_to_its_folder(bert_tiny, tmp_path):
    backbone, tokenizer = bert(), WordPiece.from_folder(bert_tiny)
    heads = {"topic": Classifier(backbone, ["cat", "dog"], tokenizer), "words": MaskedLM(backbone, tokenizer)}
    model = MultiHead(heads)
    model.save_pretrained(tmp_path)
    logits = model.predict(INPUTS, verbose=0)
    assert {path.name for path in tmp_path.iterdir()} == set(logits) == {"topic", "words"}
    for name, expected in logits.items():
        np.testing.assert_allclose(from_folder(tmp_path / name)(INPUTS), expected, rtol=1e-5, atol=1e-5)


def test_a_backbone_that_predicts_next_tokens_may_have_two_heads():
    keras.utils.set_random_seed(0)
    backbone = GPT(GPTConfig(**SIZES, dropout=0.0))
    model = MultiHead({"topic": Classifier(backbone, ["cat", "dog"]), "next": CausalLM(backbone)})
    model.compile(keras.optimizers.SGD(RATE), jit_compile=False)
    inputs = {name: INPUTS[name] for name in model.backbone.input_names}
    labels = {"topic": LABELS["topic"], "next": LABELS["words"]}
    logs = model.fit(inputs, labels, batch_size=ROWS, epochs=3, verbose=0).history
    assert logs["loss"] == pytest.approx(np.add(logs["topic_loss"], logs["next_loss"]), rel=1e-5)
    assert logs["loss"][0] > logs["loss"][1] > logs["loss"][2]


def test_one_head_is_scaled_by_a_number(model):
    head, labels = model.heads["topic"], np.abs(LABELS["topic"])
    with tf.GradientTape() as tape:
        half = 0.5 * tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, head(INPUTS, training=True)))
    gradients = tape.gradient(half, [v.value for v in head.trainable_variables])
    after = [
        v.numpy() - RATE * tf.convert_to_tensor(g) for v, g in zip(head.trainable_variables, gradients, strict=True)
    ]
    head.compile(keras.optimizers.SGD(RATE), loss_weights=0.5, jit_compile=False)
    assert head.evaluate(INPUTS, labels, verbose=0)[0] == pytest.approx(float(half), rel=1e-5)
    logs = head.fit(INPUTS, labels, batch_size=ROWS, verbose=0).history
    assert logs["loss"] == logs["step_loss"] == pytest.approx([float(half)], rel=1e-5)
    assert_weights(head, after)


# Bad input


@pytest.mark.parametrize("loss_weights", [[0.5], {"topic": 1.0}, 0, -1.0], ids=str)
def test_one_head_takes_one_number(loss_weights, model):
    with pytest.raises(InputError, match="expected loss_weights as one number above 0"):
        model.heads["topic"].compile("sgd", loss_weights=loss_weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_weights": {"sentiment": 1.0}}, "expected loss_weights by head, of topic, words, got"),
        ({"loss_weights": 0.5}, "expected loss_weights by head"),
        ({"loss_weights": {"words": -1}}, "expected loss_weights of 0 or more, got {'words': -1}"),
        ({"loss": {"sentiment": Crossentropy()}}, "expected loss by head"),
        ({"metrics": ["accuracy"]}, "expected no metrics"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_compiled_is_by_head(settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)


def test_heads_are_of_one_backbone():
    backbone = bert()
    with pytest.raises(InputError, match="expected heads of one backbone, got 2 backbones"):
        MultiHead({"topic": Classifier(backbone, ["cat", "dog"]), "words": MaskedLM(bert())})
    with pytest.raises(InputError, match="expected at least one head"):
        MultiHead({})
    with pytest.raises(InputError, match="got 'step'; rename it"):
        MultiHead({"step": MaskedLM(backbone)})
    with pytest.raises(InputError, match="expected a Classifier, MaskedLM or CausalLM as 'topic', got <Bert"):
        MultiHead({"topic": backbone})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"topic": LABELS["topic"]}, "expected labels of each head, got none of words"),
        (LABELS | {"sentiment": LABELS["topic"]}, "expected labels by head, of topic, words, got .*sentiment"),
        (LABELS["topic"], "expected labels by head, of topic, words, got a"),
    ],
    ids=["missing", "unknown", "no dict"],
)
def test_labels_are_by_head(model, labels, message):
    data = tf.data.Dataset.from_tensor_slices((INPUTS, labels)).batch(ROWS)
    with pytest.raises(InputError, match=message):
        model.evaluate(data, verbose=0)


@pytest.mark.parametrize(("name", "label", "count"), [("topic", 2, 2), ("words", 15, 15)])
def test_labels_are_of_the_heads(model, name, label, count):
    before, labels = model.get_weights(), LABELS | {name: LABELS[name].copy()}
    labels[name].flat[3] = label
    data = tf.data.Dataset.from_tensor_slices((INPUTS, labels)).batch(ROWS)
    said = f"expected labels of {name} below {count}"
    with pytest.raises(InputError, match=f"{said}, got {label}; give it ids that it has"):
        fit(model, x=INPUTS, y=labels)
    with pytest.raises(InputError, match=said):
        fit(model, validation_data=(INPUTS, labels, WEIGHTS))
    with pytest.raises(InputError, match=said):
        model.evaluate(INPUTS, labels, verbose=0)
    with pytest.raises(InputError, match=f"{said}, got {label}; give it ids that it has"):
        model.fit(data, verbose=0, shuffle=False)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_data_of_a_single_head_are_refused(model, animals, bert_tiny):
    tokenizer = WordPiece.from_folder(bert_tiny)
    batches, _ = classification(animals, tokenizer=tokenizer, max_length=8, batch_size=4)
    message = "expected the backbone's inputs and labels by head, topic, words, got Batches, which are of a single head"
    for use in (model.fit, model.evaluate, lambda data: fit(model, validation_data=data)):
        with pytest.raises(InputError, match=message):
            use(batches)


if __name__ == "__main__":  # a process of its own, for the CPU can be made into two devices only before its first use
    mirrored = strategy("mirrored", devices=2)
    with mirrored.scope():
        replicated = make(accumulate=2)
    step_logs = fit(replicated)
    after_step = [tf.convert_to_tensor(variable).numpy().tolist() for variable in replicated.trainable_variables]
    losses = replicated.evaluate(INPUTS, LABELS, sample_weight=WEIGHTS, batch_size=ROWS, verbose=0)
    predicted = replicated.predict(INPUTS, batch_size=ROWS, verbose=0)
    predicted = {name: rows.tolist() for name, rows in predicted.items()}
    print(json.dumps([mirrored.num_replicas_in_sync, step_logs, after_step, losses, predicted]))
