"""Texts in the containers that users have them in: all are those of a list, or are refused by name and index."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.text.columns import holds_texts, text_columns

TEXTS = ["a cat", "dögs", ""]
PAIRS = ["the mat", "cats", "."]


class Series:
    """A column as pandas has it."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return list(self.values)


class Frame:
    """A table of columns as pandas has it."""

    def __init__(self, *columns):
        self.columns = columns

    def to_numpy(self):
        return np.array(self.columns, object).T


class Array:
    """What says of itself only that it is one."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, object)


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "numpy": np.array,
    "objects": lambda texts: np.array(texts, object),
    "bytes": lambda texts: np.array([text.encode() for text in texts]),
    "list of bytes": lambda texts: [text.encode() for text in texts],
    "pandas": Series,
    "array": Array,
    "pyarrow": pa.array,
    "chunks": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    "tensor": tf.constant,
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_texts(make):
    assert holds_texts(make(TEXTS))
    assert text_columns(make(TEXTS)) == (TEXTS, None)


@pytest.mark.parametrize(
    "pairs",
    [
        list(zip(TEXTS, PAIRS, strict=True)),
        tuple(zip(TEXTS, PAIRS, strict=True)),
        [[*row] for row in zip(TEXTS, PAIRS, strict=True)],
        np.array([TEXTS, PAIRS]).T,
        Frame(TEXTS, PAIRS),
        (TEXTS, PAIRS),
        (np.array(TEXTS), Series(PAIRS)),
    ],
    ids=["tuples", "tuple", "lists", "numpy", "frame", "columns", "mixed columns"],
)
def test_pairs(pairs):
    assert holds_texts(pairs)
    assert text_columns(pairs) == (TEXTS, PAIRS)


@pytest.mark.parametrize("text", ["a cat", b"a cat", np.str_("a cat"), np.array("a cat"), tf.constant("a cat")])
def test_one_text(text):
    assert holds_texts(text)
    assert text_columns(text) == (["a cat"], None)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], r"texts\[1\]: expected texts or \(text, text_pair\) tuples, all alike, got None"),
        (np.array(["a", np.nan], object), r"texts\[1\]: .* got nan"),
        (pa.array([None, "a"]), r"texts\[0\]: .* got None"),
        ([("a", "b"), ("c", None)], r"text_pairs\[1\]: .* got None"),
        ([("a", "b"), "c"], r"texts\[1\]: .* got 'c'"),
        ((["a"], ["b", "c"]), "text_pairs: expected 1, one for each text, got 2"),
        ([b"a", b"\xff"], r"texts\[1\]: expected UTF-8 text, got"),
        ([], "expected texts, got none"),
        ({"a": 1}, "got a dict; pass a list"),
        (3, "got a int; pass a list"),
    ],
)
def test_what_is_no_text(texts, message):
    with pytest.raises(InputError, match=message):
        text_columns(texts)


@pytest.mark.parametrize("values", [None, 3, np.zeros((2, 3)), [[1, 2]], {"token_ids": [[1]]}, tf.constant([1])])
def test_what_holds_no_texts(values):
    assert not holds_texts(values)


def test_a_classifier_takes_texts_and_names(classifier):
    model = classifier(("cat", "dog"))
    model.compile("sgd", jit_compile=False)
    texts, labels = ["a cat", "the dog ran", "dogs"], ["cat", "dog", "dog"]
    expected = model.predict(texts)
    columns = Series(texts), np.array(labels)
    assert model.evaluate(*columns, verbose=0)[0] == pytest.approx(
        -np.log(expected[np.arange(3), [0, 1, 1]]).mean(), rel=1e-5
    )
    np.testing.assert_allclose(model.predict(columns[0]), expected, rtol=1e-5)
    batches = tf.data.Dataset.from_tensor_slices(texts).batch(2)
    np.testing.assert_allclose(model.predict(batches, verbose=0), expected, rtol=1e-4)
    inputs, found, _ = model.checked((texts, texts), labels, fits=True)
    assert (model.text_pair, found.tolist()) == (True, [0, 1, 1])
    assert inputs["segment_ids"].any() and len(inputs["token_ids"]) == 3
    for data, message in {
        batches.unbatch(): "expected a dataset of batches of texts",
        tf.data.Dataset.from_tensors((texts, labels)): "expected labels as ids, got a dataset of strings",
    }.items():
        with pytest.raises(InputError, match=message):
            model.fit(data, verbose=0)
    with pytest.raises(InputError, match="expected texts to predict, got none"):
        model.predict(np.array([], str))
