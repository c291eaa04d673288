import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.config import Augment
from kerasformer.data.augment import augment_rows, word_pool
from kerasformer.errors import InputError

# Ids 0-999 start a word and 1000-1999 continue one. Texts use words below 500, the pool those from 500.
CONTINUES = tf.range(2000) >= 1000
POOL = tf.ragged.constant([[500 + i] + [1500 + i] * (i % 3) for i in range(100)], dtype=tf.int32)
POOL_WORDS = {tuple(word) for word in POOL.to_list()}


def ragged(rows):
    """Rows of words (tuples of ids) as rows of ids."""
    flat = [np.array([token for word in row for token in word], np.int32) for row in rows]
    lengths = np.array([len(row) for row in flat], np.int64)
    return tf.RaggedTensor.from_row_lengths(np.concatenate([np.zeros(0, np.int32), *flat]), lengths)


def words(rows):
    """Rows of ids as rows of words."""
    result = []
    for row in rows.to_list():
        result.append([])
        for token in row:
            if token >= 1000:
                result[-1][-1] += (token,)
            else:
                result[-1].append((token,))
    return result


def augmented(rows, seed=0, **rates):
    return words(augment_rows(ragged(rows), Augment(**rates), CONTINUES, POOL, tf.constant([seed, 1])))


def text(start, length):
    """Distinct words of one to three tokens."""
    return [(start + i,) + (1000 + i,) * (i % 3) for i in range(length)]


ROWS = [text(row % 400, 40) for row in range(500)]  # 20,000 words
COUNT = 20_000


def near(rate, trials=COUNT):
    return pytest.approx(rate, abs=5 * (rate * (1 - rate) / trials) ** 0.5)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_share_replaced_is_the_rate(rate):
    result = augmented(ROWS, replace=rate)
    assert [len(row) for row in result] == [40] * 500
    kept = [
        new == old for after, before in zip(result, ROWS, strict=True) for new, old in zip(after, before, strict=True)
    ]
    assert 1 - np.mean(kept) == near(rate)
    new = [word for row in result for word in row if word[0] >= 500]
    assert len(new) == kept.count(False)
    assert set(new) == POOL_WORDS if rate == 0.5 else set(new) <= POOL_WORDS


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_share_deleted_is_the_rate(rate):
    result = augmented(ROWS, delete=rate)
    assert 1 - sum(map(len, result)) / COUNT == near(rate)
    for after, before in zip(result, ROWS, strict=True):
        assert after == [word for word in before if word in after]


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_share_inserted_is_the_rate(rate):
    result = augmented(ROWS, insert=rate)
    assert sum(map(len, result)) / COUNT - 1 == near(rate)
    assert [[word for word in row if word[0] < 500] for row in result] == ROWS
    assert {word for row in result for word in row if word[0] >= 500} <= POOL_WORDS


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_share_swapped_is_the_rate(rate):
    result = augmented(ROWS, swap=rate)
    moved = [
        new != old for after, before in zip(result, ROWS, strict=True) for new, old in zip(after, before, strict=True)
    ]
    assert np.mean(moved) == near(rate, trials=COUNT // 2)  # pairs are drawn, not words
    assert [sorted(row) for row in result] == [sorted(row) for row in ROWS]


def test_a_swap_joins_any_two_places_of_a_row():
    row = text(0, 5)
    result = augmented([row] * 300, swap=0.5)
    assert len({(place, row.index(word)) for after in result for place, word in enumerate(after)}) == 25


def test_operations_are_drawn_independently():
    result = augmented(ROWS, replace=0.2, delete=0.2, insert=0.2, swap=0.2)
    new = sum(word[0] >= 500 for row in result for word in row)
    old = sum(word[0] < 500 for row in result for word in row)
    assert old / COUNT == near(0.8 * 0.8)
    assert new / COUNT == pytest.approx(0.2 * 0.8 + 0.2, abs=0.02)


def test_zero_rates_change_nothing():
    assert augmented([*ROWS[:3], [], ROWS[3]]) == [*ROWS[:3], [], ROWS[3]]


def test_a_row_never_loses_its_last_word():
    rows = [text(0, 1), [], text(7, 3), text(9, 1)]
    for seed in range(20):
        assert [len(row) > 0 for row in augmented(rows, seed=seed, delete=0.99)] == [True, False, True, True]


@pytest.mark.parametrize("rows", [[], [[]], [[], [], []]])
def test_batches_without_words(rows):
    assert augmented(rows, replace=0.5, delete=0.5, insert=0.5, swap=0.5) == rows


def test_a_row_may_start_inside_a_word():
    rows = tf.ragged.constant([[1001, 1002, 3], [1004]], dtype=tf.int32)
    results = [augment_rows(rows, Augment(delete=0.5), CONTINUES, POOL, [seed, 0]).to_list() for seed in range(30)]
    assert {tuple(first) for first, _ in results} == {(1001, 1002, 3), (1001, 1002), (3,)}
    assert all(second == [1004] for _, second in results)


def test_the_seed_alone_decides():
    rates = {"replace": 0.3, "delete": 0.3, "insert": 0.3, "swap": 0.3}
    assert augmented(ROWS, seed=5, **rates) == augmented(ROWS, seed=5, **rates)
    assert augmented(ROWS, seed=5, **rates) != augmented(ROWS, seed=6, **rates)


def test_inside_a_dataset_as_outside():
    rates = Augment(replace=0.3, delete=0.3, insert=0.3, swap=0.3)

    def augment(index, rows):
        return augment_rows(rows, rates, CONTINUES, POOL, tf.stack([tf.cast(index, tf.int32), 0]))

    rows = ragged([*ROWS[:6], [], ROWS[7]])
    batches = tf.data.Dataset.from_tensor_slices(rows).ragged_batch(4).enumerate().map(augment)
    assert batches.element_spec.dtype == tf.int32
    for index, batch in enumerate(batches):
        assert batch.to_list() == augment(index, rows[4 * index : 4 * index + 4]).to_list()


word = st.builds(lambda start, rest: (start, *rest), st.integers(0, 499), st.lists(st.integers(1000, 1499), max_size=3))
rate = st.floats(0, 0.99)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.lists(word, max_size=8), max_size=5),
    rates=st.builds(Augment, replace=rate, delete=rate, insert=rate, swap=rate),
    seed=st.integers(0, 2**31 - 1),
)
def test_words_stay_whole_and_in_their_row(rows, rates, seed):
    result = words(augment_rows(ragged(rows), rates, CONTINUES, POOL, tf.constant([seed, 0])))
    assert len(result) == len(rows)
    for after, before in zip(result, rows, strict=True):
        assert set(after) <= set(before) | POOL_WORDS
        assert bool(after) == bool(before)
        assert len(after) <= 2 * len(before)


def test_pool_keeps_the_frequencies_of_whole_words():
    rows = ragged([[(1, 1001), (2,)], [], [(2,), (2,)]])
    assert word_pool(rows, CONTINUES).to_list() == [[1, 1001], [2], [2], [2]]


def test_pool_is_spread_over_the_texts_when_they_are_many():
    assert word_pool(ragged([[(i,)] for i in range(101)]), CONTINUES, size=5).to_list() == [
        [0],
        [25],
        [50],
        [75],
        [100],
    ]


@pytest.mark.parametrize("rows", [[], [[], []]])
def test_a_pool_needs_words(rows):
    with pytest.raises(InputError, match="expected texts to draw words from"):
        word_pool(ragged(rows), CONTINUES)


@pytest.mark.parametrize("bad", [-0.1, 1, 1.5, float("nan"), "0.1", None])
@pytest.mark.parametrize("name", ["replace", "delete", "insert", "swap"])
def test_rates_out_of_range_are_refused(name, bad):
    with pytest.raises(InputError) as caught:
        Augment(**{name: bad})
    assert str(caught.value) == f"expected augment.{name} as a share of words in [0, 1), got {bad!r}; change it"
