"""Labelled texts from wherever they are: tables, JSON lines, Parquet, class folders, Python lists."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasformer.data.reading import (
    check_column,
    fault_of,
    kind_of,
    open_parquet,
    read_json_lines,
    read_text,
    unreadable,
)
from kerasformer.errors import InputError

KINDS = ".csv, .tsv, .jsonl (each also as .gz), .parquet, or a folder of <label>/*.txt"
FLAGS = {"text": "--data.text_column", "text_pair": "--data.text_pair_column", "label": "--data.label_column"}

Source = str | os.PathLike[str] | tuple | list

Wanted = dict[str, str]  # field ("text", "text_pair", "label") -> the name of its column
Raw = tuple[list[str], dict[str, list[Any]]]  # origins, and for each field its values before any check


@dataclass(frozen=True)
class Examples:
    """Texts, their labels and where each came from ("news.csv:17"), in step."""

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[str] | None
    origins: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        """The examples at `indices`, in that order."""
        columns = (self.texts, self.text_pairs, self.labels, self.origins)
        return Examples(*(None if values is None else [values[i] for i in indices] for values in columns))


def read_examples(
    source: Source,
    *,
    text: str = "text",
    text_pair: str | None = None,
    label: str | None = "label",
    encoding: str = "utf-8",
) -> Examples:
    """Read every example of `source`, exactly as written.

    Args:
        source: a .csv or .tsv file with a header, .jsonl (these three also as .gz) or .parquet; a folder of
            `<label>/*.txt`; a tuple `(texts, labels)` or `(texts, text_pairs, labels)`; a list of dicts. Without
            labels, also a folder of `*.txt` or a list of strings.
        text, text_pair, label: columns, or keys of the dicts. `label=None` reads unlabelled texts.
        encoding: of the text files; a byte order mark is dropped.

    Raises:
        InputError: the source cannot be read, lacks a column, or an example lacks a usable text, text pair or label.
    """
    fields = {"text": text, "text_pair": text_pair, "label": label}
    wanted = {field: column for field, column in fields.items() if column is not None}
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        origins, raw = _read_path(Path(source), wanted, encoding)
    else:
        name = "examples"
        origins, raw = _read_lists(source, wanted)
    if not origins:
        raise InputError(f"{name}: expected examples, found none; add some, or name another source")
    if absent := [_spoken(field) for field in wanted if field not in raw]:
        raise InputError(
            f"{name}: expected {absent[0]}s, found none; pass a table, dicts or (texts, text_pairs, labels)"
        )
    if "label" in raw:
        raw["label"] = [str(v) if isinstance(v, int | np.integer | np.bool_) else v for v in raw["label"]]
    for field, values in raw.items():
        _check_values(field, values, origins)
    return Examples(raw["text"], raw.get("text_pair"), raw.get("label"), origins)


def check_labels(examples: Examples) -> None:
    """Refuse examples that no classifier can learn from: unlabelled, or all of one class."""
    if not examples.labels:
        raise InputError("expected labelled examples, found no labels; name their column with --data.label_column")
    if len(set(examples.labels)) == 1:
        first = examples.origins[0]
        label = examples.labels[0]
        raise InputError(f"{first}: expected two classes or more, but every label is {label!r}; add texts of others")


def _read_path(path: Path, wanted: Wanted, encoding: str) -> Raw:
    if not os.path.exists(path):
        raise InputError(f"expected a file or folder of texts, found none at {str(path)!r:.200}; check the path")
    try:
        if path.is_dir():
            return _read_folder(path, wanted, encoding)
        match kind_of(path):
            case ".csv":
                return _parse_table(str(path), _read_text(path, encoding), ",", wanted)
            case ".tsv":
                return _parse_table(str(path), _read_text(path, encoding), "\t", wanted)
            case ".jsonl":
                return _read_json_lines(path, encoding, wanted)
            case ".parquet":
                return _read_parquet(path, wanted)
    except OSError as error:
        raise unreadable(path, error) from error
    raise InputError(f"{path}: unknown kind of file; expected {KINDS}: convert it")


def _read_text(path: Path, encoding: str) -> str:
    return "".join(read_text(path, encoding))


def _read_folder(root: Path, wanted: Wanted, encoding: str) -> Raw:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {folder: _text_files(folder) for folder in folders}
    if "label" not in wanted:
        files = {root: _text_files(root), **files}
    elif not folders:
        raise InputError(f"{root}: no class folders in it; expected <label>/*.txt: sort the texts so")
    elif empty := [folder for folder, inside in files.items() if not inside]:
        raise InputError(
            f"{empty[0]}: no .txt files in this class folder; expected <label>/*.txt: add some or remove it"
        )
    paths = [path for inside in files.values() for path in inside]
    raw = {"text": [_read_text(path, encoding) for path in paths]}
    if "label" in wanted:
        raw["label"] = [path.parent.name for path in paths]
    return [str(path) for path in paths], raw


def _text_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith((".txt", ".txt.gz")))


def _parse_table(name: str, text: str, delimiter: str, wanted: Wanted) -> Raw:
    rows = _numbered_rows(name, text, delimiter)
    if not rows:
        raise InputError(f"{name}: the file is empty; expected a header and rows")
    _, header = rows.pop(0)
    _check_columns(name, header, wanted)
    for line, row in rows:
        if len(row) != len(header):
            separator = "comma" if delimiter == "," else "tab"
            raise InputError(
                f"{name}:{line}: expected {len(header)} fields as in the header, found {len(row)}; "
                f"quote a text that holds a {separator} or a line break"
            )
    places = {field: header.index(column) for field, column in wanted.items()}
    columns = {field: [row[place] for _, row in rows] for field, place in places.items()}
    return [f"{name}:{line}" for line, _ in rows], columns


def _numbered_rows(name: str, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Each row that is not blank, with the line on which it starts (a quoted text may span lines)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1
    limit = csv.field_size_limit(2**31 - 1)  # by default 128 KiB, which a document can exceed
    try:
        for row in reader:
            if row:
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name}:{line}: {error}; close every quote, and double one inside a quoted text") from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _read_json_lines(path: Path, encoding: str, wanted: Wanted) -> Raw:
    origins, records = [], []
    for origin, record in read_json_lines(path, encoding):
        origins.append(origin)
        records.append(record)
    return _from_records(str(path), origins, records, wanted)


def _read_parquet(path: Path, wanted: Wanted) -> Raw:
    with open_parquet(path) as file:
        _check_columns(str(path), file.schema_arrow.names, wanted)
        table = file.read(columns=list(wanted.values()))
        raw = {field: table.column(column).to_pylist() for field, column in wanted.items()}
    return [f"{path}: row {row}" for row in range(1, len(table) + 1)], raw


def _read_lists(source: Any, wanted: Wanted) -> Raw:
    match source:
        case tuple((texts, labels)):
            columns = {"text": texts, "label": labels}
        case tuple((texts, text_pairs, labels)):
            columns = {"text": texts, "text_pair": text_pairs, "label": labels}
        case list([str(), *_]):
            columns = {"text": source}
        case list():
            return _from_records("examples", _indices(len(source)), source, wanted)
        case _:
            kind = f"tuple of {len(source)}" if isinstance(source, tuple) else type(source).__name__
            raise InputError(
                f"expected a path, (texts, labels), (texts, text_pairs, labels) or a list of dicts, not a {kind}"
            )
    if "label" not in wanted:
        columns.pop("label", None)
    for field, values in columns.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InputError(f"expected a list of {_spoken(field)}s, not a {type(values).__name__}")
    raw = {field: list(values) for field, values in columns.items()}
    if len({len(values) for values in raw.values()}) > 1:
        lengths = ", ".join(f"{len(values)} {_spoken(field)}s" for field, values in raw.items())
        raise InputError(f"expected lists of one length, found {lengths}; pair them up")
    return _indices(len(raw["text"])), raw


def _indices(count: int) -> list[str]:
    return [f"examples[{i}]" for i in range(count)]


def _from_records(name: str, origins: list[str], records: list[Any], wanted: Wanted) -> Raw:
    for origin, record in zip(origins, records, strict=True):
        if not isinstance(record, Mapping):
            raise InputError(f"{origin}: expected an object of named values, found a {type(record).__name__}")
    if records:
        _check_columns(name, list(dict.fromkeys(key for record in records for key in record)), wanted)
    return origins, {field: [record.get(column) for record in records] for field, column in wanted.items()}


def _check_columns(name: str, columns: list[str], wanted: Wanted) -> None:
    for field, column in wanted.items():
        check_column(name, columns, column, f"name the {_spoken(field)}s with {FLAGS[field]} ({field}= in Python)")


def _check_values(field: str, values: list[Any], origins: list[str]) -> None:
    faults = [(origin, fault) for origin, value in zip(origins, values, strict=True) if (fault := _fault(value))]
    if faults:
        origin, fault = faults[0]
        raise InputError(
            f"{origin}: the {_spoken(field)} {fault}; {len(faults)} of {len(values)} examples "
            f"have no usable {_spoken(field)}: mend or remove them"
        )


def _fault(value: Any) -> str | None:
    """What keeps a value from being a text to learn from, or None."""
    if fault := fault_of(value):
        return fault
    if not value or value.isspace():
        return "is blank"
    if "\0" in value:
        return "holds a NUL character"
    return None


def _spoken(field: str) -> str:
    return field.replace("_", " ")
