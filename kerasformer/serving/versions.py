"""The versions of a model, as TF Serving finds them: the folders in its folder that whole numbers name."""

from pathlib import Path


def is_version(name: str) -> bool:
    """Whether a folder of this name holds a version."""
    return name.isascii() and name.isdigit()


def versions(folder: Path) -> dict[int, Path]:
    """The folder of each version by its number; none where the folder is missing or empty."""
    return {int(path.name): path for path in folder.glob("*") if is_version(path.name) and path.is_dir()}


def newest(folder: Path) -> Path | None:
    """The folder of the highest version, which a server loads, if there is any."""
    found = versions(folder)
    return found[max(found)] if found else None
