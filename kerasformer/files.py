"""Files that are whole or not there."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasformer.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, the user's part of it, or a file that may grow no further


def path_of(path: str | os.PathLike, what: str = "folder") -> Path:
    """The path of a file or folder that somebody passed.

    Raises:
        InputError: it is no path, or an empty one.
    """
    if isinstance(path, str | os.PathLike) and path != "":
        return Path(path)
    raise InputError(f"expected the path of a {what}, got {path!r:.60}; pass a string or a pathlib.Path")


@contextmanager
def new_folder(path: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name when the block ends well and vanishes when not.

    Args:
        durable: it has its name only once the disk has all of it, whatever happens to the machine.

    Raises:
        InputError: `path` is in use.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"expected a new or empty folder, got {path}, which is in use; name another or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        with _error_names(path, temporary):
            yield temporary
            temporary.chmod(0o755)  # mkdtemp's is private, which a server under another user could not read
            if durable:
                for written in (*temporary.rglob("*"), temporary):
                    _sync(written)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Removes what `new_folder` could not, in a process that was killed: what it had begun in `folder`."""
    for path in folder.glob(".*-*"):
        shutil.rmtree(path, ignore_errors=True)


def append_line(path: Path, line: str) -> None:
    """Appends a line to a text file, whole or not at all."""
    with path.open("ab", buffering=0) as file:
        end, data = file.tell(), f"{line}\n".encode()
        try:
            while data:  # a disk that gets full takes a part
                data = data[file.write(data) :]
        except OSError:
            if file.tell() > end:
                file.truncate(end)
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _error_names(path, temporary):
            yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, what: str) -> dict:
    """Reads a JSON object.

    Raises:
        InputError: no such file, or no JSON object in it; `what` names it in the message.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected {what} at {path}, got no such file; check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"expected {what} as JSON at {path}, got {error}; mend or replace the file") from error
    if not isinstance(value, dict):
        raise InputError(f"expected {what} as a JSON object at {path}, got a {type(value).__name__}; mend the file")
    return value


@contextmanager
def _error_names(path: Path, temporary: Path) -> Iterator[None]:
    """Makes an OSError name `path`: not the temporary one in its place, nor none, as a write to a full disk does."""
    try:
        yield
    except OSError as error:
        found = None if error.filename is None else str(error.filename)
        if found is None and error.errno in FULL:
            found = str(temporary)
        if found is None or not found.startswith(str(temporary)):
            raise
        name = found.replace(str(temporary), str(path), 1)
        raise OSError(error.errno, os.strerror(error.errno), name) from error


def _sync(path: Path) -> None:
    """Waits until the disk has a file, or which names a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
