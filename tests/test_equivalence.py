"""One training, however it is divided: the bars of benchmarks/equivalence.py, for every head.

Processes of their own train on each setting, so that all settings together are slow; the fast one divides a training in
every way that one host can without XLA.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FAST = ("2 devices, accumulate 2, 5 steps",)


def benchmark() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks/equivalence.py"
    spec = importlib.util.spec_from_file_location("equivalence", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


equivalence = benchmark()


@pytest.fixture(scope="module")
def one_device() -> dict:
    return equivalence.run(equivalence.Setting(), stock=False)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in equivalence.SETTINGS]
)
def test_gradients_weights_and_losses_are_those_of_one_device(one_device, name):
    found = equivalence.run(equivalence.SETTINGS[name], stock=False)
    distances = list(equivalence.distances(found, one_device))
    assert len(distances) == 9, distances  # three figures of three heads
    assert all(value <= equivalence.BARS[figure] for _, figure, value in distances), distances


def test_a_training_that_differs_is_found(one_device):
    wrong = {name: values * (1 + 2e-4) for name, values in one_device.items()}
    assert all(value > equivalence.BARS[figure] for _, figure, value in equivalence.distances(wrong, one_device))
