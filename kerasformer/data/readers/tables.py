"""Tables of text with a header: fields with a comma, tab or another character between them, quoted or not."""

import csv
import io
import logging
import re
from pathlib import Path
from typing import Any, get_args

from kerasformer.config.classify import Quoting
from kerasformer.data.readers.columns import Raw, Reading, find_columns, has_columns, trimmed
from kerasformer.data.readers.quoting import Rows, is_quoted
from kerasformer.data.readers.text import kind_of, read_text
from kerasformer.errors import InputError, listed

logger = logging.getLogger(__name__)

SEPARATORS = {".csv": ",", ".tsv": "\t"}
_CANDIDATES = (",", "\t", ";", "|")
_LONGEST_HEADER = 2**20  # characters
_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_FROM_EXCEL = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n)', re.IGNORECASE)  # its own first line


def check_format(quoting: str, delimiter: str) -> None:
    """Refuses a quoting or delimiter that cannot be.

    Raises:
        InputError: another word than auto, csv or none; a delimiter of several characters, a quote or a line break.
    """
    if quoting not in get_args(Quoting):
        raise InputError(f"expected quoting as one of {', '.join(get_args(Quoting))}, got {quoting!r}; choose one")
    is_character = isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '"\r\n\0'
    if delimiter not in ("auto", "tab", r"\t") and not is_character:
        raise InputError(f"expected delimiter as auto, tab or one character, such as ';', got {delimiter!r}; change it")


def read_table(path: Path, reading: Reading) -> Raw:
    """The values of each field of a .csv or .tsv file.

    Raises:
        InputError: as `read_text`, a column that is not there, quotes that are not closed, or a bad row.
    """
    name, text, first = str(path), "".join(read_text(path, reading.encoding)), 1
    delimiter = "\t" if reading.delimiter in ("tab", r"\t") else reading.delimiter
    if declared := _FROM_EXCEL.match(text):
        text, first = text[declared.end() :], 2
        delimiter = declared[1] if delimiter == "auto" else delimiter
    if delimiter == "auto":
        delimiter = _find_delimiter(text, SEPARATORS[kind_of(path)], reading)
    rows, quoted = _read_rows(name, text, delimiter, first, reading)
    if not rows:
        raise InputError(f"{name}: the file is empty; expected a header and rows")
    (_, header), *rows = rows
    remedy = f", or the separator with --data.delimiter (delimiter=); the header reads {delimiter.join(header)[:80]!r}"
    places = find_columns(name, header, reading.columns, remedy)
    rows = _without_headers(name, rows, header)
    rows = _of_one_width(name, rows, header, delimiter, quoted, reading)
    fields = {field: [row[place] for _, row in rows] for field, place in places.items()}
    return Raw([f"{name}:{line}" for line, _ in rows], fields, frozenset(map(trimmed, header)))


def _find_delimiter(text: str, usual: str, reading: Reading) -> str:
    """The separator with which the header has the wanted columns, if there is one; else the usual one."""
    beginning = text[:_LONGEST_HEADER]

    def fits(delimiter: str) -> bool:
        return any(has_columns(_header(beginning, delimiter, quoted), reading.columns) for quoted in (True, False))

    if fits(usual):
        return usual
    others = [delimiter for delimiter in _CANDIDATES if delimiter != usual and fits(delimiter)]
    return others[0] if len(others) == 1 else usual


def _header(text: str, delimiter: str, quoted: bool) -> list[str]:
    """The first row that is not blank."""
    try:
        return next((row for row in _reader(text, delimiter, quoted) if not _is_blank(row)), [])
    except csv.Error:
        return []


def _read_rows(name: str, text: str, delimiter: str, first: int, reading: Reading) -> tuple[Rows, bool]:
    """The rows, with the line on which each starts, and whether they were read as quoted ones."""
    if reading.quoting == "none" or (delimiter == "\t" and '"' not in text):
        return _parse(name, text, delimiter, first, quoted=False), False
    if reading.quoting == "csv" or delimiter != "\t":
        return _parse(name, text, delimiter, first, quoted=True), True
    plain = _parse(name, text, delimiter, first, quoted=False)
    try:
        parsed = _parse(name, text, delimiter, first, quoted=True)
    except InputError:
        return plain, False
    if not parsed:
        return plain, False
    if (quoted := is_quoted(text, plain, parsed, reading.columns)) is None:
        raise InputError(
            f"{name}: quotes in this file can be characters of the texts, or stand around them; say which with "
            "--data.quoting none or csv (quoting= in Python)"
        )
    return (parsed, True) if quoted else (plain, False)


def _parse(name: str, text: str, delimiter: str, first: int, quoted: bool) -> Rows:
    """Each row that is not blank, with the line on which it starts (a quoted text may span lines)."""
    reader = _reader(text, delimiter, quoted)
    rows, line = [], first
    limit = csv.field_size_limit(2**31 - 1)  # by default 128 KiB, which a document can exceed
    try:
        for row in reader:
            if row and (row[0].strip() or not _is_blank(row)):
                rows.append((line, row))
            line = reader.line_num + first
    except csv.Error as error:
        raise InputError(
            f"{name}:{line}: {error}; close every quote, and double one inside a quoted text, or have quotes read as "
            "characters of the texts with --data.quoting none (quoting= in Python)"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _reader(text: str, delimiter: str, quoted: bool) -> Any:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)


def _is_blank(row: list[str]) -> bool:
    """Whether a row holds nothing, but perhaps separators, as Excel adds some at the end."""
    return not any(map(str.strip, row))


def _without_headers(name: str, rows: Rows, header: list[str]) -> Rows:
    """Leaves out rows that repeat the header, as in files that were put together.

    Raises:
        InputError: a row has the header's names in another order.
    """
    names, repeated = [_bare(field) for field in header], set()
    starts = {*header, *names} if len(header) > 1 else set()
    for line, row in rows:
        if row[0] in starts or row[0].startswith("\ufeff"):
            fields = [_bare(field) for field in row]
            if fields == names:
                repeated.add(line)
            elif sorted(fields) == sorted(names):
                raise InputError(
                    f"{name}:{line}: a second header has the columns in another order; split the file here"
                )
    if not repeated:
        return rows
    lines = listed([f"{line:,}" for line in sorted(repeated)], 3)
    logger.warning("%s: the header is repeated, which is left out (line %s)", name, lines)
    return [(line, row) for line, row in rows if line not in repeated]


def _bare(name: str) -> str:
    """A column's name without what may surround it where a file begins anew."""
    return trimmed(name).removeprefix('"').removesuffix('"')


def _of_one_width(name: str, rows: Rows, header: list[str], delimiter: str, quoted: bool, reading: Reading) -> Rows:
    """The rows that have a field for each of the header's names; of the others each is a bad one."""
    expected, widths = len(header), {len(row) for _, row in rows}
    if widths <= {expected}:
        return rows
    if len(widths) == 1 and min(widths) > expected:
        if not any(any(row[expected:]) for _, row in rows):
            return [(line, row[:expected]) for line, row in rows]  # each row ends with a separator, but the header
        if widths == {expected + 1} and len({row[0] for _, row in rows if row[0].isdecimal()}) == len(rows) > 1:
            return [(line, row[1:]) for line, row in rows]  # R writes the row's number and does not name it
    separator = _NAMES.get(delimiter, repr(delimiter))
    remedy = f"quote a text that holds a {separator} or a line break"
    remedy = remedy if quoted else f"a text that is not quoted holds no {separator} and no line break: mend the row"
    for line, row in rows:
        if len(row) != expected:
            reason = f"expected {expected} fields as in the header, found {len(row)}"
            reading.bad.add(f"{name}:{line}", reason, remedy)
    return [(line, row) for line, row in rows if len(row) == expected]
