"""Texts in folders of their labels: <label>/*.txt."""

from pathlib import Path

from kerasformer.data.readers.columns import Raw, Reading
from kerasformer.data.readers.folders import SPLIT_WORDS, is_text
from kerasformer.data.readers.text import read_text
from kerasformer.errors import InputError, listed


def read_class_folders(root: Path, reading: Reading) -> Raw:
    """Each text, labelled with the name of its folder; without labels also those of the root.

    Raises:
        InputError: no class folders, an empty one, or folders that are splits.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {folder: _text_files(folder) for folder in folders}
    if "label" not in reading.columns:
        files = {root: _text_files(root), **files}
    elif not folders:
        raise InputError(
            f"{root}: no class folders in it; expected <label>/*.txt: sort the texts so; or a table, or its shards"
        )
    elif {folder.name.lower() for folder in folders} <= SPLIT_WORDS.keys():
        splits = listed([f"{folder.name}/" for folder in folders])
        raise InputError(f"{root}: expected folders of labels, found those of splits, {splits}; name one of them")
    elif empty := [folder for folder, inside in files.items() if not inside]:
        raise InputError(
            f"{empty[0]}: no .txt files in this class folder; expected <label>/*.txt: add some or remove it"
        )
    paths = [path for inside in files.values() for path in inside]
    fields = {"text": ["".join(read_text(path, reading.encoding)) for path in paths]}
    if "label" in reading.columns:
        fields["label"] = [path.parent.name for path in paths]
    return Raw([str(path) for path in paths], fields)


def _text_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_text(path))
