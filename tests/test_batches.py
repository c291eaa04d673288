"""Batches: which rows each holds, in which order, and how they are padded and augmented."""

import threading
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.config import Augment
from kerasformer.data.batches import STRIDE, Batches
from kerasformer.errors import InputError
from kerasformer.text.vocabulary import train_char
from kerasformer.text.wordpiece import WordPiece

TOKENIZER = WordPiece.from_folder(Path(__file__).parent / "golden" / "bert_tiny")
WORDS = "the cat sat on mat mats a dog ran .".split()
EVERYTHING = Augment(replace=0.3, delete=0.2, insert=0.6, swap=0.3)


def make(count=50, max_length=64, pairs=False, **settings) -> Batches:
    """Texts of 1 to 70 words; each is labelled with its own index."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, size)) for size in random.integers(1, 70, count)]
    encoded = TOKENIZER.encode(texts, texts[::-1] if pairs else None, max_length=max_length)
    labels = {"labels": [str(i) for i in range(count)], "label_ids": np.arange(count, dtype=np.int32)}
    return Batches(encoded, TOKENIZER, max_length, **{"batch_size": 8, **labels, **settings})


def arrays(batches: Batches, epoch=0, epochs=1):
    """The batches of some epochs, from the first one on."""
    return list(batches.dataset(epoch * len(batches), epochs * len(batches)).as_numpy_iterator())


def row(batches: Batches, i: int, name="token_ids"):
    return getattr(batches.encoded, name)[slice(*batches.encoded.offsets[i : i + 2])]


# Order


@settings(max_examples=40)
@given(
    count=st.integers(1, 150),
    batch_size=st.integers(1, 12),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 100),
)
def test_an_epoch_holds_each_example_once_in_full_batches_and_a_rest(count, batch_size, shuffle, seed, epoch):
    batches = make(count, batch_size=batch_size, shuffle=shuffle, seed=seed)
    order = batches.order(epoch)
    assert sorted(np.concatenate(order)) == list(range(count))
    sizes = sorted(map(len, order), reverse=True)
    full, rest = divmod(count, batch_size)
    assert sizes == [batch_size] * full + [rest] * (rest > 0)
    assert len(batches) == len(order)


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(make(shuffle=True, seed=seed).order(epoch)).tolist()

    assert order(3, 1) == order(3, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 3) for epoch in (0, 1, 2)}) == 6


def test_what_is_not_shuffled_comes_longest_first_in_every_epoch():
    batches = make()
    lengths = batches.lengths[np.concatenate(batches.order(0))]
    assert all(a >= b for a, b in pairwise(lengths))
    np.testing.assert_array_equal(np.concatenate(batches.order(1)), np.concatenate(batches.order(0)))


def test_rows_of_a_batch_have_like_lengths():
    batches = make(3000, shuffle=True)
    random = np.random.default_rng(0).permutation(3000)
    unsorted = [random[start : start + 8] for start in range(0, 3000, 8)]
    longest = sum(len(rows) * batches.lengths[rows].max() for rows in unsorted)
    unsorted_share = 1 - batches.lengths.sum() / longest  # even without the stride
    assert batches.padding_share < unsorted_share / 2
    assert batches.padding_share < STRIDE / batches.lengths.mean()
    means = np.array([batches.lengths[rows].mean() for rows in batches.order()])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2  # and yet lengths come in any order


def test_padding_share_counts_what_the_batches_hold():
    batches = make(shuffle=True)
    masks = [inputs["padding_mask"] for inputs, _ in arrays(batches)]
    share = 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
    assert batches.padding_share == pytest.approx(share)


# Content


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_holds_its_rows_padded_and_their_labels(pairs, shuffle):
    batches = make(pairs=pairs, shuffle=shuffle, max_length=40)
    found = arrays(batches)
    assert [len(labels) for _, labels in found] == [len(rows) for rows in batches.order()]
    for inputs, labels in found:
        length = inputs["token_ids"].shape[1]
        assert length == 40 or length % STRIDE == 0
        assert length - batches.lengths[labels].max() < STRIDE
        for i, label in enumerate(labels):
            real = batches.lengths[label]
            assert inputs["padding_mask"][i].tolist() == [1] * real + [0] * (length - real)
            for name, padding in {"token_ids": TOKENIZER.pad_id, "segment_ids": 0}.items():
                assert inputs[name][i].tolist() == [*row(batches, label, name), *[padding] * (length - real)]
    assert {value.dtype.name for inputs, labels in found for value in (*inputs.values(), labels)} == {"int32"}
    assert any(inputs["segment_ids"].any() for inputs, _ in found) == pairs


def test_a_dataset_chains_epochs_and_knows_its_size():
    batches = make(20, shuffle=True, seed=5)
    dataset = batches.dataset(2 * len(batches), 3 * len(batches))
    assert int(dataset.cardinality()) == 3 * len(batches) == 9
    seen = [labels.tolist() for _, labels in dataset.as_numpy_iterator()]
    assert seen == [rows.tolist() for epoch in (2, 3, 4) for rows in batches.order(epoch)]


def test_a_dataset_can_be_read_again():
    dataset = make(20, shuffle=True).dataset()
    first, second = ([inputs["token_ids"].numpy().tolist() for inputs, _ in dataset] for _ in range(2))
    assert first == second


def test_unlabelled_batches_are_inputs_alone():
    inputs = next(make(label_ids=None, labels=None).dataset().as_numpy_iterator())
    assert inputs.keys() == {"token_ids", "segment_ids", "padding_mask"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "expected a batch_size of at least 1, got 0; raise it"),
        ({"batch_size": -3}, "expected a batch_size of at least 1, got -3; raise it"),
        ({"seed": -1}, "expected a seed of 0 or more, got -1; raise it"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError) as caught:
        make(**settings)
    assert str(caught.value) == message


def test_an_iterator_that_is_dropped_early_does_not_hang():
    batches = make(400, batch_size=2, shuffle=True, augment=EVERYTHING)

    def drop():
        next(iter(batches.dataset()))

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert not thread.is_alive()


# Augmentation


def tokens(batches: Batches, epoch=0, epochs=1) -> list[tuple[int, list[int]]]:
    """The label and the real token ids of each row."""
    return [
        (label, ids[: mask.sum()].tolist())
        for inputs, labels in arrays(batches, epoch, epochs)
        for label, ids, mask in zip(labels, inputs["token_ids"], inputs["padding_mask"], strict=True)
    ]


@pytest.mark.parametrize("max_length", [8, 20, 64])
def test_augmented_rows_keep_their_form(max_length):
    rows = tokens(make(max_length=max_length, augment=EVERYTHING), epochs=3)
    assert len(rows) == 150
    for _, ids in rows:
        assert ids[0] == TOKENIZER.cls_id
        assert ids[-1] == TOKENIZER.sep_id
        assert 3 <= len(ids) <= max_length
        assert not {TOKENIZER.cls_id, TOKENIZER.sep_id, TOKENIZER.pad_id} & set(ids[1:-1])


def test_augmentation_is_a_function_of_seed_and_epoch():
    def augmented(seed, epoch=0, epochs=2):
        rows = tokens(make(10, batch_size=10, augment=EVERYTHING, seed=seed), epoch, epochs)
        return [rows[start : start + 10] for start in range(0, 10 * epochs, 10)]

    zero, one = augmented(0)
    assert augmented(0, epoch=1, epochs=1) == [one]
    assert all(a != b for a, b in combinations([zero, one, *augmented(2**40)], 2))


def test_batches_of_an_epoch_are_augmented_independently():
    same = TOKENIZER.encode(["the cat sat on the mat . " * 4] * 10, max_length=64)
    batches = Batches(same, TOKENIZER, 64, 1, augment=Augment(delete=0.5))
    assert len({tuple(inputs["token_ids"].ravel()) for inputs in arrays(batches)}) > 8


def test_rates_of_zero_change_nothing():
    batches = make(augment=Augment())
    assert sorted(tokens(batches)) == [(i, row(batches, i).tolist()) for i in range(50)]


def test_augmentation_of_rows_that_nothing_frames():
    texts = ["a bb ccc", "", "ccc a"]
    bpe = train_char(texts)
    encoded = bpe.encode(texts, max_length=8)
    batches = Batches(encoded, bpe, 8, batch_size=3, augment=Augment(replace=0.5, insert=0.9, swap=0.5), shuffle=True)
    rows = {}
    for epoch, inputs in enumerate(batches.dataset(0, 8)):  # of one batch each
        for i, ids, real in zip(batches.order(epoch)[0], inputs["token_ids"], inputs["padding_mask"], strict=True):
            rows.setdefault(i, []).append(ids.numpy()[real.numpy() == 1].tolist())
    assert all(row == [bpe.eot_id] for row in rows[1])
    assert all(bpe.eot_id not in row and len(row) <= 8 for i in (0, 2) for row in rows[i])
    assert len({bpe.decode(row) for row in rows[0]}) > 1


# What a run is told of


def test_a_step_is_described_by_its_examples():
    texts = ("the cat sat on the mat", "dogs ran", "a cat")
    batches = make(3, batch_size=2, texts=texts, shuffle=True)
    for step in range(4):
        rows = batches.order(step // 2)[step % 2]
        begin = ", ".join(repr(" ".join(texts[i].split()[:4])) for i in rows)
        assert batches.describe(step) == f"examples {', '.join(map(str, rows))}, which begin with {begin}"
    many = make(20, batch_size=20)
    assert many.describe(0) == f"examples {', '.join(map(str, many.order()[0][:8]))} and 12 more"


def test_a_fingerprint_tells_examples_apart():
    assert make().fingerprint == make(seed=1, batch_size=3).fingerprint
    others = make(), make(49), make(pairs=True), make(label_ids=np.zeros(50, np.int32)), make(max_length=63)
    assert len({batches.fingerprint for batches in others}) == 5
