"""The training step behind Keras's `fit`, `evaluate` and `predict`, and the choice of XLA."""

import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.data.batches import Batches
from kerasformer.data.encoding import classification
from kerasformer.errors import InputError
from kerasformer.training import compiler
from kerasformer.training.compiler import choose_jit
from kerasformer.training.losses import Crossentropy

RATE = 0.1
TEXTS = ["the cat sat on the mat .", "a dog ran .", "cats", "the dog sat on the cat s mat . a dog", "dogs ran"]
LABELS = np.array([0, 1, 0, 1, 1], np.int32)
WEIGHTS = np.array([1.0, 0.0, 2.5, 0.3, 4.0], np.float32)


@pytest.fixture(scope="module")
def compiled(classifier):
    """A model that is traced once, and the weights that it began with."""
    model = classifier()
    model.compile(keras.optimizers.SGD(RATE), Crossentropy(), jit_compile=False)
    return model, model.get_weights()


def inputs_of(model, texts=TEXTS) -> dict[str, np.ndarray]:
    batches = Batches(model.tokenizer.encode(texts, max_length=16), model.tokenizer, 16, len(texts))
    inputs = next(batches.dataset().as_numpy_iterator())
    rows = np.argsort(np.concatenate(batches.order()))
    return {name: value[rows] for name, value in inputs.items()}


class Logs(keras.callbacks.Callback):
    """Keeps what each step logs."""

    def on_train_begin(self, logs=None):
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(dict(logs))


def fit(model, **kwargs) -> list[dict[str, float]]:
    """A step an epoch, on all of TEXTS."""
    logs = Logs()
    model.fit(inputs_of(model), LABELS, batch_size=len(TEXTS), verbose=0, callbacks=[logs], **kwargs)
    return logs.steps


def step_by_hand(model, weights) -> tuple[float, float, list[np.ndarray]]:
    """Weighted mean loss, norm of its gradient, and the weights after a step of SGD: plain TensorFlow and NumPy."""
    with tf.GradientTape() as tape:
        logits = model(inputs_of(model), training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
        mean = tf.reduce_sum(losses * weights) / weights.sum()
    gradients = [
        tf.convert_to_tensor(g).numpy() for g in tape.gradient(mean, [v.value for v in model.trainable_variables])
    ]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    after = [v.numpy() - RATE * g for v, g in zip(model.trainable_variables, gradients, strict=True)]
    return float(mean), norm, after


def assert_weights(model, expected, **tolerance):
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, **tolerance, err_msg=variable.path)


# One step


@pytest.mark.parametrize(
    ("kwargs", "weights"),
    [
        ({}, np.ones(5)),
        ({"sample_weight": WEIGHTS}, WEIGHTS),
        ({"class_weight": {0: 3.0, 1: 0.5}}, np.array([3.0, 0.5])[LABELS]),
    ],
    ids=["plain", "sample_weight", "class_weight"],
)
def test_a_step_is_the_one_computed_by_hand(model, kwargs, weights):
    loss, norm, after = step_by_hand(model, weights.astype(np.float32))
    [logs] = fit(model, **kwargs)
    assert_weights(model, after, rtol=1e-5, atol=1e-6)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["step_loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    lengths = np.diff(model.tokenizer.encode(TEXTS, max_length=16).offsets)
    assert (logs["tokens"], logs["positions"], logs["rows"]) == (lengths.sum(), 5 * 16, 5)


def test_a_batch_without_weight_teaches_nothing(model):
    before = [v.numpy() for v in model.trainable_variables]
    [logs] = fit(model, sample_weight=np.zeros(5, np.float32))
    assert_weights(model, before)
    assert np.isfinite([*logs.values()]).all()
    assert logs["gradient_norm"] == logs["step_loss"] == 0


def test_the_epoch_loss_is_the_mean_over_weights_not_over_steps(model):
    model.optimizer.learning_rate = 0.0
    losses = np.array(Crossentropy().call(LABELS, model(inputs_of(model))))
    history = model.fit(inputs_of(model), LABELS, sample_weight=WEIGHTS, batch_size=2, shuffle=False, verbose=0).history
    model.optimizer.learning_rate = RATE
    assert history["loss"] == pytest.approx([(losses * WEIGHTS).sum() / WEIGHTS.sum()], rel=1e-5)


@pytest.mark.parametrize("jit", ["auto", pytest.param(True, marks=pytest.mark.slow)])
def test_every_compilation_gives_the_same_weights(classifier, jit):
    after = {}
    for mode in (False, jit):
        model = classifier()
        model.compile(keras.optimizers.SGD(RATE, momentum=0.9), Crossentropy(0.1), jit_compile=mode)
        for _ in range(3):
            model.train_step((inputs_of(model), LABELS))
        after[mode] = [v.numpy() for v in model.trainable_variables]
        assert_weights(model, after[False], rtol=1e-3, atol=1e-4)  # float32 sums in another order, three times over
    assert np.abs(after[jit][0] - classifier().get_weights()[0]).max() > 1e-2  # and they did move


def test_bfloat16_leaves_weights_in_float32_and_no_nan(classifier):
    model = classifier(dtype="mixed_bfloat16", dropout=0.1)
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9), Crossentropy(), jit_compile=False)
    assert model.backbone(inputs_of(model))["pooled"].dtype == tf.bfloat16
    before = [v.numpy() for v in model.trainable_variables]
    for logs in fit(model, epochs=3):
        assert np.isfinite([*logs.values()]).all()
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    moved = [np.abs(v.numpy() - old).max() for v, old in zip(model.trainable_variables, before, strict=True)]
    assert np.isfinite(moved).all()
    assert all(change > 0 for change, v in zip(moved, model.trainable_variables, strict=True) if v.name != "bias")
    assert model(inputs_of(model)).dtype == tf.float32


# Batches, and the rest of Keras


@pytest.fixture(scope="module")
def data(compiled, animals):
    def read(**settings):
        return classification(animals, **{"tokenizer": compiled[0].tokenizer, "max_length": 16, "seed": 3, **settings})

    return read


def test_epochs_see_their_own_order(model, data):
    batches, _ = data(split=0.2, batch_size=4)
    logs, tail = Logs(), Logs()
    model.fit(batches, epochs=3, verbose=0, callbacks=[logs])
    expected = [[batches.lengths[rows].sum() for rows in batches.order(epoch)] for epoch in range(3)]
    assert expected[0] != expected[1] != expected[2]
    assert [step["tokens"] for step in logs.steps] == sum(expected, [])
    model.fit(batches, epochs=3, initial_epoch=2, verbose=0, callbacks=[tail])
    assert [step["tokens"] for step in tail.steps] == expected[2]


def test_a_stopped_fit_can_be_followed_by_another(model, data):
    batches, _ = data(split=0)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    assert len(model.fit(batches, epochs=5, verbose=0, callbacks=[Stop()]).epoch) == 1
    assert len(model.fit(batches, epochs=2, verbose=0).epoch) == 2


def test_it_learns_with_the_metrics_callbacks_and_validation_of_keras(classifier, data):
    model, (train, valid) = classifier(dim=32, mlp_dim=32), data(split=0.25, batch_size=8)
    metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy"), keras.metrics.SparseTopKCategoricalAccuracy(2)]
    model.compile(keras.optimizers.Adam(5e-3), metrics=metrics, jit_compile=False)
    stop = keras.callbacks.EarlyStopping("accuracy", min_delta=1.0, patience=4)  # never so much better
    history = model.fit(train, epochs=9, validation_data=valid, verbose=0, callbacks=[stop]).history
    assert len(history["loss"]) == 5
    assert history["loss"][-1] < history["loss"][0] / 5
    assert history["accuracy"][-1] > 0.95
    assert history["val_accuracy"][-1] > 0.8
    assert history["sparse_top_k_categorical_accuracy"] == [1.0] * 5

    figures, truth = model.evaluate(valid, verbose=0, return_dict=True), np.array(valid.label_ids)
    assert figures == pytest.approx({name: history[f"val_{name}"][-1] for name in figures}, rel=1e-5)
    probabilities = model.predict(valid.texts)
    assert figures["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == truth).mean())
    assert figures["loss"] == pytest.approx(-np.log(probabilities[np.arange(len(truth)), truth]).mean(), rel=1e-4)


def test_the_model_takes_the_form_of_its_training_data(model, data, monkeypatch):
    (single, _), (pairs, _) = data(split=0, max_length=20), data(split=0, text_pair="text_pair")
    model.fit(pairs, verbose=0)
    assert (model.text_pair, model.tokenizer.max_length) == (True, 16)
    model.fit(single, verbose=0)
    assert (model.text_pair, model.tokenizer.max_length) == (False, 20)
    monkeypatch.setattr(model, "tokenizer", None)  # as of a model that takes ids alone
    model.fit(pairs, verbose=0)
    assert model.text_pair


def test_labels_in_another_order_are_refused(model, data):
    batches, valid = data(labels=["dog", "cat"])
    good, _ = data()
    message = (
        "expected data with the model's labels ['cat', 'dog'], got ['dog', 'cat']; "
        "pass labels=model.labels when the data is read"
    )
    for call in (model.fit, model.evaluate, lambda wrong: model.fit(good, validation_data=wrong)):
        with pytest.raises(InputError) as caught:
            call(batches)
        assert str(caught.value) == message


# Predictions


def one_by_one(model, texts, pairs=None) -> np.ndarray:
    rows = []
    for i, text in enumerate(texts):
        row = model.tokenizer.encode([text], pairs and [pairs[i]], max_length=24)
        ids = {"token_ids": row.token_ids, "segment_ids": row.segment_ids, "padding_mask": np.ones_like(row.token_ids)}
        rows.append(keras.ops.softmax(model({name: value[None] for name, value in ids.items()}))[0])
    return np.array(rows)


@pytest.fixture(scope="module")
def untrained(classifier):
    return classifier()


def test_predictions_are_in_the_order_given(untrained):
    texts = [f"the {'cat sat ' * (i % 7)}dog{' .' * (i % 3)}" for i in range(16)]
    probabilities = untrained.predict(texts)
    assert probabilities.shape == (16, 2)
    np.testing.assert_allclose(probabilities, one_by_one(untrained, texts), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(untrained.predict(texts, batch_size=7), probabilities, rtol=1e-4, atol=1e-5)


def test_pairs_and_single_strings_and_ids_are_predicted(untrained):
    pairs = [("a cat", "dogs ran on the mat"), ("the dog sat .", "a"), ("cats", "cats")]
    expected = one_by_one(untrained, *(list(column) for column in zip(*pairs, strict=True)))
    np.testing.assert_allclose(untrained.predict(pairs), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(untrained.predict(pairs[::-1]), expected[::-1], rtol=1e-4, atol=1e-5)
    single = untrained.predict("the cat sat")
    np.testing.assert_allclose(single, one_by_one(untrained, ["the cat sat"]), rtol=1e-4, atol=1e-5)
    ids = untrained.predict(inputs_of(untrained), verbose=0)
    np.testing.assert_allclose(ids, one_by_one(untrained, TEXTS), rtol=1e-4, atol=1e-5)


def test_predictions_of_shuffled_batches_are_in_their_order(untrained):
    texts = [f"the cat {'ran ' * (i % 5)}" for i in range(14)]
    batches, _ = classification(
        (texts, ["cat", "dog"] * 7), tokenizer=untrained.tokenizer, max_length=24, batch_size=4, split=0
    )
    assert np.concatenate(batches.order()).tolist() != list(range(14))
    np.testing.assert_allclose(untrained.predict(batches), one_by_one(untrained, batches.texts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("texts", [[], [3], ["a", ("a", "b")]])
def test_what_cannot_be_predicted(untrained, texts):
    with pytest.raises(InputError, match="expected texts"):
        untrained.predict(texts)


# The choice of XLA


@pytest.mark.parametrize(("mode", "expected"), [("none", False), ("xla", True)])
def test_a_chosen_mode_is_not_measured(mode, expected):
    assert choose_jit(None, None, 10**9, mode) is expected


@pytest.mark.parametrize(
    ("steps", "plain", "xla", "expected", "measured"),
    [
        (1000, (1.0, 0.5), None, "auto", [False]),  # 500 s: too short
        (10_000, (1.0, 0.5), (20.0, 0.1), True, [False, True]),
        (10_000, (1.0, 0.5), (20.0, 0.6), "auto", [False, True]),  # slower
        (2000, (1.0, 0.5), (900.0, 0.1), "auto", [False, True]),  # faster, but the compilation takes too long
    ],
)
def test_auto_weighs_the_time_saved_against_compilation(steps, plain, xla, expected, measured, data, monkeypatch):
    seen = []

    def measure(model, batch, jit, limit=None):
        seen.append(jit)
        return xla if jit else plain

    monkeypatch.setattr(compiler, "_measure", measure)
    model = SimpleNamespace(accumulate=1, distribute_strategy=tf.distribute.get_strategy())
    assert choose_jit(model, data()[0].dataset(), steps) == expected
    assert seen == measured


def test_measuring_changes_nothing_and_is_told(classifier, data, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "kerasformer")
    measure = compiler._measure
    quick = lambda model, batch, jit, **limit: measure(model, batch, jit=False, **limit)  # noqa: E731
    monkeypatch.setattr(compiler, "_measure", quick)
    model = classifier(dropout=0.1)
    model.compile("sgd", jit_compile=False)
    before = model.get_weights()
    chosen = choose_jit(model, data()[0].dataset(), steps=10**7)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert int(model.optimizer.iterations) == 0
    [record] = caplog.records
    name = "XLA" if chosen is True else "TensorFlow's own kernels"
    assert record.message.startswith(f"compile: {name} (a step takes ")
    assert "with XLA, whose compilation takes" in record.message
