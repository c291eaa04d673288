"""Lines of UTF-8 text files."""

from collections.abc import Iterator
from pathlib import Path

from kerasformer.errors import InputError


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a file, without their ends (LF or CR LF).

    Raises:
        InputError: there is no such file, a line is not UTF-8, or the first one begins with a byte order mark.
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
            if number == 1 and text.startswith("\ufeff"):
                raise InputError(f"{path}, line 1: expected UTF-8 without a byte order mark: save the file without it")
            yield text.removesuffix("\n").removesuffix("\r")
