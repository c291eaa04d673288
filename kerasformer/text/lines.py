"""Lines, and larger blocks, of UTF-8 text files."""

from collections.abc import Iterator
from pathlib import Path

from kerasformer.errors import InputError

_BLOCK = 1 << 16  # characters


def read_blocks(path: Path) -> Iterator[str]:
    """Yields the text of a file in blocks of some size that end before white space, which no word of GPT-2's ends in.

    Raises:
        InputError: as `read_lines`.
    """
    rest, size = [], 0
    for line in read_lines(path, ends=True):
        rest.append(line)
        size += len(line)
        if size >= _BLOCK and (text := line.rstrip()):
            rest[-1] = text
            yield "".join(rest)
            rest = [line[len(text) :]]
            size = len(rest[0])
    yield "".join(rest)


def read_lines(path: Path, *, ends: bool = False) -> Iterator[str]:
    """Yields the lines of a file, with or without their ends (LF or CR LF).

    Raises:
        InputError: there is no such file, or a line is not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a text file, found {'a folder' if path.is_dir() else 'none'}")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise InputError(
                    f"{path}, line {number}: expected UTF-8, got byte 0x{byte:02x}: convert the file"
                ) from error
            yield text if ends else text.removesuffix("\n").removesuffix("\r")
