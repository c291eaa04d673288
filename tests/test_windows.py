"""Windows: which tokens each step holds, across shards and restarts."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.data.corpus import Corpus, Counts, Split
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError


def corpus(*sizes: int) -> Corpus:
    """A stream in arrays of these sizes whose tokens are their own places in it."""
    ends = np.cumsum(sizes)
    arrays = [np.arange(end - size, end, dtype=np.uint32) for size, end in zip(sizes, ends, strict=True)]
    counts = Counts(tokens=int(ends[-1]), documents=1, characters=int(ends[-1]), bytes=4 * int(ends[-1]))
    return Corpus("corpus", {"train": Split(arrays, counts)}, int(ends[-1]), lambda: "the tokenizer")


def make(*sizes: int, batch_size=3, max_length=5, **options) -> Windows:
    return Windows(corpus(*sizes or (200,)), batch_size=batch_size, max_length=max_length, **options)


def read(dataset) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and labels of all examples, [examples, T] each."""
    batches = list(dataset.as_numpy_iterator())
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


shards = st.lists(st.integers(1, 40), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 12)
orders = st.sampled_from(["random", "consecutive"])


@settings(max_examples=15)
@given(sizes=shards, order=orders, seed=st.integers(0, 2**64 - 1), length=st.integers(1, 12), batch=st.integers(1, 5))
def test_a_batch_holds_windows_of_the_stream_and_the_tokens_after_them(sizes, order, seed, length, batch):
    windows = make(*sizes, batch_size=batch, max_length=length, order=order, seed=seed)
    batches = list(windows.dataset(3, 7).as_numpy_iterator())
    assert len(batches) == 7
    for token_ids, labels in batches:
        assert token_ids.shape == labels.shape == (batch, length)
        assert token_ids.dtype == labels.dtype == np.int32
        np.testing.assert_array_equal(token_ids, token_ids[:, :1] + np.arange(length))
        np.testing.assert_array_equal(labels, token_ids + 1)
        assert token_ids.min() >= 0 and labels.max() < sum(sizes)


@settings(max_examples=60)
@given(sizes=shards, seed=st.integers(0, 2**64 - 1), length=st.integers(1, 12), epoch=st.integers(0, 2**40))
def test_an_epoch_of_consecutive_windows_holds_each_once(sizes, seed, length, epoch):
    windows = make(*sizes, max_length=length, order="consecutive", seed=seed)
    starts = windows.starts(epoch * windows.count, windows.count)
    assert sorted(starts) == list(range(0, windows.count * length, length))
    assert 0 <= sum(sizes) - 1 - windows.count * length < length  # and no further window would fit


@settings(max_examples=12)
@given(sizes=shards, length=st.integers(1, 12), batch=st.integers(1, 9), cap=st.none() | st.integers(0, 5))
def test_windows_in_order_are_the_stream(sizes, length, batch, cap):
    windows = make(*sizes, max_length=length, batch_size=batch)
    dataset = windows.in_order(cap)
    batches = list(dataset.as_numpy_iterator())
    expected = windows.count if cap is None else min(windows.count, cap * batch)
    assert len(batches) == int(dataset.cardinality()) == -(-expected // batch)
    assert [len(labels) for _, labels in batches[:-1]] == [batch] * (len(batches) - 1)
    for i, name in enumerate(("token_ids", "labels")):
        found = np.concatenate([np.empty(0, np.int32), *(batch[i].ravel() for batch in batches)])
        np.testing.assert_array_equal(found, np.arange(expected * length) + i, err_msg=name)


@settings(max_examples=40)
@given(
    order=orders,
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**45),
    count=st.integers(0, 60),
    cut=st.integers(0, 60),
)
def test_an_example_is_a_function_of_the_seed_and_its_number(order, seed, first, count, cut):
    windows = make(77, 5, 90, order=order, seed=seed)
    whole = windows.starts(first, count)
    cut = min(cut, count)
    parts = [
        make(77, 5, 90, order=order, seed=seed).starts(*part) for part in ((first + cut, count - cut), (first, cut))
    ]
    np.testing.assert_array_equal(np.concatenate(parts[::-1]), whole)
    assert whole.shape == (count,)


@pytest.mark.parametrize("order", ["random", "consecutive"])
def test_a_run_resumes_at_any_step_as_if_it_had_not_stopped(order, monkeypatch):
    monkeypatch.setattr("kerasformer.data.windows.BLOCK_TOKENS", 60)  # 4 steps: borders of blocks fall elsewhere
    windows = make(120, 80, order=order, seed=7)
    whole = read(windows.dataset(0, 50))
    for step in (1, 3, 4, 13, 49):
        resumed = read(make(120, 80, order=order, seed=7).dataset(step, 50 - step))
        for found, expected in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(found, expected[step * 3 :])


@pytest.mark.parametrize("order", ["random", "consecutive"])
def test_other_seeds_and_epochs_are_other_orders(order):
    def drawn(seed, epoch):
        windows = make(5000, order=order, seed=seed)
        return tuple(windows.starts(epoch * windows.count, windows.count))

    assert len({drawn(seed, epoch) for seed in (0, 1, 2**63) for epoch in (0, 1, 2)}) == 9


def test_random_windows_start_anywhere_alike():
    starts = make(1005, order="random").starts(0, 200_000)
    counts = np.bincount(starts, minlength=1000)
    assert len(counts) == 1000  # the last start leaves room for T inputs and one more label
    chi_squared = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi_squared - 999) < 5 * np.sqrt(2 * 999)


def test_an_epoch_is_shuffled_well():
    """Over many epochs each window comes at each place alike often, and its neighbour next to it seldom."""
    windows = make(61, order="consecutive")  # 12 windows
    orders = windows.starts(0, 12 * 12_000).reshape(-1, 12) // 5
    counts = np.stack([np.bincount(column, minlength=12) for column in orders.T])
    assert abs(((counts - 1000) ** 2 / 1000).sum() - 121) < 5 * np.sqrt(2 * 121)
    follows = (np.diff(orders, axis=1) == 1).mean()
    assert follows == pytest.approx(1 / 12, abs=0.005)


def test_what_a_reader_is_told():
    windows = make(61, batch_size=5)
    assert (windows.tokens, windows.bytes, windows.bytes_per_token) == (61, 244, 4.0)
    assert (windows.count, windows.steps_per_epoch) == (12, 2)
    assert (windows.vocab_size, windows.tokenizer()) == (61, "the tokenizer")
    assert make(7, batch_size=5).steps_per_epoch == 1
    dataset = windows.dataset(2, 3)
    assert int(dataset.cardinality()) == 3
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[5, 5]] * 2


@pytest.mark.parametrize("steps", [0, -1, -3])
def test_no_steps_are_an_empty_dataset(steps):
    dataset = make(100).dataset(5, steps)
    assert dataset.cardinality() == 0
    assert list(dataset) == []


def test_a_dataset_can_be_read_again():
    dataset = make(order="random").dataset(0, 5)
    first, second = (read(dataset)[0].tolist() for _ in range(2))
    assert first == second


def test_an_iterator_that_is_dropped_early_does_not_hang():
    windows = make(10_000)

    def drop():
        next(iter(windows.dataset(0, 1_000_000)))

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "expected a batch_size of at least 1, got 0; raise it"),
        ({"max_length": -1}, "expected a max_length of at least 1, got -1; raise it"),
        ({"seed": -1}, "expected a seed from 0 to 2**64 - 1, got -1; change it"),
        ({"seed": 2**64}, f"expected a seed from 0 to 2**64 - 1, got {2**64}; change it"),
        ({"order": "sorted"}, "expected an order among random, consecutive, got 'sorted'; name one of them"),
        ({"split": "test"}, "corpus: expected a split among train, got 'test'; name one of them"),
        (
            {"max_length": 200},
            "corpus: expected more than max_length tokens, 200, got 200; add text or lower max_length",
        ),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(InputError) as caught:
        make(**options)
    assert str(caught.value) == message


# Batches that grow


@st.composite
def ramps(draw):
    """A ramp and the full batch size."""
    sizes = sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=4)))
    return tuple((size, draw(st.integers(1, 6))) for size in sizes[:-1]), sizes[-1]


@settings(max_examples=12)
@given(ramp=ramps(), order=orders, first=st.integers(0, 30), steps=st.integers(1, 12))
def test_growing_batches_are_cut_from_the_same_sequence_of_examples(ramp, order, first, steps):
    ramp, full = ramp
    windows = make(150, batch_size=full, batch_ramp=ramp, order=order, seed=3)
    sizes = [size for size, count in ramp for _ in range(count)] + [full] * 50
    batches = list(windows.dataset(first, steps).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == sizes[first : first + steps]
    assert [windows.batch_size_at(step) for step in range(40)] == sizes[:40]
    assert [windows.first_example(step) for step in range(40)] == list(np.cumsum([0, *sizes[:39]]))
    found = np.concatenate([token_ids[:, 0] for token_ids, _ in batches])
    np.testing.assert_array_equal(found, windows.starts(sum(sizes[:first]), sum(sizes[first : first + steps])))


@given(ramp=ramps(), step=st.integers(10**6, 10**15))
def test_a_step_far_away_is_found_at_once(ramp, step):
    ramp, full = ramp
    ramp = tuple((size, count * 10**6) for size, count in ramp)
    windows = make(batch_size=full, batch_ramp=ramp)
    gone, examples = 0, 0
    for size, count in ramp:
        examples += size * min(count, max(step - gone, 0))
        gone += count
    assert windows.first_example(step) == examples + full * max(step - gone, 0)
    assert windows.first_example(step + 1) - windows.first_example(step) == windows.batch_size_at(step)


def test_batches_of_one_size_have_a_shape_and_others_have_none():
    windows = make(batch_size=4, batch_ramp=((1, 2), (2, 3)))
    assert [windows.dataset(*span).element_spec[0].shape[0] for span in [(0, 2), (2, 3), (5, 9), (1, 2)]] == [
        1, 2, 4, None,
    ]  # fmt: skip
    assert windows.in_order(1).element_spec[0].shape[0] == 4  # they are validated in full batches


@pytest.mark.parametrize("ramp", [((4, 10),), ((2, 10), (1, 10)), ((0, 10),), ((1, 0),), ((1, 2.5),), ((1,),)])
def test_a_ramp_that_is_none_is_refused(ramp):
    with pytest.raises(InputError, match="expected a batch_ramp of SIZE STEPS pairs whose sizes rise to below"):
        make(batch_size=4, batch_ramp=ramp)


def test_epochs_of_growing_batches_have_no_one_length():
    with pytest.raises(InputError, match="expected a number of steps where batches grow"):
        _ = make(batch_size=4, batch_ramp=((1, 2),)).steps_per_epoch


# What a run is told of


def test_a_step_is_described_by_where_its_windows_start(tmp_path):
    windows = make(7, 200, batch_size=10, seed=3)
    starts = windows.starts(20, 10)
    shown = ", ".join(map(str, starts[:8]))
    assert windows.describe(2) == f"windows of 6 tokens that start at {shown} and 2 more"
    for name, size in (("train-00000.bin", 50), ("train-00001.bin", 150)):
        np.arange(size, dtype=np.uint16).tofile(tmp_path / name)
    arrays = [np.memmap(path, np.uint16, mode="r") for path in sorted(tmp_path.iterdir())]
    shards = Corpus("shards", {"train": Split(arrays, Counts(tokens=200))}, 200, lambda: None)
    windows = Windows(shards, batch_size=2, max_length=5)
    first, second = windows.starts(0, 2)
    places = [
        f"train-00001.bin:{start - 50}" if start >= 50 else f"train-00000.bin:{start}" for start in (first, second)
    ]
    assert windows.describe(0) == f"windows of 6 tokens that start at {places[0]}, {places[1]}"


def test_a_fingerprint_tells_texts_apart():
    assert make(7, 200).fingerprint == make(7, 200, seed=1).fingerprint
    assert len({make(*sizes).fingerprint for sizes in ((7, 200), (8, 199), (7, 201), (207,))}) == 4
