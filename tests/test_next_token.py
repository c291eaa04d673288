"""The loss of next tokens and its gradients, against plain float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.training.next_token import summed_crossentropy
from kerasformer.training.tasks import CausalLM

BATCH, LENGTH, DIM, VOCAB = 3, 5, 8, 11


def by_hand(hidden, table, labels, weights, bias=0.0) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """The weighted sum of the losses, and its gradients, in float64."""
    hidden, table = hidden.astype(np.float64), table.astype(np.float64)
    weights = np.where(labels < 0, 0.0, weights)
    labels = np.maximum(labels, 0)
    logits = hidden @ table.T + bias
    logits -= logits.max(axis=-1, keepdims=True)
    total = np.exp(logits).sum(axis=-1, keepdims=True)
    probabilities, target = np.exp(logits) / total, np.eye(len(table))[labels]
    loss = (weights * (np.log(total[..., 0]) - (logits * target).sum(axis=-1))).sum()
    for_logits = weights[..., None] * (probabilities - target)
    for_table = np.einsum("btv,btd->vd", for_logits, hidden)
    return loss, for_logits @ table, for_table, for_logits.sum(axis=(0, 1))


def computed(hidden, table, labels, weights, bias=None, dtype="float32", jit=False, **settings) -> list[np.ndarray]:
    """The loss and its gradients, twice as large, as of a sum that counts double."""

    @tf.function(jit_compile=jit)
    def run(hidden, table, bias):
        sources = [hidden, table] if bias is None else [hidden, table, bias]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = 2 * summed_crossentropy(tf.cast(hidden, dtype), table, labels, weights, bias=bias, **settings)
        return loss, *tape.gradient(loss, sources)

    return [value.numpy() for value in run(tf.constant(hidden), tf.constant(table), bias)]


@pytest.fixture(scope="module")
def case():
    """Hidden states, a table, labels of which two are ignored, and weights of which one is zero."""
    random = np.random.default_rng(0)
    labels = random.integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    labels[0, 1] = labels[2, 4] = -1
    weights = random.random((BATCH, LENGTH)).astype(np.float32)
    weights[1, 1] = 0
    hidden = random.standard_normal((BATCH, LENGTH, DIM)).astype(np.float32)
    return hidden, random.standard_normal((VOCAB, DIM)).astype(np.float32), labels, weights


@pytest.mark.parametrize("chunk_logits", [1, 2 * VOCAB, 2**24])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_a_bias_and_few_labels(case, chunk_logits, jit, share):
    hidden, table, labels, weights = case
    random = np.random.default_rng(1)
    labels = np.where(random.random(labels.shape) < share, labels, -1)
    bias = random.standard_normal(VOCAB).astype(np.float32)
    expected = by_hand(hidden, table, labels, weights, bias)
    found = computed(hidden, table, labels, weights, tf.constant(bias), jit=jit, chunk_logits=chunk_logits, few=True)
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, 2 * wanted, rtol=1e-5, atol=1e-6)  # float32 against float64
    settings = {"bias": tf.constant(bias), "few": True, "gradients": False, "chunk_logits": chunk_logits}
    alone = summed_crossentropy(*map(tf.constant, (hidden, table, labels, weights)), **settings)
    np.testing.assert_allclose(alone, expected[0], rtol=1e-5)


def test_a_vocabulary_of_thousands(case, fusing):
    hidden, _, labels, weights = case
    random = np.random.default_rng(2)
    table, bias = (random.standard_normal(shape).astype(np.float32) for shape in ((5000, DIM), 5000))
    bias[100] = -1e30  # a token that cannot come
    expected = by_hand(hidden, table, labels, weights, bias)
    for value, wanted in zip(computed(hidden, table, labels, weights, tf.constant(bias)), expected, strict=True):
        np.testing.assert_allclose(value, 2 * wanted, rtol=1e-5, atol=1e-6)  # float32 against float64


@pytest.mark.parametrize("chunk_logits", [1, 2 * VOCAB, 4 * VOCAB + 3, 15 * VOCAB, 2**24])
@pytest.mark.parametrize("jit", [False, True])
def test_loss_and_gradients_are_those_by_hand(case, chunk_logits, jit):
    loss, *gradients = by_hand(*case)
    found = computed(*case, jit=jit, chunk_logits=chunk_logits)
    for value, expected in zip(found, (loss, *gradients[:2]), strict=True):
        np.testing.assert_allclose(value, 2 * expected, rtol=1e-5, atol=1e-6)  # float32 against float64
    alone = summed_crossentropy(*map(tf.constant, case), gradients=False, chunk_logits=chunk_logits)
    np.testing.assert_allclose(alone, loss, rtol=1e-5)


@pytest.mark.parametrize("few", [False, True])
def test_a_batch_of_unknown_size(case, few):
    hidden, table, labels, weights = case
    labels = np.where(np.arange(LENGTH) == 2, labels, -1) if few else labels
    specs = [tf.TensorSpec([None, None, DIM]), tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None])]

    @tf.function(input_signature=specs)
    def run(hidden, labels, weights):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            loss = summed_crossentropy(hidden, tf.constant(table), labels, weights, few=few, chunk_logits=4 * VOCAB)
        return loss, tape.gradient(loss, hidden)

    for rows in (slice(0, 3), slice(0, 1)):
        loss, for_hidden, *_ = by_hand(hidden[rows], table, labels[rows], weights[rows])
        found = run(hidden[rows], labels[rows], weights[rows])
        np.testing.assert_allclose(found[0], loss, rtol=1e-5)
        np.testing.assert_allclose(found[1], for_hidden, rtol=1e-5, atol=1e-6)


def test_bfloat16_products_are_near(case):
    loss, for_hidden, for_table, _ = by_hand(*case)
    found = computed(*case, dtype="bfloat16", chunk_logits=4 * VOCAB)
    assert [value.dtype for value in found] == [np.float32] * 3
    assert found[0] == pytest.approx(2 * loss, rel=1e-2)  # bfloat16 keeps 8 bits
    np.testing.assert_allclose(found[1], 2 * for_hidden, atol=0.05)
    np.testing.assert_allclose(found[2], 2 * for_table, atol=0.05)


def test_a_sure_prediction_keeps_the_digits_of_its_small_gradient():
    table = np.eye(3, 4, dtype=np.float32)
    hidden = np.array([[[16.0, 0, 0, 0]]], np.float32)  # p = 1 - 2.3e-7
    labels, weights = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
    _, for_hidden, *_ = by_hand(hidden, table, labels, weights)
    found = computed(hidden, table, labels, weights)[1]
    np.testing.assert_allclose(found, 2 * for_hidden, rtol=1e-5)


def test_logits_far_from_zero_stay_finite(case):
    hidden, *rest = case
    found = computed(1e4 * hidden, *rest)
    assert all(np.isfinite(value).all() for value in found)
    np.testing.assert_allclose(found[0], 2 * by_hand(1e4 * hidden, *rest)[0], rtol=1e-5)


def test_nothing_to_predict_is_no_loss(case):
    hidden, table, labels, weights = case
    for value in computed(hidden, table, np.full_like(labels, -100), weights):
        assert not value.any()


def test_metrics_count_what_is_to_be_predicted_alone():
    keras.utils.set_random_seed(0)
    sizes = {"vocab_size": 7, "max_length": 6, "num_layers": 1, "num_heads": 2, "dim": 8, "mlp_dim": 8}
    model = CausalLM(GPT(GPTConfig(**sizes)))
    model.compile("sgd", metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")])
    ids = np.random.default_rng(0).integers(0, 7, (8, 6)).astype(np.int32)
    labels = np.where(np.arange(6) < 4, model({"token_ids": ids}).numpy().argmax(-1), -1)
    labels[:, 0] = (labels[:, 0] + 1) % 7  # wrong
    figures = model.evaluate({"token_ids": ids}, labels, verbose=0, return_dict=True)
    assert figures["accuracy"] == pytest.approx(3 / 4)
