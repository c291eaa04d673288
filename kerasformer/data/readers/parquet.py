"""Parquet files, as pandas, Spark and the datasets library write them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasformer.data.readers.columns import Raw, Reading, find_columns
from kerasformer.errors import InputError


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A pyarrow.parquet.ParquetFile.

    Raises:
        InputError: pyarrow is not installed, or the file is no such one, where this shows while it is read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow; pip install 'kerasformer[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a Parquet file that can be read: {reason}") from error


def read_parquet(path: Path, reading: Reading) -> Raw:
    """The values of each field; the numbers of classes that the file names are their names, but for -1.

    Raises:
        InputError: as `open_parquet`, a column that is not there, or the number of a class that is not named.
    """
    with open_parquet(path) as file:
        schema = file.schema_arrow
        places = find_columns(str(path), schema.names, reading.columns)
        columns = {field: schema.names[place] for field, place in places.items()}
        table = file.read(columns=list(columns.values()))
        fields = {field: table.column(column).to_pylist() for field, column in columns.items()}
    origins = [f"{path}: row {row}" for row in range(1, len(table) + 1)]
    classes = _class_names(schema.metadata, columns["label"]) if "label" in columns else None
    if classes:
        fields["label"] = _named(fields["label"], classes, origins)
    return Raw(origins, fields, frozenset(schema.names), classes)


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel, which the datasets library writes beside the schema."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return tuple(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def _named(labels: list[Any], classes: tuple[str, ...], origins: list[str]) -> list[Any]:
    """The names of numbered labels; others, and -1, which stands for none, are left as they are."""
    numbers = {label for label in labels if type(label) is int}
    if strange := numbers - set(range(-1, len(classes))):
        row = next(i for i, label in enumerate(labels) if label in strange)
        raise InputError(
            f"{origins[row]}: the label {labels[row]} is none of the {len(classes)} classes that the file names; "
            "write the file anew"
        )
    return [classes[label] if label in numbers and label >= 0 else label for label in labels]
