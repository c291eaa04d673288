"""Columns by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasformer.data.readers.bad_rows import BadRows
from kerasformer.errors import InputError, listed

FLAGS = {"text": "--data.text_column", "text_pair": "--data.text_pair_column", "label": "--data.label_column"}


@dataclass(frozen=True)
class Reading:
    """What to read of files, and how.

    Args:
        columns: the name of each field's column, the fields being "text", "text_pair" and "label".
        encoding, quoting, delimiter: see `read_examples`.
        bad: gets the rows that cannot be read.
    """

    columns: Mapping[str, str]
    encoding: str
    quoting: str
    delimiter: str
    bad: BadRows


@dataclass(frozen=True)
class Raw:
    """The rows of a source, before any check of the values.

    Args:
        origins: where each row came from.
        fields: the values of each field.
        header: names of all columns, where the kind of file has a header.
        classes: names of the labels, where the file says that these are numbers of classes.
    """

    origins: list[str]
    fields: dict[str, list[Any]]
    header: frozenset[str] | None = None
    classes: tuple[str, ...] | None = None


def spoken(field: str) -> str:
    """A field in words."""
    return field.replace("_", " ")


def find_column(name: str, columns: Sequence[Any], column: str, remedy: str) -> int:
    """The index of the column of that name, which blanks or a byte order mark may surround.

    Args:
        name: of the table, for the error message.
        remedy: tells what to do if there is no such column.

    Raises:
        InputError: there is none, or several.
    """
    if not (found := _indices(columns, column)) or len(found) > 1:
        known = listed([repr(str(other)[:40]) for other in columns]) or "no names"
        raise InputError(
            f"{name}: expected one column {column!r}, found {len(found) or 'none'} among {known}; {remedy}"
        )
    return found[0]


def find_columns(name: str, columns: Sequence[Any], wanted: Mapping[str, str], remedy: str = "") -> dict[str, int]:
    """The index of each field's column; see `find_column`."""
    return {
        field: find_column(
            name, columns, column, f"name the {spoken(field)}s with {FLAGS[field]} ({field}= in Python){remedy}"
        )
        for field, column in wanted.items()
    }


def has_columns(columns: Sequence[Any], wanted: Mapping[str, str]) -> bool:
    """Whether each wanted column is there once."""
    return all(len(_indices(columns, column)) == 1 for column in wanted.values())


def trimmed(name: Any) -> str:
    """A column's name without the blanks or the byte order mark around it."""
    return str(name).strip().strip("\ufeff").strip()


def _indices(columns: Sequence[Any], column: str) -> list[int]:
    exact = [i for i, other in enumerate(columns) if other == column]
    return exact or [i for i, other in enumerate(columns) if trimmed(other) == column]
