"""Texts in whatever container they come: lists, NumPy arrays, columns of tables, tensors."""

from collections.abc import Sequence
from typing import Any

from kerasformer.errors import InputError

# What containers call their conversion to a list: NumPy and pandas, PyArrow, Polars and ragged tensors.
_TO_LIST = ("tolist", "to_pylist", "to_list")


def as_list(values: Any) -> Any:
    """An array, a column of a table or a tensor as a Python list (a value, if it has no dimension); others as is."""
    if isinstance(values, str | bytes | bytearray | memoryview | list | tuple | dict):
        return values
    for name in _TO_LIST:
        if callable(convert := getattr(values, name, None)):
            return convert()
    for name in ("to_numpy", "numpy", "__array__"):  # a table of two columns; an eager tensor
        if callable(convert := getattr(values, name, None)):
            values = convert()
            return values.tolist() if hasattr(values, "tolist") else values
    return values


def as_text(value: Any, name: str = "text") -> Any:
    """UTF-8 bytes, as TensorFlow and NumPy hold texts, as a string; other values as they are.

    Raises:
        InputError: bytes that are not UTF-8; `name` says which.
    """
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: expected UTF-8 text, got {value!r:.60}; decode the bytes first") from error


def holds_texts(values: Any) -> bool:
    """Whether values are texts, or rows or columns of texts, judged by the first ones; a list of nothing may be."""
    values = as_list(values)
    if not isinstance(values, list | tuple):
        return isinstance(values, str | bytes)
    first = next((value for value in values if not _is_missing(value)), None)
    return first is None or holds_texts(first)


def text_columns(values: Any) -> tuple[list[str], list[str] | None]:
    """Texts, and the second texts where the values are pairs.

    Args:
        values: one text; texts; rows of two texts; or a tuple of two columns of texts.

    Raises:
        InputError: no texts, or a row that is not a text, or not a pair where the first row is one.
    """
    if isinstance(values, tuple) and len(values) == 2 and not any(isinstance(part, str | tuple) for part in values):
        first, second = (as_list(part) for part in values)
        if isinstance(first, list) and isinstance(second, list):
            if len(first) != len(second):
                raise InputError(
                    f"text_pairs: expected {len(first)}, one for each text, got {len(second)}; pair them up"
                )
            return _texts(first, "texts"), _texts(second, "text_pairs")
    values = as_list(values)
    values = [values] if isinstance(values, str | bytes) else values
    if not isinstance(values, Sequence):
        raise InputError(f"expected texts or (text, text_pair) tuples, got a {type(values).__name__}; pass a list")
    rows = [as_list(value) for value in values]
    if not rows:
        raise InputError("expected texts, got none; pass at least one")
    if not isinstance(rows[0], list | tuple):
        return _texts(rows, "texts"), None
    for i, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != 2:
            raise InputError(f"texts[{i}]: expected texts or (text, text_pair) tuples, all alike, got {row!r:.60}")
    return _texts([row[0] for row in rows], "texts"), _texts([row[1] for row in rows], "text_pairs")


def _texts(values: Sequence[Any], name: str) -> list[str]:
    texts = [as_text(value, f"{name}[{i}]") for i, value in enumerate(values)]
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}]: expected texts or (text, text_pair) tuples, all alike, got {text!r:.60}")
    return texts


def _is_missing(value: Any) -> bool:
    """Whether a table has no value here: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)
