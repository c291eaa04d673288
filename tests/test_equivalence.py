"""One training, however it is divided: the bars of benchmarks/equivalence.py, for every head.

Processes of their own train on each setting, so that all settings together are slow; the fast one divides one training
in every way that one host can without XLA.
"""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def benchmark() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/equivalence.py"
    spec = importlib.util.spec_from_file_location("equivalence", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


equivalence = benchmark()


ALL = (equivalence.HEADS, tuple(equivalence.BARS))
ONE = (("gpt",), ("weights",))


@functools.cache
def one_device(heads: tuple[str, ...], figures: tuple[str, ...]) -> dict:
    return equivalence.measure(equivalence.Setting(), False, heads, figures)


def assert_like_one_device(name: str, heads: tuple[str, ...], figures: tuple[str, ...]) -> None:
    found = equivalence.run(equivalence.SETTINGS[name], False, heads, figures)
    distances = list(equivalence.distances(found, one_device(heads, figures)))
    assert len(distances) == len(figures) * len(heads), distances
    assert all(value <= equivalence.BARS[figure] for _, figure, value in distances), distances


def test_weights_after_twenty_steps_are_those_of_one_device():
    assert_like_one_device("2 devices, accumulate 2, 5 steps", *ONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", equivalence.SETTINGS)
def test_every_head_however_it_is_divided(name):
    assert_like_one_device(name, *ALL)


def test_a_training_that_differs_is_found():
    right = one_device(*ONE)
    wrong = {name: values * (1 + 2e-4) for name, values in right.items()}
    assert all(value > equivalence.BARS[figure] for _, figure, value in equivalence.distances(wrong, right))
