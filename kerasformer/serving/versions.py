"""The versions of models on disk, as TF Serving finds them: folders in a model's folder that whole numbers name."""

import os
from pathlib import Path

from kerasformer.errors import InputError

Files = frozenset[tuple[str, int, int, int]]


def is_version(name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return name.isascii() and name.isdigit()


def newest(folder: Path) -> Path | None:
    """The folder of the highest version, which a server loads; none where there is no version."""
    return max(filter(Path.is_dir, _numbered(folder)), key=_number, default=None)


def next_version(folder: Path) -> int:
    """One more than the highest number that anything in the folder is named by; 1 where there is none."""
    return max(map(_number, _numbered(folder)), default=0) + 1


def find_models(folder: Path) -> dict[str, Path]:
    """The newest version of each model in a folder.

    Args:
        folder: holds `<model>/<integer version>/`, as TF Serving expects.

    Returns:
        Model name -> version directory, in order of name.

    Raises:
        InputError: the folder is missing, or has no model.
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of models, found none at {folder}: export a model there first")
    models = {model.name: version for model in sorted(folder.iterdir()) if (version := newest(model))}
    if not models:
        raise InputError(
            f"expected {folder}/<model>/<integer version>/saved_model.pb, found no such model: export one there, "
            "or name the folder above it"
        )
    return models


def files_of(version: Path) -> Files:
    """What tells a version's files from those that it had before: path, inode, size and time of each."""
    found = set()
    for folder, _, names in os.walk(version, followlinks=True):
        for path in (os.path.join(folder, name) for name in names):
            try:
                status = os.stat(path)
            except FileNotFoundError:  # since the folder was read
                continue
            found.add((path, status.st_ino, status.st_size, status.st_mtime_ns))
    return frozenset(found)


def _numbered(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if is_version(path.name)] if folder.is_dir() else []


def _number(path: Path) -> int:
    return int(path.name)
