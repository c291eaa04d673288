"""Averages of the weights: evaluated and saved in their place, and nothing to the training."""

import contextlib

import keras
import numpy as np
import pytest

from kerasformer.data.encoding import classification
from kerasformer.training.averages import averaged
from kerasformer.training.callbacks import AveragedValidation, BestModel, Evaluation
from kerasformer.training.optimizers import adamw
from kerasformer.training.tasks import Classifier


def fitted(classifier, animals, callbacks=(), **settings):
    """A model after two epochs, its data, and the optimizer's averages."""
    model = classifier()
    train, valid = classification(animals, tokenizer=model.tokenizer, labels=model.labels, max_length=16, batch_size=24)
    model.compile(adamw(1e-2, steps=2 * len(train), **settings), jit_compile=False)
    model.fit(train, epochs=2, callbacks=[c(valid) for c in callbacks], verbose=0)
    return model


class Keeper(keras.callbacks.Callback):
    """Keeps the weights after each step, and the averages of them at a momentum of 0.5, in float64."""

    def __init__(self, valid=None):
        super().__init__()
        self.weights, self.averages = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append([v.numpy() for v in self.model.trainable_variables])
        last = self.averages[-1] if self.averages else self.weights[-1]
        self.averages.append(
            [0.5 * a + 0.5 * w.astype(np.float64) for a, w in zip(last, self.weights[-1], strict=True)]
        )


def test_averages_are_evaluated_and_saved_and_the_training_is_the_same(classifier, animals, tmp_path):
    plain, kept, seen = Keeper(), Keeper(), {}

    class Probe(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch] = dict(logs)
            saved = Classifier.from_pretrained(tmp_path / "model")
            for now, average, weight in zip(
                saved.trainable_variables, kept.averages[-1], self.model.trainable_variables, strict=True
            ):
                np.testing.assert_allclose(now.numpy(), average, rtol=1e-5, atol=1e-6)
                assert weight.trainable
            for value, weight in zip(kept.weights[-1], self.model.trainable_variables, strict=True):
                np.testing.assert_array_equal(value, weight.numpy())  # the weights are back, bit for bit

    fitted(classifier, animals, [lambda valid: plain])
    watched = [lambda valid: kept, Evaluation, lambda valid: BestModel(tmp_path / "model", "nothing")]
    model = fitted(classifier, animals, [*watched, lambda valid: Probe()], ema=0.5)
    for mine, theirs in zip(plain.weights, kept.weights, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)  # threads may add in another order
    # At the end the model has the averages, and so the figures of the last evaluation.
    _, valid = classification(animals, tokenizer=model.tokenizer, labels=model.labels, max_length=16)
    evaluation = Evaluation(valid)
    evaluation.set_model(model)
    model.optimizer.use_ema = False
    evaluation.on_epoch_end(0, logs := {})
    assert seen[1]["val_loss"] == pytest.approx(logs["val_loss"], rel=1e-5)


def test_weights_are_back_after_an_error_and_before_the_first_step_there_are_no_averages(classifier, animals):
    model = classifier()
    model.compile(adamw(1e-2, steps=2, ema=0.5), jit_compile=False)
    before = [v.numpy() for v in model.trainable_variables]
    with averaged(model):
        assert all(np.array_equal(v.numpy(), b) for v, b in zip(model.trainable_variables, before, strict=True))
    model.optimizer.iterations.assign(1)  # as if there were: they are zero
    with contextlib.suppress(KeyboardInterrupt), averaged(model):
        assert not any(v.numpy().any() for v in model.trainable_variables)
        raise KeyboardInterrupt
    assert all(np.array_equal(v.numpy(), b) for v, b in zip(model.trainable_variables, before, strict=True))


def test_keras_s_validation_has_the_averages_too(classifier, animals):
    model = classifier()
    train, valid = classification(animals, tokenizer=model.tokenizer, labels=model.labels, max_length=16)
    model.compile(adamw(0.1, steps=len(train), warmup=0, schedule="constant", ema=0.99), jit_compile=False)
    history = model.fit(train, validation_data=valid, callbacks=[AveragedValidation()], verbose=0)
    end = model.evaluate(valid, return_dict=True, verbose=0)["loss"]  # Keras leaves the averages in the model
    assert history.history["val_loss"][0] == pytest.approx(end, rel=1e-5)
