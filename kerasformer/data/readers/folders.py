"""Which files a path stands for: one, the shards of a table, or texts in folders of their labels."""

import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from kerasformer.data.readers.text import kind_of
from kerasformer.errors import InputError, listed

# The words by which files tell their split, as the datasets library knows them.
SPLIT_WORDS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation"}
SPLIT_WORDS |= {"val": "validation", "dev": "validation"}
SPLIT_WORDS |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_WORDS)})(?![a-z])")
_SHARD = re.compile(r"(.*?)(\d{5})-of-(\d{5})")
# What tools write beside the data.
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}


def split_of(path: Path) -> str | None:
    """The split that a file's name tells: "train" of train-00000-of-00002.parquet."""
    found = _SPLIT.search(path.name.lower())
    return SPLIT_WORDS[found[1]] if found else None


def is_data(path: Path) -> bool:
    """Whether a file is not one that tools write beside the data, such as _SUCCESS, .crc and dataset_info.json."""
    return not path.name.startswith((".", "_")) and path.suffix != ".crc" and path.name not in _METADATA


def is_text(path: Path) -> bool:
    """Whether a file holds one text."""
    return path.name.lower().endswith((".txt", ".txt.gz"))


def matching_files(pattern: Path) -> list[Path]:
    """The files that a pattern such as data/train-*.parquet stands for, in order of name.

    Raises:
        InputError: it stands for none, or is no pattern.
    """
    found = sorted(map(Path, glob.glob(str(pattern), recursive=True))) if glob.has_magic(str(pattern)) else []
    files = [path for path in found if path.is_file() and is_data(path)]
    if not files:
        raise InputError(f"expected a file or folder of texts, found none at {str(pattern)!r:.200}; check the path")
    return files


def find_tables(path: Path, kinds: Sequence[str]) -> list[Path]:
    """The files that a path stands for: itself, those that a pattern matches, or the shards in a folder.

    Args:
        kinds: suffixes of tables.

    Returns:
        Files in order of name, all of one kind and split. None for a folder that holds no tables, but perhaps texts.

    Raises:
        InputError: there is no such file, or the files are no shards of one table.
    """
    if os.path.isfile(path):  # a Path raises where a name is too long
        return [path]
    if not os.path.isdir(path):
        files = matching_files(path)
    else:
        files = _tables_in(path, kinds)
        _check_shards(path, files)
    if len(by_kind := {kind_of(file) for file in files}) > 1:
        raise InputError(
            f"{path}: expected files of one kind, found {listed(sorted(by_kind))}; name those to read, such as "
            f"{_example(files)}"
        )
    check_one_split(path, files)
    return files


def check_one_split(path: Path, files: Sequence[Path]) -> None:
    """Refuses files of which some are to train on and others to measure by.

    Raises:
        InputError: their names tell several splits, or some tell one and others none.
    """
    if len(splits := {split_of(file) for file in files}) > 1:
        named = listed(sorted(split or "others" for split in splits))
        raise InputError(
            f"{path}: expected files of one split, found {named}; name those to read, such as {_example(files)}"
        )


def _tables_in(root: Path, kinds: Sequence[str]) -> list[Path]:
    """The tables of a folder, or of the one folder in it that has some."""
    inside = sorted(path for path in root.iterdir() if is_data(path))
    files = [path for path in inside if path.is_file() and kind_of(path) in kinds]
    folders = [path for path in inside if path.is_dir()]
    of_texts = [folder for folder in folders if any(map(is_text, folder.iterdir()))]
    of_tables = [folder for folder in folders if folder not in of_texts and _holds_tables(folder, kinds)]
    if (files or of_tables) and (of_texts or len(of_tables) > (not files)):
        found = listed([f"{folder.name}/" for folder in [*of_tables, *of_texts]])
        raise InputError(
            f"{root}: expected the shards of one table, found {'tables and ' if files else ''}the folders {found}; "
            "name the folder or the files to read"
        )
    return _tables_in(of_tables[0], kinds) if of_tables else files


def _holds_tables(folder: Path, kinds: Sequence[str]) -> bool:
    return any(kind_of(path) in kinds and is_data(path) for path in folder.rglob("*"))


def _check_shards(root: Path, files: Sequence[Path]) -> None:
    """Refuses a folder that lacks a shard, or has one twice."""
    counts = Counter(file.name.removesuffix(".gz") for file in files)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{root}: expected each file once, found {twice[0]} and {twice[0]}.gz; remove one of them")
    shards = defaultdict(set)
    for file in files:
        if found := _SHARD.match(file.name):
            shards[found[1], int(found[3])].add(int(found[2]))
    for (start, count), numbers in shards.items():
        if missing := sorted(set(range(count)) - numbers):
            raise InputError(
                f"{root}: expected {count} shards {start}*, found {len(numbers)} without number {missing[0]}; copy "
                "the folder again, or name the files to read with a pattern"
            )


def _example(files: Sequence[Path]) -> str:
    """What to name in place of all files."""
    first = min(files, key=lambda file: split_of(file) != "train")
    if not (found := _SPLIT.search(first.name.lower())):
        return f"'{first}'"
    packed = ".gz" if first.name.lower().endswith(".gz") else ""
    return f"'{first.parent / first.name[: found.end()]}*{kind_of(first)}{packed}'"
