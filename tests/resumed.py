"""What tests of trainings that go on look at."""

import json
from pathlib import Path

import keras
import numpy as np

from kerasformer.data.encoding import classification
from kerasformer.training import state
from kerasformer.training.optimizers import steps_made


class Logs(keras.callbacks.Callback):
    """Keeps what each step logs, by step, and what each epoch does."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs = {}, {}

    def on_train_batch_end(self, batch, logs=None):
        self.steps[steps_made(self.model.optimizer)] = dict(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs[epoch] = dict(logs)


# What a clock or the machine tells, which no two runs have alike.
MEASURED = {"step_seconds", "tokens_per_second", "data_wait_share", "model_flops_utilization", "host_memory_gb"}


def learned(log: Path) -> list[dict]:
    """The records of a metrics.jsonl without what is measured; half a line, as a kill leaves it, is none."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [{name: v for name, v in json.loads(line).items() if name not in MEASURED} for line in lines]


def values_of(model) -> dict[str, np.ndarray]:
    return state.read(state.variables_of(model))


def assert_the_same(found, expected) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def table(classifier, animals, policy="float32"):
    """A small classifier and the data that it learns from: epochs of seven steps."""
    model = classifier(dtype=policy, dropout=0.1, attention_dropout=0.1)
    data, _ = classification(animals, tokenizer=model.tokenizer, max_length=16, batch_size=8, split=0.25)
    return model, data
