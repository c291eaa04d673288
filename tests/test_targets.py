"""Labels, weights and losses as Keras takes them: what a step makes of them, and what is refused before it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.models import heads
from kerasformer.training.losses import Crossentropy
from kerasformer.training.targets import as_targets, as_weights, weighted_sum
from kerasformer.training.tasks import MaskedLM

ROWS, LENGTH, NAMES = 6, 8, ["cat", "dog", "cow"]
NUMBERS = np.random.default_rng(0)
INPUTS = {
    "token_ids": NUMBERS.integers(5, 15, (ROWS, LENGTH)),
    "segment_ids": np.zeros((ROWS, LENGTH), np.int64),
    "padding_mask": np.ones((ROWS, LENGTH), bool),
}
IDS = np.array([0, 2, 1, 1, 0, 2])
ONE_HOT, MULTI_HOT = np.eye(3)[IDS], NUMBERS.integers(0, 2, (ROWS, 3))
WEIGHTS = np.array([1, 0, 2, 3, 1, 5])
MEAN = {"reduction": "mean_with_sample_weight", "from_logits": True}


@pytest.fixture(scope="module")
def compiled(classifier):
    model = classifier(NAMES)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return model, model.get_weights()


@pytest.fixture(scope="module")
def tokens(classifier):
    model = MaskedLM(classifier().backbone)
    model.compile("sgd", jit_compile=False)
    return model


def fit(model, labels, **settings) -> tuple[float, list[np.ndarray]]:
    """The loss of a step on all rows, and the weights after it."""
    settings = {"batch_size": ROWS, "shuffle": False, "verbose": 0} | settings
    return model.fit(INPUTS, labels, **settings).history["loss"][0], model.get_weights()


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for ours, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "labels", "settings", "accumulate"),
    [
        pytest.param(
            keras.losses.SparseCategoricalCrossentropy(**MEAN),
            IDS[:, None],
            {"sample_weight": WEIGHTS[:, None]},
            1,
            marks=pytest.mark.slow,
        ),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1, **MEAN), ONE_HOT, {"class_weight": {1: 3.0}}, 2),
        (keras.losses.BinaryCrossentropy(**MEAN), MULTI_HOT, {"sample_weight": WEIGHTS}, 1),
    ],
    ids=["column", "one-hot", "multi-hot"],
)
def test_a_step_is_that_of_keras(classifier, loss, labels, settings, accumulate):
    ours = classifier(NAMES)
    plain = heads.Classifier(classifier().backbone, NAMES)
    plain.set_weights(ours.get_weights())
    plain.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    ours.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False, accumulate=accumulate)
    assert_same(fit(ours, labels, **settings), fit(plain, labels, **settings))


@pytest.mark.parametrize(
    "labels",
    [
        *(IDS.astype(kind) for kind in ("int64", "uint8", "uint16", "uint32", "float64")),
        IDS[:, None],
        [NAMES[i] for i in IDS],
        np.array(NAMES, object)[IDS],
        tf.constant(np.array(NAMES)[IDS]),
    ],
    ids=lambda labels: f"{getattr(labels, 'dtype', 'list')}{getattr(labels, 'shape', '')}",
)
def test_labels_of_any_type_and_their_names(model, labels):
    _, found, _ = model.data_check().arrays(INPUTS, labels)
    np.testing.assert_array_equal(found, IDS)
    assert found.dtype == np.int32
    expected = model.evaluate(INPUTS, IDS.astype(np.int32), verbose=0)
    assert model.evaluate(INPUTS, labels, verbose=0) == pytest.approx(expected)


def test_a_dataset_may_hold_other_shapes_than_the_one_before(model):
    for labels, weights in ((IDS, WEIGHTS), (IDS[:, None].astype(np.uint8), WEIGHTS[:, None])):
        data = tf.data.Dataset.from_tensor_slices((INPUTS, labels, weights)).batch(ROWS)
        assert model.evaluate(data, verbose=0)[0] == pytest.approx(
            model.evaluate(INPUTS, IDS, sample_weight=WEIGHTS, verbose=0)[0]
        )


def test_class_weights_are_weights(compiled):
    model, start = compiled
    assert model.class_weights({"cat": 2, np.int64(2): 0.5}) == {0: 2.0, 1: 1.0, 2: 0.5}
    found = []
    for settings in ({"class_weight": {"cat": 2, 2: 0.5}}, {"sample_weight": np.array([2.0, 1.0, 0.5])[IDS]}):
        model.set_weights(start)
        found.append(fit(model, IDS, **settings))
    assert_same(*found)


def test_one_weight_a_row_is_that_of_its_tokens(tokens):
    labels = np.where(NUMBERS.random((ROWS, LENGTH)) < 0.5, INPUTS["token_ids"], -1)
    whole = np.repeat(WEIGHTS[:, None], LENGTH, axis=1)
    expected = tokens.evaluate(INPUTS, labels, sample_weight=whole, verbose=0)
    for weights in (WEIGHTS, WEIGHTS[:, None], whole[..., None]):
        assert tokens.evaluate(INPUTS, labels, sample_weight=weights, verbose=0) == pytest.approx(expected)
    assert tokens.evaluate(INPUTS, labels[..., None].astype(np.int16), sample_weight=whole, verbose=0) == expected


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (IDS - 1, {}, "expected labels from 0 to 2, got -1"),
        (IDS + 1, {}, "expected labels from 0 to 2, got 3"),
        (IDS + 0.5, {}, "expected labels as whole numbers"),
        (ONE_HOT[:, :2], {}, r"expected labels as ids of shape \[6\] or \[6, 1\], or .* \[6, 3\], got \[6, 2\]"),
        (ONE_HOT, {}, "expected labels that the loss sparse_categorical_crossentropy takes beside outputs of shape"),
        (IDS[:4], {}, "expected labels of the 6 rows of the inputs, got 4"),
        (None, {}, "expected labels beside the inputs, got none"),
        (["cat"] * 5 + ["hen"], {}, r"labels\[5\]: the label 'hen' is none of those trained on"),
        (["cat"] * 5 + [None], {}, "expected labels as ids or names of cat, dog, cow, got None at 5"),
        (IDS, {"sample_weight": np.ones((ROWS, 2))}, r"expected sample_weight of shape \[6\], got \[6, 2\]"),
        (IDS, {"sample_weight": WEIGHTS[:2]}, "expected sample_weight of the 6 rows of the inputs, got 2"),
        (IDS, {"sample_weight": WEIGHTS * np.nan}, "expected sample_weight as finite numbers"),
        (IDS, {"class_weight": {"hen": 1.0}}, "expected class_weight by label or index, as 'cat' or 0, got 'hen'"),
        (IDS, {"class_weight": "balanced"}, "expected class_weight as a dict by label or index, got 'balanced'"),
        (IDS, {"class_weight": {3: 1.0}}, "expected class_weight by label or index, as 'cat' or 0, got 3"),
        (IDS, {"class_weight": {0: -1.0}}, "expected a class_weight of 0 or more, got -1.0 for 0"),
        (IDS, {"class_weight": {0: 1}, "sample_weight": WEIGHTS}, "expected class_weight or sample_weight, got both"),
    ],
)
def test_what_is_no_label_and_no_weight(model, labels, settings, message):
    before = model.get_weights()
    with pytest.raises(InputError, match=message) as caught:
        fit(model, labels, **settings)
    assert "\n" not in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(("labels", "wrong"), [(IDS + 1, 3), (IDS[:, None] - 1, -1)])
def test_what_a_dataset_holds_is_checked_as_it_comes(model, labels, wrong):
    data = tf.data.Dataset.from_tensor_slices((INPUTS, labels)).batch(4)
    for call in (lambda: model.fit(data, verbose=0, shuffle=False), lambda: model.evaluate(data, verbose=0)):
        with pytest.raises(InputError, match=f"expected labels from 0 to 2, got {wrong}; give it ids that it has"):
            call()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("token_ids", INPUTS["token_ids"] - 9, "expected token_ids from 0 to 14, got -4"),
        ("token_ids", INPUTS["token_ids"] + 9, "expected token_ids from 0 to 14, got 23"),
        ("token_ids", INPUTS["token_ids"] / 2, "expected token_ids as whole numbers, got float64"),
        ("token_ids", [[1, 2], [3]] * 3, "expected token_ids in rows of one length"),
        ("token_ids", [1, 2], r"expected token_ids of shape \[rows, length\], got \[2\]"),
        ("segment_ids", INPUTS["segment_ids"] + 2, "expected segment_ids from 0 to 1, got 2"),
        ("segment_ids", None, "got no segment_ids among token_ids, padding_mask"),
        ("padding_mask", np.ones((ROWS, 3)), r"expected padding_mask of shape \[6, 8\] as token_ids, got \[6, 3\]"),
        ("attention_mask", np.ones((ROWS, LENGTH)), "got attention_mask as well"),
    ],
)
def test_inputs_that_are_not_of_the_model(model, name, value, message):
    inputs = {key: array for key, array in (INPUTS | {name: value}).items() if array is not None}
    for call in (lambda: model.predict(inputs, verbose=0), lambda: model.fit(inputs, IDS, verbose=0)):
        with pytest.raises(InputError, match=message):
            call()


def test_rows_longer_than_the_model(model):
    inputs = {name: np.tile(array, 4) for name, array in INPUTS.items()}
    with pytest.raises(InputError, match="expected rows of at most the model's 24 tokens, got 32"):
        model.predict(inputs, verbose=0)
    for inputs in (INPUTS["token_ids"], None, 3):
        with pytest.raises(InputError, match="expected inputs as a dict of token_ids, segment_ids, padding_mask, got"):
            model.fit(inputs, IDS, verbose=0)


def test_an_id_below_0_is_none_of_the_last(model):
    ids = {name: tf.constant(array) for name, array in INPUTS.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match="= -1 is not in"):
        model(ids | {"token_ids": -tf.ones_like(ids["token_ids"])})
    data = tf.data.Dataset.from_tensors(ids | {"token_ids": ids["token_ids"] - 6})
    with pytest.raises(InputError, match="expected token_ids from 0 to 14, got -1"):
        model.predict(data, verbose=0)


# What is multiplied is never broadcast


def sum_of(losses):
    """The weighted sum of these losses of two examples."""
    return weighted_sum(lambda *_: losses, tf.constant([0, 1]), tf.zeros([2, 3]), tf.ones([2]))


@pytest.mark.parametrize("shape", [[2, 1], [2, 2], [1], []])
def test_a_loss_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"expected a loss of each example, of shape \(2,\), got"):
        sum_of(tf.ones(shape))


@pytest.mark.parametrize("jit", [False, True])
def test_sizes_that_are_known_at_run_time_are_not_broadcast_either(jit):
    total = tf.function(sum_of, [tf.TensorSpec([None])], jit_compile=jit, autograph=False)
    assert float(total(tf.ones([2]))) == 2
    with pytest.raises(tf.errors.InvalidArgumentError):
        total(tf.ones([1]))


@pytest.mark.parametrize(
    ("labels", "rank", "shape", "dtype"),
    [
        ([[1], [2]], 1, (2,), "int32"),
        ([True, False], 1, (2,), "int32"),
        ([[0.0, 1.0]], 1, (1, 2), "float32"),
        ([[[1], [2]]], 2, (1, 2), "int32"),
        ([[1, 2]], 2, (1, 2), "int32"),
    ],
)
def test_targets_have_one_shape_and_type(labels, rank, shape, dtype):
    found = as_targets(labels, rank)
    assert (tuple(found.shape), found.dtype.name) == (shape, dtype)


@pytest.mark.parametrize(("labels", "rank"), [([[[1]]], 1), ([1], 2), (["a"], 1), (None, 1)])
def test_targets_of_another_rank(labels, rank):
    with pytest.raises(InputError, match="expected labels"):
        as_targets(labels, rank)


def test_weights_are_not_broadcast_over_rows():
    for weights in ([1.0], [[1.0, 2.0]], [[[1.0]]]):
        with pytest.raises((InputError, tf.errors.InvalidArgumentError)):
            as_weights(tf.constant([0, 1, 2]), tf.constant(weights), 1)
    with pytest.raises(InputError, match=r"expected sample weights of shape \[batch\] or \[batch, length\]"):
        as_weights(tf.zeros([2, 3], tf.int32), tf.ones([]), 2)


def test_cross_entropy_takes_ids_alone():
    with pytest.raises(ValueError, match="expected class ids"):
        Crossentropy().call(np.eye(3), np.eye(3))
