import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasformer.data.split import label_ids, label_names, stratified_split
from kerasformer.errors import InputError


def test_names_are_distinct_and_sorted():
    assert label_names(["tech", "sport", "tech", "business"]) == ["business", "sport", "tech"]


def test_ids_are_places_among_the_names():
    ids = label_ids(["b", "a", "b"], ["b", "a"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [0, 1, 0]


def test_a_label_that_training_lacks_is_refused():
    with pytest.raises(InputError) as caught:
        label_ids(["a", "z"], ["a", "b"], origins=["valid.csv:2", "valid.csv:3"])
    assert str(caught.value) == "valid.csv:3: the label 'z' is none of those trained on: 'a', 'b'; rename or remove it"
    with pytest.raises(InputError, match=r"labels\[0\]: the label 'z'"):
        label_ids(["z"], ["a", "b"])
    with pytest.raises(InputError, match=r"'9', ... and 9,990 others; rename or remove it$"):
        label_ids(["z"], list(map(str, range(10_000))))


@given(
    labels=st.lists(st.sampled_from("abcde"), min_size=2, max_size=200),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63),
)
def test_split_shares_out_every_example_in_proportion(labels, fraction, seed):
    counts = {name: labels.count(name) for name in set(labels)}
    total = min(round(fraction * len(labels)), len(labels) - len(counts))
    if total == 0:
        with pytest.raises(InputError, match="leaves none to hold out"):
            stratified_split(labels, fraction, seed)
        return
    train, held = stratified_split(labels, fraction, seed)
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert len(held) == total
    assert {labels[i] for i in train} == set(labels)
    assert np.all(np.diff(train) > 0) and np.all(np.diff(held) > 0)
    if all(count >= 1 / (1 - fraction) for count in counts.values()):  # no class is short of one to train on
        for name, count in counts.items():
            assert abs(sum(labels[i] == name for i in held) - fraction * count) <= 1


def test_shares_go_to_the_largest_remainders():
    labels = ["a"] * 46 + ["b"] * 33 + ["c"] * 21  # quotas of 4.6, 3.3 and 2.1 out of 10
    _, held = stratified_split(labels, 0.1, seed=0)
    assert [sum(labels[i] == name for i in held) for name in "abc"] == [5, 3, 2]


def test_a_class_of_one_is_trained_on():
    labels = ["rare"] + ["common"] * 9
    train, held = stratified_split(labels, 0.5, seed=3)
    assert 0 in train
    assert len(held) == 5


def test_split_is_the_same_everywhere():
    train, held = stratified_split(["a", "b"] * 8, 0.25, seed=7)
    assert held.tolist() == [3, 6, 11, 12]
    assert not np.array_equal(held, stratified_split(["a", "b"] * 8, 0.25, seed=8)[1])


def test_every_example_is_as_likely_to_be_held_out():
    labels = ["a"] * 10 + ["b"] * 10
    held = np.concatenate([stratified_split(labels, 0.2, seed)[1] for seed in range(1000)])
    assert np.all(np.abs(np.bincount(held, minlength=20) - 200) < 65)  # 5 standard deviations of 12.6


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="expected a fraction between 0 and 1"):
        stratified_split(["a", "b"], fraction, seed=0)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="expected a seed of 0 or more, not -1"):
        stratified_split(["a", "a"], 0.5, seed=-1)


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b"], ["a", "a", "a"]])
def test_too_few_examples_are_refused(labels):
    with pytest.raises(InputError, match="leaves none to hold out"):
        stratified_split(labels, 0.1, seed=0)
