"""Labels as they are written in files -> names of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasformer.errors import InputError

UNLABELLED = "-1"  # as the datasets library marks it
KEEP = "--data.missing_label none, missing_label= in Python, makes it a class"


def label_texts(labels: Sequence[Any]) -> list[Any]:
    """Labels with whole numbers and truth values as text: "1" for 1 and for 1.0; others are left as they are."""

    def text(label: Any) -> Any:
        if isinstance(label, int | np.integer | np.bool_):
            return str(label)
        # pandas makes floats of whole numbers beside an empty cell
        return str(int(label)) if isinstance(label, float | np.floating) and label.is_integer() else label

    return list(labels) if set(map(type, labels)) == {str} else [text(label) for label in labels]


def find_missing_label(labels: Sequence[Any], origins: Sequence[str], given: str, named: bool) -> str | None:
    """The label of rows that have none, if there is one.

    Args:
        labels: as `label_texts` gives them.
        origins: where each came from, for the error message.
        given: such a label; none: there is none; auto: -1 where the file names its classes, or beside 0, 1, 2, ...
        named: the file names its classes.

    Raises:
        InputError: auto, and -1 beside 0 and 1 alone, which may be a class as well.
    """
    if given != "auto":
        return None if given == "none" else given
    if named:
        return UNLABELLED
    if UNLABELLED not in labels:
        return None
    found = {label for label in labels if isinstance(label, str)}
    if found - {UNLABELLED} != set(map(str, range(len(found) - 1))) or len(found) < 3:
        return None
    if len(found) == 3:
        origin = origins[list(labels).index(UNLABELLED)]
        raise InputError(
            f"{origin}: the label -1 beside 0 and 1 may be a class, or stand for none; say which with "
            "--data.missing_label none, or --data.missing_label -1 (missing_label= in Python)"
        )
    return UNLABELLED
