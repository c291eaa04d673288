"""How a token is drawn: the distribution, what may be drawn at all, and what a draw depends on."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.generation.sampling import Rules, gumbel, next_tokens, penalised, supported

DRAWS = 20_000
PROBABILITIES = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01], np.float32)
ORDER = [3, 0, 6, 1, 5, 2, 4]  # where each stands among the tokens


def draws(**values) -> np.ndarray:
    """Tokens drawn from PROBABILITIES in ORDER, each with a seed of its own."""
    logits = np.empty(7, np.float32)
    logits[ORDER] = np.log(PROBABILITIES)
    defaults = {"max_new_tokens": 1, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    values = {name: np.full(DRAWS, value) for name, value in (defaults | values).items()}
    rules = Rules(**{n: v.astype(np.float32 if v.dtype == float else np.int32) for n, v in values.items()}, seed=SEEDS)
    drawn = next_tokens(np.tile(logits, (DRAWS, 1)), np.zeros((DRAWS, 7), bool), rules, np.int32(0))
    return np.argsort(ORDER)[drawn.numpy()]  # 0 for the most probable


SEEDS = np.arange(DRAWS, dtype=np.int32)


def test_the_first_of_the_best_is_taken():
    logits = np.array([[1, 3, 3, 2], [-5, -5, -6, -np.inf], [-1, -0.0, 0.0, 0.0]], np.float32)
    rules = Rules(*(np.full(3, value, dtype) for value, dtype in zip((1, 0, 0, 1, 1, 0), "ififfi", strict=True)))
    assert next_tokens(logits, np.zeros((3, 4), bool), rules, np.int32(0)).numpy().tolist() == [1, 0, 1]


def assert_drawn_from(drawn: np.ndarray, probabilities: np.ndarray) -> None:
    """A chi-square test at a level of 0.001."""
    counts = np.bincount(drawn, minlength=7)
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(probabilities))
    expected = DRAWS * probabilities[probabilities > 0] / probabilities.sum()
    statistic = np.sum((counts[probabilities > 0] - expected) ** 2 / expected)
    # Critical values of 0.001 for 1 to 6 degrees of freedom.
    assert statistic < [10.83, 13.82, 16.27, 18.47, 20.52, 22.46][len(expected) - 2]


@pytest.mark.parametrize(
    ("values", "probabilities"),
    [
        ({}, PROBABILITIES),
        ({"temperature": 0.5}, PROBABILITIES**2),
        ({"temperature": 3.0}, PROBABILITIES ** (1 / 3)),
        ({"top_k": 3}, PROBABILITIES * (np.arange(7) < 3)),
        ({"top_k": 99}, PROBABILITIES),
        ({"top_p": 0.7}, PROBABILITIES * (np.arange(7) < 3)),
        ({"top_p": 0.5}, PROBABILITIES * (np.arange(7) < 2)),
        # Of the three best, the first two have 0.8125.
        ({"top_k": 3, "top_p": 0.8}, PROBABILITIES * (np.arange(7) < 2)),
    ],
    ids=str,
)
def test_tokens_are_drawn_in_proportion_to_their_probabilities(values, probabilities):
    assert_drawn_from(draws(**values), probabilities)


@pytest.mark.parametrize(
    "values", [{"temperature": 0.0}, {"temperature": 1e-38}, {"top_k": 1}, {"top_p": 1e-6}], ids=str
)
def test_one_token_may_be_all_that_is_left(values):
    assert not draws(**values).any()


def test_draws_of_successive_steps_and_seeds_are_independent():
    noise = np.stack([gumbel(SEEDS[:2000], np.int32(step), 2).numpy() for step in range(2)]).reshape(2, -1)
    columns = [noise[0][:-1], noise[1][:-1], noise[0][1:]]  # a draw, the next step's, the next token's
    np.testing.assert_allclose(np.corrcoef(columns), np.eye(3), atol=0.06)
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.05)
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.1)


@settings(max_examples=60)
@given(
    st.lists(st.integers(-400, 400), min_size=2, max_size=12, unique=True),
    st.integers(0, 14),
    st.integers(1, 100),
)
def test_supports_are_those_of_sorting(eighths, top_k, percent):
    scores, top_p = np.array([eighths], np.float32) / 8, percent / 100
    order = np.argsort(-scores[0])
    kept = order[: top_k or len(order)]
    probabilities = np.exp(scores[0, kept].astype(float) - scores.max())
    before = np.cumsum(probabilities) - probabilities
    share = before / probabilities.sum()
    kept = kept[(share < top_p) | (top_p == 1)]
    if np.abs(share - top_p).min() > 1e-5:  # nearer, float32 may decide either way
        ours = supported(tf.constant(scores), tf.constant([top_k]), tf.constant([top_p], tf.float32))
        assert set(np.flatnonzero(ours[0])) == set(kept)


def test_ties_with_the_last_token_are_taken_in():
    kept = supported(tf.constant([[1.0, 3.0, 1.0, 2.0, 0.0, -1.0]]), tf.constant([3]), tf.constant([1.0]))
    assert kept.numpy().tolist() == [[True, True, True, True, False, False]]


def test_the_penalty_lowers_what_was_seen():
    scores = penalised(
        tf.constant([[2.0, -2.0, 2.0]] * 2), tf.constant([[True, True, False]] * 2), tf.constant([2.0, 1.0])
    )
    assert scores.numpy().tolist() == [[1.0, -4.0, 2.0], [2.0, -2.0, 2.0]]
