"""Learning-rate schedules against their formulas in float64, up to tens of millions of steps."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.errors import InputError
from kerasformer.training.optimizers import common
from kerasformer.training.schedules import SCHEDULES, OneCycle

# By the share of the way that is gone, and the number of steps done.
HEIGHTS = {
    "linear": lambda way, done, warmup: 1 - way,
    "cosine": lambda way, done, warmup: (1 + math.cos(math.pi * way)) / 2,
    "polynomial": lambda way, done, warmup: (1 - way) ** 3.0,
    "inverse_sqrt": lambda way, done, warmup: math.sqrt(max(warmup, 1) / done),
    "constant": lambda way, done, warmup: 1.0,
    "wsd": lambda way, done, warmup: min((1 - way) / 0.3, 1.0),
    "one_cycle": lambda way, done, warmup: float(np.interp(way, [0, 9 / 11, 1], [1, 0.1, 0])),
}
SHAPES = {"polynomial": {"power": 3.0}, "wsd": {"decay_share": 0.3}}


def exact(name: str, peak: float, steps: int, warmup: int, floor: float, step: int) -> float:
    done = step + 1
    if done < warmup:
        return peak * (0.1 + 0.9 * done / warmup if name == "one_cycle" else done / warmup)
    way = min((done - warmup) / (steps + 1 - warmup), 1.0)
    return floor + (peak - floor) * HEIGHTS[name](way, done, warmup)


@st.composite
def places(draw):
    """A run's steps, its warm-up and one of its steps, or one after it."""
    steps = draw(st.integers(1, 60) | st.integers(10**7, 3 * 10**7) | st.just(10**10))
    warmup = draw(st.integers(0, min(steps, 50)) | st.integers(0, steps))
    near = st.integers(max(0, warmup - 3), warmup + 3) | st.integers(max(0, steps - 9), steps + 3)
    return steps, warmup, draw(st.integers(0, steps - 1) | near)


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=30)
@given(place=places(), floor=st.sampled_from([0.0, 1e-2]))
def test_a_rate_is_that_of_its_formula(name, place, floor):
    """Relative to the rate itself, even where next to nothing is left of it: a few roundings of float32.

    A cosine's float64 formula cancels there itself, to about 1e-16 of the peak.
    """
    (steps, warmup, step), peak = place, 0.5
    schedule = SCHEDULES[name](peak, steps, warmup, floor, **SHAPES.get(name, {}))
    rate = float(schedule(tf.constant(step, tf.int64)))
    assert rate == pytest.approx(exact(name, peak, steps, warmup, floor, step), rel=2e-6, abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=8)
@given(steps=st.integers(1, 20), warmup=st.floats(0, 1))
def test_a_rate_rises_to_its_peak_and_never_after_it_and_is_no_zero(name, steps, warmup):
    schedule = SCHEDULES[name](1.0, steps, round(warmup * steps))
    rates = np.array([float(schedule(step)) for step in range(steps)])
    top = max(round(warmup * steps) - 1, 0)
    assert rates.min() > 0 and rates.max() <= 1
    assert all(np.diff(rates[: top + 1]) > 0) and all(np.diff(rates[top:]) <= 0)
    assert rates[top] == pytest.approx(1.0) or not warmup * steps >= 0.5


def test_a_cycle_has_halves_of_a_length_and_an_end():
    rates = [float(OneCycle(1.0, 1000, 450)(step)) for step in range(1000)]
    assert rates[449] == 1.0
    np.testing.assert_allclose(rates[:449], rates[450:899][::-1], atol=3e-3)
    assert rates[900] == pytest.approx(0.1, abs=1e-3) and 0 < rates[999] < 2e-3


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_comes_back_from_its_config_and_is_compiled(name):
    schedule = SCHEDULES[name](0.5, 10**7, 10, 0.1, **SHAPES.get(name, {}))
    again = type(schedule).from_config(schedule.get_config())
    step = keras.Variable(9_999_000, dtype="int64")
    compiled = tf.function(lambda: again(step), jit_compile=True)
    assert float(schedule(step)) == pytest.approx(float(compiled()), rel=1e-6)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.1, 20), (0.99, 198), (1, 1), (50.0, 50), (200, 200)])
def test_a_warmup_is_a_share_or_a_number_of_steps(warmup, steps):
    assert common(1.0, steps=200, warmup=warmup)["learning_rate"].warmup_steps == steps


def test_a_warmup_longer_than_the_run():
    with pytest.raises(InputError, match="expected a warmup of at most the run's 200 steps, got 201; lower it"):
        common(1.0, steps=200, warmup=201)
