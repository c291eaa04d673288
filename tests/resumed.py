"""What tests of trainings that go on look at."""

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
