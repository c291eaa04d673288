"""Labelled text -> a training and a validation set."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kerasformer.config import Augment
from kerasformer.data.encoding import classification, summary, unlabelled
from kerasformer.data.sources import read_examples
from kerasformer.errors import InputError
from kerasformer.text.wordpiece import WordPiece

TEXTS = [f"the cat sat {'on ' * (i % 5)}." for i in range(20)]
LABELS = ["b", "a", "b", "b"] * 5


@pytest.fixture
def tokenizer() -> WordPiece:
    tokenizer = WordPiece.from_folder(Path(__file__).parent / "golden" / "bert_tiny")
    tokenizer.max_positions = tokenizer.max_length = 24  # as a model sets them
    return tokenizer


@pytest.fixture
def read(tokenizer):
    """`classification` with a tokenizer and a length that fit."""
    return lambda source, **settings: classification(source, **{"tokenizer": tokenizer, "max_length": 16, **settings})


def labels_of(batches) -> list[str]:
    return [batches.labels[i] for i in batches.label_ids]


def test_the_split_is_stratified_and_disjoint(read):
    texts = [f"{'cat ' * i}." for i in range(1, 21)]  # each its own
    train, valid = read((texts, LABELS), split=0.2, max_length=24)
    assert not set(train.texts) & set(valid.texts)
    assert sorted([*train.texts, *valid.texts]) == sorted(texts)
    assert Counter(labels_of(train)) == {"a": 4, "b": 12}
    assert Counter(labels_of(valid)) == {"a": 1, "b": 3}
    expected = dict(zip(texts, LABELS, strict=True))
    for batches in (train, valid):
        assert labels_of(batches) == [expected[text] for text in batches.texts]


def test_the_seed_decides_the_split_and_the_order(read):
    def seen(seed):
        train, valid = read((TEXTS, LABELS), split=0.4, seed=seed, batch_size=4)
        return train.texts, valid.texts, [rows.tolist() for rows in train.order()]

    assert seen(1) == seen(1)
    assert seen(1)[1] != seen(2)[1]
    assert seen(1)[2] != seen(2)[2]


def test_training_alone_is_shuffled_and_augmented(read):
    augment = Augment(delete=0.5)
    train, valid = read((TEXTS, LABELS), augment=augment)
    assert (train.shuffle, train.augment) == (True, augment)
    assert (valid.shuffle, valid.augment) == (False, None)


def test_without_a_split_there_is_no_validation_set(read):
    train, valid = read((TEXTS, LABELS), split=0)
    assert valid is None
    assert len(train.lengths) == 20


def test_a_validation_source_takes_the_place_of_the_split(read, animals):
    train, valid = read(animals, validation=(["a dog ."], ["dog"]), split=0.5)
    assert len(train.lengths) == 72
    assert valid.texts == ["a dog ."]
    assert labels_of(valid) == ["dog"]


def test_examples_and_columns(read, animals):
    train, _ = read(read_examples(animals, text_pair="text_pair"), split=0)
    again, _ = read(animals, text_pair="text_pair", split=0)
    assert train.text_pair and again.text_pair
    np.testing.assert_array_equal(train.encoded.token_ids, again.encoded.token_ids)
    assert train.encoded.segment_ids.any()


@pytest.mark.parametrize(("labels", "ids"), [(None, {"a": 0, "b": 1}), (["b", "c", "a"], {"b": 0, "a": 2})])
def test_labels_are_in_the_order_given_or_sorted(read, labels, ids):
    train, valid = read((TEXTS, LABELS), labels=labels)
    assert train.labels == valid.labels == (labels or ["a", "b"])
    expected = dict(zip(TEXTS, LABELS, strict=True))
    assert train.label_ids.tolist() == [ids[label] for label in labels_of(train)]
    assert train.label_ids.dtype == np.int32
    assert {expected[text] for text in train.texts} == set(labels_of(train))


def test_a_tokenizer_that_belongs_to_no_model_sets_no_limit():
    tokenizer = WordPiece.from_folder(Path(__file__).parent / "golden" / "bert_tiny")
    train, _ = classification((["cat " * 90, "dog"], ["a", "b"]), tokenizer=tokenizer, max_length=80, split=0)
    assert sorted(train.lengths) == [3, 80]


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ((TEXTS, LABELS), {"validation": (["a ."], ["c"])}, r"examples\[0\]: the label 'c' is none of .*: 'a', 'b'"),
        ((TEXTS, LABELS), {"labels": ["a", "c"]}, r"the label 'b' is none of those trained on: 'a', 'c'"),
        ((TEXTS, LABELS), {"max_length": 25}, "expected a max_length of at most 24, the model's, got 25; lower it"),
        ((TEXTS, LABELS), {"max_length": 2}, "max_length: expected more than the 2 special tokens"),
        ((TEXTS, LABELS), {"batch_size": 0}, "expected a batch_size of at least 1, got 0"),
        ((TEXTS, LABELS), {"split": 1.5}, "expected a fraction between 0 and 1 to hold out, not 1.5"),
        ((TEXTS, LABELS), {"split": 0.001}, "leaves none to hold out; raise the fraction or add examples"),
        ((TEXTS, ["a"] * 20), {}, "expected two classes or more, but every label is 'a'"),
        ((TEXTS, TEXTS, LABELS), {"text_pair": "text_pair", "augment": Augment(swap=0.1)}, "expected single texts"),
        ("no_such.csv", {}, "expected a file or folder of texts, found none at 'no_such.csv'; check the path"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_bad_input(read, source, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        read(source, **settings)
    assert "\n" not in str(caught.value)


def test_an_unlabelled_validation_set(read):
    with pytest.raises(InputError, match="expected labelled examples, found no labels"):
        read((TEXTS, LABELS), validation=read_examples(TEXTS, label=None))


def test_summary_tells_size_classes_truncation_and_padding(read):
    train, _ = read((["cat", "cat " * 30], ["b", "a"]), split=0)
    line = summary(train)
    assert line == "2 texts (a 1, b 1); 50.0% cut to 16 tokens, 40.6% padding"  # 3 and 16 of 2 x 16 positions
    many, _ = read((["cat"] * 200, [f"{i:03}" for i in range(200)]), split=0)
    assert summary(many).startswith("200 texts (000 1, 001 1,") and "009 1, ... and 190 others); 0.0%" in summary(many)


# Texts to predict


def test_unlabelled_texts_and_pairs(tokenizer):
    single, pairs = (unlabelled(texts, tokenizer=tokenizer) for texts in (["a cat", "a dog ."], [("a cat", "a dog")]))
    assert single.lengths.tolist() == [4, 5]
    assert pairs.lengths.tolist() == [7]
    assert (single.labels, single.label_ids, single.max_length) == (None, None, 24)
    assert (single.text_pair, pairs.text_pair) == (False, True)
    assert [len(rows) for rows in single.order()] == [2]


@pytest.mark.parametrize(
    "texts", [[1, 2], ["a", 1], [("a", "b"), "cd"], [("a",)], [("a", "b", "c")], [None], [("a", 1)]]
)
def test_what_is_no_text(tokenizer, texts):
    with pytest.raises(InputError, match=r"expected texts or \(text, text_pair\) tuples, all alike") as caught:
        unlabelled(texts, tokenizer=tokenizer)
    assert "\n" not in str(caught.value)


def test_no_texts_at_all(tokenizer):
    with pytest.raises(InputError, match="expected texts to predict, got none"):
        unlabelled([], tokenizer=tokenizer)
