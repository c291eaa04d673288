"""The versions of a model, as TF Serving finds them: the folders in its folder that whole numbers name."""

from pathlib import Path


def is_version(name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return name.isascii() and name.isdigit()


def newest(folder: Path) -> Path | None:
    """The folder of the highest version, which a server loads; none where there is no version."""
    return max(filter(Path.is_dir, _numbered(folder)), key=_number, default=None)


def next_version(folder: Path) -> int:
    """One more than the highest number that anything in the folder is named by; 1 where there is none."""
    return max(map(_number, _numbered(folder)), default=0) + 1


def _numbered(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if is_version(path.name)] if folder.is_dir() else []


def _number(path: Path) -> int:
    return int(path.name)
