"""Text files as they are read everywhere: unpacked and decoded in chunks; complaints name file and line."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from kerasformer.errors import InputError

CHUNK_BYTES = 2**15


def kind_of(path: Path) -> str:
    """The suffix that tells how to read a file, that of packing aside: ".csv" of news.csv.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_text(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the text of a file in chunks, exactly as written but for a byte order mark.

    Raises:
        InputError: the file cannot be read, unpacked or decoded.
    """
    try:
        " ".encode(encoding)  # not every codec is one of text
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise InputError(f"unknown encoding {encoding!r}; expected one such as utf-8, latin-1 or cp1252") from error
    line, begun = 1, False
    with _readable(path), (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        for data in chain(iter(lambda: file.read(CHUNK_BYTES), b""), [b""]):
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
                byte = error.object[error.start]
                raise InputError(
                    f"{path}:{line}: byte 0x{byte:02x} is not {encoding}; "
                    "name the encoding of the file, such as latin-1 (--data.encoding of train, --encoding of prepare "
                    "and tokenizer, encoding= in Python)"
                ) from error
            line += text.count("\n")
            if text and not begun:
                text, begun = text.removeprefix("\ufeff"), True
            if text:
                yield text


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the lines of a file, which end at a line feed alone, without it.

    Raises:
        InputError: as `read_text`.
    """
    begun: list[str] = []
    for chunk in read_text(path, encoding):
        head, *lines = chunk.split("\n")
        begun.append(head)
        for line in lines:
            yield "".join(begun)
            begun = [line]
    yield "".join(begun)


def read_json_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[str, Any]]:
    """Yields what each line that is not blank holds, and where it stands ("news.jsonl:17").

    Raises:
        InputError: as `read_text`, or a line is no JSON.
    """
    for number, line in enumerate(read_lines(path, encoding), start=1):
        if not line.strip():
            continue
        origin = f"{path}:{number}"
        try:
            yield origin, json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise InputError(f"{origin}: expected one JSON object a line: {reason}; mend the line") from error


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


def check_column(name: str, columns: list[str], column: str, remedy: str) -> None:
    """Refuses a table that has not just one column of that name; `remedy` tells what to do.

    Raises:
        InputError: it has none or several.
    """
    if (found := columns.count(column)) != 1:
        known = ", ".join(repr(str(other)[:40]) for other in columns)
        raise InputError(f"{name}: expected one column {column!r}, found {found or 'none'} among {known}; {remedy}")


def fault_of(value: Any) -> str | None:
    """What keeps a value from being Unicode text, in words, or None."""
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return f"is not a string but of type {type(value).__name__}"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The complaint about a file that cannot be read."""
    return InputError(f"{path}: cannot be read: {error}; check its rights, or copy it again")
