"""How well a model does.

A classifier: accuracy, macro F1, the confusion matrix and the examples it gets wrong. A language model: perplexity and
bits per byte.

Shapes: N examples, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from kerasformer.data.batches import Batches
from kerasformer.data.masking import MaskedWindows
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.training.averages import averaged


@dataclass(frozen=True, eq=False)
class Report:
    """Figures of one evaluation.

    Args:
        labels: names of the C classes.
        truth: [N] class ids.
        probabilities: [N, C].
    """

    labels: Sequence[str]
    truth: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        """[N] class ids."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """Counts [C, C]: true class by predicted class."""
        return self.confusion_of(np.arange(len(self.labels)))

    def confusion_of(self, classes: np.ndarray) -> np.ndarray:
        """Counts [K, K] of some classes, by their ids [K]: true class by predicted class."""
        places = np.full(len(self.labels), -1)
        places[classes] = np.arange(len(classes))
        truth, predicted = places[self.truth], places[self.predicted]
        shown = (truth >= 0) & (predicted >= 0)
        counts = np.zeros([len(classes)] * 2, np.int64)
        np.add.at(counts, (truth[shown], predicted[shown]), 1)
        return counts

    @property
    def support(self) -> np.ndarray:
        """Examples [C] of each class."""
        return np.bincount(self.truth, minlength=len(self.labels))

    def most_mistaken(self, count: int) -> np.ndarray:
        """The ids of the classes that are most often missed or wrongly predicted, in the order of the labels."""
        wrong = self.predicted != self.truth
        mistakes = sum(np.bincount(ids[wrong], minlength=len(self.labels)) for ids in (self.truth, self.predicted))
        return np.sort(np.argsort(-mistakes, kind="stable")[:count])

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return float(-np.log(np.maximum(self.probabilities[np.arange(len(self.truth)), self.truth], 1e-12)).mean())

    @property
    def accuracy(self) -> float:
        """Fraction of the examples whose class is predicted."""
        return float((self.predicted == self.truth).mean())

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur, in truth or in prediction."""
        classes = len(self.labels)
        occurrences = self.support + np.bincount(self.predicted, minlength=classes)  # 2 TP + FP + FN of each class
        hits = np.bincount(self.truth[self.predicted == self.truth], minlength=classes)
        occurs = occurrences > 0
        return float((2 * hits[occurs] / occurrences[occurs]).mean())

    @property
    def mistakes(self) -> np.ndarray:
        """Indices of the misclassified examples, the surest mistake first."""
        wrong = np.flatnonzero(self.predicted != self.truth)
        return wrong[np.argsort(-self.probabilities[wrong, self.predicted[wrong]], kind="stable")]

    def figures(self) -> dict[str, float]:
        """Loss, accuracy and macro F1 by name."""
        return {"loss": self.loss, "accuracy": self.accuracy, "macro_f1": self.macro_f1}


class Evaluation(keras.callbacks.Callback):
    """Evaluates on `batches` after each epoch, in one pass; logs `val_loss`, `val_accuracy` and `val_macro_f1`.

    `report` holds the last evaluation. Place it before the callbacks that read these logs.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        if not isinstance(batches, Batches) or batches.label_ids is None:
            found = "unlabelled Batches" if isinstance(batches, Batches) else f"a {type(batches).__name__}"
            raise InputError(
                f"expected labelled Batches to evaluate on, got {found}; read them with kf.data.classification"
            )
        self.batches = batches
        self.report: Report | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.report = None  # whose probabilities may be gigabytes
        with averaged(self.model):
            self.report = Report(self.batches.labels, self.batches.label_ids, self.model.predict(self.batches))
        if logs is not None:
            logs |= {f"val_{name}": value for name, value in self.report.figures().items()}


def language_figures(
    model: keras.Model, windows: Windows | MaskedWindows, batches: int | None = None
) -> dict[str, float]:
    """Loss in nats a predicted token, perplexity, and of next tokens bits a byte of the text.

    Args:
        model: a compiled CausalLM or MaskedLM.
        windows: are read in order, once.
        batches: how many of them; all by default.
    """
    loss = model.evaluate(model.validation_set(windows, batches), verbose=0, return_dict=True)["loss"]
    loss /= model.loss_weight
    figures = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if isinstance(windows, MaskedWindows):
        return figures
    return figures | {"bits_per_byte": loss / math.log(2) / windows.bytes_per_token}


class Perplexity(keras.callbacks.Callback):
    """Evaluates a language model after each epoch; logs `val_loss`, `val_perplexity` and what else is measured.

    Place it before the callbacks that read these logs.

    Args:
        batches: how much of `windows` is read; all by default.
    """

    def __init__(self, windows: Windows | MaskedWindows, batches: int | None = None):
        super().__init__()
        if not isinstance(windows, Windows | MaskedWindows):
            raise InputError(
                f"expected Windows or MaskedWindows to evaluate on, got a {type(windows).__name__}; "
                "read them with kf.data.language_modelling"
            )
        self.windows, self.batches = windows, batches

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        with averaged(self.model):
            figures = language_figures(self.model, self.windows, self.batches)
        if logs is not None:
            logs |= {f"val_{name}": value for name, value in figures.items()}
