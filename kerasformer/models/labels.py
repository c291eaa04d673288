"""The labels of a classifier, and what a `config.json` says of them."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasformer.errors import InputError, listed
from kerasformer.models.config import CONFIG_FILE

logger = logging.getLogger(__name__)

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


class Unusable(Exception):
    """Why a folder's classifier is not used, as what may follow the folder's name: "has no classifier"."""


@dataclass(frozen=True)
class TrainedLabels:
    """The labels that a classifier was trained with.

    Args:
        labels: in the order of the logits.
        multi_label: any number of them may be true of a text.
    """

    labels: list[str]
    multi_label: bool

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "TrainedLabels":
        """Reads them from a `config.json`.

        Raises:
            Unusable: the classifier is of another kind, or its labels are not told apart.
        """
        labels, problem = _labels(values), values.get("problem_type") or SINGLE_LABEL
        if problem == REGRESSION or (problem == SINGLE_LABEL and len(labels) == 1):
            raise Unusable(f"has a model of problem_type {REGRESSION}, which predicts a number and no label")
        if problem not in (SINGLE_LABEL, MULTI_LABEL):
            raise Unusable(f"has a model of problem_type {problem!r}, and not {SINGLE_LABEL} or {MULTI_LABEL}")
        return cls(labels, problem == MULTI_LABEL)

    def order_of(self, labels: Sequence[str], multi_label: bool | None) -> list[int]:
        """Where each of the wanted labels stands among these.

        Args:
            multi_label: as wanted; None for either.

        Raises:
            Unusable: other labels are wanted, or another problem.
        """
        labels = [str(label) for label in labels]
        if multi_label not in (None, self.multi_label):
            raise Unusable(f"has a classifier of problem_type {MULTI_LABEL if self.multi_label else SINGLE_LABEL}")
        if sorted(labels) != sorted(self.labels):
            raise Unusable(f"has a classifier of the labels {quoted(self.labels)} and not {quoted(labels)}")
        indices = {label: i for i, label in enumerate(self.labels)}
        return [indices[label] for label in labels]


def check_labels(labels: Sequence[str], *, multi_label: bool = False) -> list[str]:
    """The labels as a list.

    Args:
        multi_label: any number of them may be true, so that one alone makes sense.

    Raises:
        InputError: no list, fewer than two, one given twice, or one that is not a line.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise InputError(f"expected a list of labels, got {labels!r:.60}; pass their names")
    labels = [str(label) for label in labels]
    if len(labels) < (1 if multi_label else 2):
        raise InputError(f"expected at least two labels, got {labels}; a classifier tells classes apart")
    if broken := [label for label in labels if label.splitlines() != [label]]:
        raise InputError(f"expected labels of one line, got {broken[0]!r}; rename it")
    if twice := sorted(label for label, count in Counter(labels).items() if count > 1):
        raise InputError(f"expected each label once, got [{quoted(twice)}] more than once; remove the repetition")
    return labels


def _labels(values: Mapping[str, Any]) -> list[str]:
    """The labels of a `config.json`; as `transformers`, LABEL_0 and so on where it has none or of another number."""
    names, count = values.get("id2label"), values.get("num_labels")
    if names is None or (isinstance(names, dict) and count not in (None, len(names))):
        if names is not None:
            logger.warning(
                "num_labels is %s in %s, which does not use the %d names of id2label", count, CONFIG_FILE, len(names)
            )
        count = 2 if count is None else count
        if type(count) is not int or count < 1:
            raise Unusable(f"has num_labels {count!r}")
        return [f"LABEL_{i}" for i in range(count)]
    ids = [str(i) for i in range(len(names))]
    if not isinstance(names, dict) or sorted(names) != sorted(ids):
        raise Unusable(f"has an id2label whose ids are not 0, 1 and so on, {quoted(names)}")
    labels, by_label = [str(names[i]) for i in ids], values.get("label2id")
    if len(set(labels)) < len(labels):
        raise Unusable(f"has an id2label that gives several ids one name, {quoted(labels)}")
    if isinstance(by_label, dict) and (others := {n: i for n, i in by_label.items() if labels[i : i + 1] != [n]}):
        logger.warning("label2id says %s in %s, where id2label, which is used, does not", others, CONFIG_FILE)
    return labels


def quoted(labels: Iterable[str]) -> str:
    """Labels in a message, of which the first are enough."""
    return listed([repr(label) for label in labels])
