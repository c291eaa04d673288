"""The versions of a model, as TF Serving finds them: the folders in its folder that whole numbers name."""

from pathlib import Path


def is_version(name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return name.isascii() and name.isdigit()


def newest(folder: Path) -> Path | None:
    """The folder of the highest version, which a server loads; none where there is no version."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in inside if is_version(path.name) and path.is_dir()]
    return max(found, key=lambda path: int(path.name), default=None)


def next_version(folder: Path) -> int:
    """One more than the highest number that anything in the folder is named by; 1 where there is none."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return max((int(path.name) for path in inside if is_version(path.name)), default=0) + 1
