"""Text files as they are read everywhere: unpacked and decoded in chunks; complaints name file and line."""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasformer.errors import InputError

CHUNK_BYTES = 2**15
ENCODING_FLAGS = "--data.encoding of train, --encoding of prepare and tokenizer, encoding= in Python"

# A file that begins with one of these tells its encoding. UTF-32's mark begins with UTF-16's, so it comes first.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BINARY = {b"\x1f\x8b": "packed with gzip: give it a name that ends in .gz", b"PK\x03\x04": "a ZIP or Excel file"}


def kind_of(path: Path) -> str:
    """The suffix that tells how to read a file, that of packing aside: ".csv" of news.csv.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_text(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the text of a file in chunks, exactly as written but for a byte order mark.

    Args:
        encoding: of a file without a byte order mark, which tells its own.

    Raises:
        InputError: the file cannot be read, unpacked or decoded.
    """
    try:
        " ".encode(encoding)  # not every codec is one of text
    except LookupError as error:
        raise InputError(f"unknown encoding {encoding!r}; expected one such as utf-8, latin-1 or cp1252") from error
    with _readable(path), (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        data = file.read(CHUNK_BYTES)
        encoding = _encoding_of(path, data, encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
        line, begun, ended = 1, False, False
        while not ended:
            ended = not data
            try:
                text = decoder.decode(data, final=ended)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
                raise InputError(
                    f"{path}:{line}: byte 0x{error.object[error.start]:02x} is not {encoding}; "
                    f"name the encoding of the file, such as {_suggestion(error.object, encoding)} ({ENCODING_FLAGS})"
                ) from error
            line += text.count("\n")
            if text and not begun:
                text, begun = text.removeprefix("\ufeff"), True
            if text:
                yield text
            data = file.read(CHUNK_BYTES)


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


def unreadable(path: Path, error: Exception) -> InputError:
    """The complaint about a file that cannot be read."""
    unpacked = "Not a gzipped file" in str(error)
    remedy = "leave .gz out of its name if it is unpacked" if unpacked else "check its rights"
    return InputError(f"{path}: cannot be read: {error}; {remedy}, or copy it again")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def _encoding_of(path: Path, head: bytes, encoding: str) -> str:
    """The encoding that a file's first bytes tell, or else the one that is given.

    Raises:
        InputError: they are no text, or UTF-16 without a byte order mark.
    """
    for mark, found in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return found
    for signature, kind in _BINARY.items():
        if head.startswith(signature):
            raise InputError(f"{path}: expected text, found a file that is {kind}, or write its content as text")
    # UTF-16 of ASCII characters, such as those of a header: every other byte is zero.
    zeros = [byte == 0 for byte in head[:16]]
    for found, pattern in {"utf-16-le": [False, True], "utf-16-be": [True, False]}.items():
        if len(zeros) > 3 and zeros == (pattern * 8)[: len(zeros)] and "16" not in encoding:
            raise InputError(
                f"{path}: every other byte is zero, as in UTF-16 without a byte order mark; name the encoding of the "
                f"file, such as {found} ({ENCODING_FLAGS})"
            )
    return encoding


def _suggestion(data: bytes, encoding: str) -> str:
    """An encoding that data which are not `encoding` may have."""
    if not encoding.lower().startswith(("utf-8", "utf8", "ascii")):
        return "utf-8"
    return "cp1252" if re.search(rb"[\x80-\x9f]", data) else "latin-1"  # control characters in latin-1
