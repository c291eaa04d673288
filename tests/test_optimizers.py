"""Optimizers against float64 NumPy: decay, clipping, shares of the rate and all; and fine-tuning by depth."""

import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.config import learning
from kerasformer.config.run import Optimizer, Schedule
from kerasformer.training import averages, optimizers
from kerasformer.training.optimizers import OPTIMIZERS
from kerasformer.training.schedules import SCHEDULES

STEPS, DECAY, CLIP = 5, 0.1, 1.0
SHAPES = {"net/kernel": (4, 6), "net/embeddings": (5, 3), "net/bias": (6,), "net/gamma": (3,)}
SHARES = {"net/kernel": 0.5, "net/bias": 0.25}


def numbers(seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype(np.float32).astype(np.float64) for shape in SHAPES.values()]


def rms(values: np.ndarray) -> float:
    return np.sqrt(np.mean(values**2))


def adamw(w, g, rate, decay, t, slots, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    m, v = slots.setdefault("m", 0 * g), slots.setdefault("v", 0 * g)
    m += (1 - beta_1) * (g - m)
    v += (1 - beta_2) * (g**2 - v)
    # The order of section 2 of Kingma & Ba 2014, which TensorFlow has: epsilon is added to what is not yet corrected.
    return w - rate * decay * w - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)


def muon(w, g, rate, decay, t, slots):
    if slots["path"] != "net/kernel":
        return adamw(w, g, rate, decay, t, slots)
    m = slots.setdefault("m", 0 * g)
    m += g - 0.05 * m
    x = g + 0.95 * m
    x /= np.linalg.norm(x) + 1e-7
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return w - rate * decay * w - rate * 0.2 * np.sqrt(max(w.shape)) * x


def lamb(w, g, rate, decay, t, slots):
    m, v = slots.setdefault("m", 0 * g), slots.setdefault("v", 0 * g)
    m += 0.1 * (g - m)
    v += 0.001 * (g**2 - v)
    step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + decay * w
    return w - rate * np.linalg.norm(w) / np.linalg.norm(step) * step


def lion(w, g, rate, decay, t, slots):
    m = slots.setdefault("m", 0 * g)
    step = np.sign(0.9 * m + 0.1 * g)
    m += 0.01 * (g - m)
    return w - rate * (step + decay * w)


def adafactor(w, g, rate, decay, t, slots):
    square, keep = g**2 + 1e-30, 1 - t**-0.8
    if w.ndim == 2:
        r = slots["r"] = keep * slots.get("r", 0) + (1 - keep) * square.sum(axis=1)
        c = slots["c"] = keep * slots.get("c", 0) + (1 - keep) * square.sum(axis=0)
        second = np.outer(r, c) / r.sum()  # algorithm 4 of the paper
    else:
        second = slots["v"] = keep * slots.get("v", 0) + (1 - keep) * square
    step = g / np.sqrt(second)
    step /= max(1, rms(step))
    w = w - rate * decay * w
    return w - rate * max(1e-3, rms(w)) * step


def sgd(w, g, rate, decay, t, slots):
    m = slots.setdefault("m", 0 * g)
    m *= 0.9
    m -= rate * g
    return w - rate * decay * w + m


REFERENCES = {"adamw": adamw, "muon": muon, "lamb": lamb, "lion": lion, "adafactor": adafactor, "sgd": sgd}


def expected(name: str, averaged: bool = False) -> list[np.ndarray]:
    """The weights, or their averages, after STEPS steps at a rate that rises to 0.1 in 2 and falls to 0 at 8."""
    weights, slots, averages = numbers(0), [{"path": path} for path in SHAPES], None
    for t in range(1, STEPS + 1):
        gradients = numbers(t)
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
        rate = 0.1 * min(t / 2, (8 + 1 - t) / (8 + 1 - 2))
        for i, path in enumerate(SHAPES):
            decay = 0 if path in ("net/bias", "net/gamma") else DECAY
            gradient = gradients[i] * min(1, CLIP / norm)
            weights[i] = REFERENCES[name](weights[i], gradient, rate * SHARES.get(path, 1), decay, t, slots[i])
        averages = list(weights) if t == 1 else [0.7 * a + 0.3 * w for a, w in zip(averages, weights, strict=True)]
    return averages if averaged else weights


def variables() -> list[keras.Variable]:
    made = [
        keras.Variable(value, dtype="float32", name=path[4:]) for path, value in zip(SHAPES, numbers(0), strict=True)
    ]
    for variable, path in zip(made, SHAPES, strict=True):
        variable._path = path
    return made


def settings(name: str) -> dict:
    return {"steps": 8, "warmup": 2, "weight_decay": DECAY, "clip_norm": CLIP, "ema": 0.7, "rate_shares": SHARES}


# Tolerance: float32 rounds at 6e-8. The Newton-Schulz iteration of Muon enlarges that some hundred times, and the sign
# in Lion is of numbers that are nowhere near zero.
TOLERANCES = {"muon": 1e-4}
OUR_STEPS = ("adamw", "lamb", "adafactor")  # the others' are Keras's


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *((name, False) for name in OPTIMIZERS),
        *(pytest.param(name, True, marks=() if name in OUR_STEPS else pytest.mark.slow) for name in OPTIMIZERS),
    ],
)
def test_steps_are_those_of_numpy(name, compiled):
    trained = variables()
    optimizer = OPTIMIZERS[name](0.1, **settings(name))
    optimizer.build(trained)
    step = tf.function(lambda gradients: optimizer.apply(gradients, trained), jit_compile=compiled)
    for t in range(1, STEPS + 1):
        step([tf.constant(g, tf.float32) for g in numbers(t)])
    tolerance = TOLERANCES.get(name, 3e-6)
    found = [v.numpy() for v in trained], [v.numpy() for v in optimizer._model_variables_moving_average]
    for values, averaged in zip(found, (False, True), strict=True):
        for path, value, reference in zip(SHAPES, values, expected(name, averaged), strict=True):
            np.testing.assert_allclose(value, reference, rtol=tolerance, atol=tolerance, err_msg=path)


REPLICAS = """
import sys
import tensorflow as tf
sys.path.insert(0, "tests")
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_optimizers
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name in test_optimizers.OUR_STEPS:
    test_optimizers.step_on_replicas(strategy, name)
"""


def step_on_replicas(strategy: tf.distribute.Strategy, name: str) -> None:
    """An optimizer's steps, on gradients that are all-reduced and cut beforehand as the training step's are."""
    with strategy.scope():
        trained, optimizer = variables(), OPTIMIZERS[name](0.1, **settings(name) | {"clip_norm": None})
        optimizer.build(trained)
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs

    @tf.function
    def step(gradients):
        strategy.run(lambda: optimizer.apply(tf.clip_by_global_norm(gradients, CLIP)[0], trained))

    for t in range(1, STEPS + 1):
        step([tf.constant(g, tf.float32) for g in numbers(t)])
    assert_copies(strategy, trained, expected(name))
    with averages.averaged(SimpleNamespace(optimizer=optimizer)):
        assert_copies(strategy, trained, expected(name, averaged=True))
    assert_copies(strategy, trained, expected(name))
    print(name)


def assert_copies(strategy: tf.distribute.Strategy, variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_allclose(copy, value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_steps_on_two_replicas_are_those_of_numpy():
    command = [sys.executable, "-c", REPLICAS]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout.split() == list(OUR_STEPS), done.stderr


def test_adafactor_s_rate_has_a_limit_of_which_a_variable_has_its_share():
    start, trained = numbers(0), variables()
    optimizer = optimizers.adafactor(9.0, steps=8, warmup=0, schedule="constant", weight_decay=0.0, rate_shares=SHARES)
    optimizer.build(trained)
    optimizer.iterations.assign(99)
    optimizer.apply([tf.ones(shape) for shape in SHAPES.values()], trained)
    for path, before, after in zip(SHAPES, start, trained, strict=True):
        moved = SHARES.get(path, 1) * 0.1 * rms(before)  # 1 / sqrt(100), whatever the rate
        assert rms(before - after.numpy()) == pytest.approx(moved, rel=1e-3), path


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix():
    optimizer, trained = optimizers.adafactor(1e-2, steps=8), variables()
    optimizer.build(trained)
    sizes = sorted(int(np.prod(v.shape)) for v in optimizer.variables if "moments" in v.path)
    assert sizes == [3, 3, 4, 5, 6, 6]  # 4 + 6 and 5 + 3 of the matrices, and all of the vectors


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_comes_back_from_its_config(name):
    optimizer = OPTIMIZERS[name](0.1, **settings(name))
    again = keras.optimizers.deserialize(
        keras.optimizers.serialize(optimizer),
        custom_objects={type(o).__name__: type(o) for o in (optimizer, optimizer._learning_rate)},
    )
    assert again.get_config() == optimizer.get_config()
    assert again.rate_shares == SHARES


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_settings_that_a_recipe_allows_are_those_that_there_are(name):
    own = inspect.signature(OPTIMIZERS[name]).parameters.keys() & {"beta_1", "beta_2", "momentum"}
    assert own == set(learning.OPTIMIZERS[name])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_shapes_that_a_recipe_allows_are_those_that_there_are(name):
    own = inspect.signature(SCHEDULES[name].__init__).parameters.keys() & {"power", "decay_share"}
    assert own == set(learning.SCHEDULES[name]) - {"min_learning_rate"}


def test_a_recipe_has_the_optimizers_and_schedules_that_there_are():
    assert set(get_args(Optimizer)) == OPTIMIZERS.keys() == learning.OPTIMIZERS.keys()
    assert set(get_args(Schedule)) == SCHEDULES.keys() == learning.SCHEDULES.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_a_checkpoint(name, tmp_path):
    """Slots, averages and the step: what is restored after two steps makes the third one."""

    def made() -> tuple[list[keras.Variable], keras.Optimizer, tf.train.Checkpoint]:
        trained, optimizer = variables(), OPTIMIZERS[name](0.1, **settings(name))
        optimizer.build(trained)
        return trained, optimizer, tf.train.Checkpoint(optimizer=optimizer, weights=[v.value for v in trained])

    def step(trained, optimizer, t):
        optimizer.apply([tf.constant(g, tf.float32) for g in numbers(t)], trained)

    trained, optimizer, checkpoint = made()
    for t in (1, 2):
        step(trained, optimizer, t)
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    again, other, reader = made()
    reader.read(path).assert_consumed()
    for values in ((trained, optimizer), (again, other)):
        step(*values, 3)
    for mine, theirs in zip((*trained, *optimizer.variables), (*again, *other.variables), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
