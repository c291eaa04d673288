"""Records of JSON files: an object a line, an array of objects, or an object of columns."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kerasformer.data.readers.bad_rows import BadRows
from kerasformer.data.readers.columns import Raw, Reading, find_columns
from kerasformer.data.readers.text import kind_of, read_lines, read_text
from kerasformer.errors import InputError, listed

JSON = (".jsonl", ".ndjson", ".json")


def read_records(path: Path, encoding: str, bad: BadRows) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a file, and where each stands ("news.jsonl:17", "news.json: record 17").

    A .jsonl or .ndjson file is read line by line. Of a .json file, which is read as a whole, the content decides: an
    array of objects, or those under "data"; columns, as lists or by row (what pandas writes by default); or lines.

    Args:
        bad: gets the lines that are no JSON, and what is no object.

    Raises:
        InputError: as `read_text`, or a .json file of something else.
    """
    records = _read_json(path, encoding) if kind_of(path) == ".json" else None
    return objects(_read_lines(path, encoding, bad) if records is None else records, bad)


def objects(records: Iterable[tuple[str, Any]], bad: BadRows) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the records that are objects; the others are bad rows."""
    for origin, record in records:
        if type(record) is dict or isinstance(record, Mapping):  # the latter takes longer
            yield origin, record
        else:
            bad.add(origin, f"expected an object of named values, found a {type(record).__name__}")


def read_json_table(path: Path, reading: Reading) -> Raw:
    """The records' values by field; see `read_records`."""
    return table_of(str(path), read_records(path, reading.encoding, reading.bad), reading.columns)


def table_of(name: str, records: Iterable[tuple[str, Mapping[str, Any]]], wanted: Mapping[str, str]) -> Raw:
    """The records' values by field; one that a record lacks is None.

    Raises:
        InputError: none of the records has a field, or several of their keys are alike.
    """
    origins, found = [], []
    for origin, record in records:
        origins.append(origin)
        found.append(record)
    keys = list(dict.fromkeys(key for record in found for key in record))
    places = find_columns(name, keys, wanted) if found else {}
    fields = {field: [record.get(keys[place]) for record in found] for field, place in places.items()}
    return Raw(origins, fields or {field: [] for field in wanted})


def _read_lines(path: Path, encoding: str, bad: BadRows) -> Iterator[tuple[str, Any]]:
    """Yields what each line that is not blank holds."""
    for number, line in enumerate(read_lines(path, encoding), start=1):
        if not (text := line.strip().lstrip("\ufeff")):  # which is within files that were put together
            continue
        origin = f"{path}:{number}"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            bad.add(origin, f"expected one JSON object a line: {reason}", "mend the line; an array is for .json")
        else:
            yield origin, value


def _read_json(path: Path, encoding: str) -> Iterator[tuple[str, Any]] | None:
    """Yields the records of a file that is one JSON value; None for a file of lines."""
    text = "".join(read_text(path, encoding))
    if not text.strip():
        raise InputError(f"{path}: the file is empty; expected an array of objects")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return None
        raise InputError(f"{path}:{error.lineno}: expected JSON: {error.msg}; mend the file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON: {error}; mend the file") from error
    if (records := _records_in(value)) is None:
        found = (
            f"an object of {listed(list(map(repr, value)))}" if isinstance(value, dict) else f"a {type(value).__name__}"
        )
        raise InputError(
            f"{path}: expected an array of objects, found {found}; write the records as one "
            '(orient="records" in pandas), or each on a line of its own in a .jsonl file'
        )
    return ((f"{path}: record {number}", record) for number, record in enumerate(records, start=1))


def _records_in(value: Any) -> list[Any] | None:
    """The records of a JSON value, if it is of a form that holds some."""
    match value:
        case list():
            return value
        case {"data": list(rows)} if all(isinstance(row, dict) for row in rows):
            return rows
        case {"columns": list(names), "data": list(rows)}:  # pandas' orient="split"
            same = all(isinstance(row, list) and len(row) == len(names) for row in rows)
            return [dict(zip(names, row, strict=True)) for row in rows] if same else None
        case dict() if value and all(isinstance(column, list | dict) for column in value.values()):
            indices = {tuple(column) if isinstance(column, dict) else len(column) for column in value.values()}
            columns = [column.values() if isinstance(column, dict) else column for column in value.values()]
            rows = zip(*columns, strict=True) if len(indices) == 1 else None
            return rows and [dict(zip(value, row, strict=True)) for row in rows]
        case dict():
            return [value]
    return None
