"""Text files -> the pieces of their documents, each for training or validation; memory is bounded but for .json."""

import os
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, groupby, repeat
from math import ceil
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from kerasformer.config.run import OnBad
from kerasformer.data.corpus import INDEX
from kerasformer.data.readers.bad_rows import BadRows, text_fault
from kerasformer.data.readers.columns import find_column
from kerasformer.data.readers.folders import SPLIT_WORDS, check_one_split, is_data, matching_files, split_of
from kerasformer.data.readers.json_records import JSON, read_records
from kerasformer.data.readers.parquet import open_parquet
from kerasformer.data.readers.text import CHUNK_BYTES, kind_of, read_lines, read_text
from kerasformer.errors import InputError, listed

TRAIN, VALIDATION = "train", "validation"
SUFFIXES = (".txt", *JSON, ".parquet")
KINDS = ".txt, .jsonl, .ndjson, .json (each also as .gz), .parquet, or a folder of them"
_REMEDY = (
    "name that of the texts (--data.text_column of train, --text-column of prepare and tokenizer, text_column= in "
    "Python)"
)
_ROWS = 256  # of a Parquet file, read at a time
# Where a text is cut: behind the last character that white space follows. A tokenizer that splits at white space makes
# the same tokens of the parts as of the whole.
_PLACE = re.compile(r".*\S(?=[ \n])", re.DOTALL)

Documents = Literal["files", "lines"]


class Piece(NamedTuple):
    """Part of a document.

    Args:
        split: TRAIN or VALIDATION.
        begins: it is the first part of the document in its split.
        ends: an end-of-text token follows.
    """

    split: str
    text: str
    begins: bool
    ends: bool


@dataclass(frozen=True)
class Texts:
    """Text files, what a document is in them, and which part of them is held out for validation.

    Of a single document, a .txt file, the last characters are held out. Neither part ends with an end-of-text: the
    text goes on from one to the other. Of several documents one of every `1 / validation` in a row is held out, drawn
    by the seed; of fewer than that none can be, unless by its name.

    Args:
        files: .txt, .jsonl, .ndjson, .json (each also as .gz) or .parquet; all such files of a folder and of those in
            it, but for hidden ones; or those that a pattern such as data/train-*.parquet matches.
        validation: share to hold out; 0 for none.
        validation_files: held out in place of a share of the others. A file named in both is held out.
        documents: whether a .txt file is one document or each of its lines is. Blank lines are left out.
        text_column: of the texts in JSON and .parquet, where each record is a document. Blank ones are left out.
        encoding: of .txt and JSON without a byte order mark, which tells its own and is dropped.
        on_bad: what is done about records without a text, or that cannot be read; see `BadRows`.

    Raises:
        InputError: a value that cannot be.
    """

    files: Sequence[str | os.PathLike]
    validation: float = 0.1
    validation_files: Sequence[str | os.PathLike] = ()
    documents: Documents = "files"
    text_column: str = "text"
    encoding: str = "utf-8"
    seed: int = 0
    on_bad: OnBad = "few"

    def __post_init__(self):
        BadRows(self.on_bad)  # refuses other words
        for name in ("files", "validation_files"):
            if isinstance(given := getattr(self, name), str | os.PathLike):
                raise InputError(f"expected {name} as a sequence of paths, got {str(given)!r} alone; pass [path]")
            if not isinstance(given, Iterable) or not all(isinstance(path, str | os.PathLike) for path in given):
                raise InputError(f"expected {name} as a sequence of paths, got {given!r:.60}; pass [path]")
        if not 0 <= self.validation < 1:
            raise InputError(f"expected a share of at least 0 and below 1 for validation, got {self.validation}")
        if self.seed < 0:
            raise InputError(f"expected a seed of 0 or more, got {self.seed}; raise it")
        if self.documents not in get_args(Documents):
            raise InputError(f"expected documents as files or lines, got {self.documents!r}; choose one of them")

    def pieces(self) -> Iterator[Piece]:
        """Reads the files in order: those to train on, then those to validate on.

        Raises:
            InputError: a file that cannot be read, is empty or of an unknown kind, or lacks a usable text.
        """
        held_out = find_files(self.validation_files)
        kept_back = {path.resolve() for path in held_out}
        files = [path for path in find_files(self.files) if path.resolve() not in kept_back]
        if not files:
            raise InputError("expected text files to train on, got none; name some")
        self._check_splits(files)
        bad = BadRows(self.on_bad)
        documents = yield from self._divided(files, held_out, bad)
        bad.report(listed(list(map(str, files)), 3), documents)

    def _divided(self, files: Sequence[Path], held_out: Sequence[Path], bad: BadRows) -> Generator[Piece, None, int]:
        """Yields the pieces of all files, each in its split; returns how many documents there were."""
        share = _exactly(self.validation)
        if held_out:
            number = yield from self._by_document(files, repeat(False), bad)
            return number + (yield from self._by_document(held_out, repeat(True), bad))
        if share and len(files) == 1 and kind_of(files[0]) == ".txt" and self.documents == "files":
            yield from self._cut_in_two(files[0])
            return 1
        if not share:
            return (yield from self._by_document(files, repeat(False), bad))
        if self.documents == "files" and all(kind_of(path) == ".txt" for path in files):
            self._check_number(len(files))
        number = yield from self._by_document(files, _draws(share, self.seed), bad)
        self._check_number(number)
        return number

    def _by_document(
        self, files: Sequence[Path], held_out: Iterator[bool], bad: BadRows
    ) -> Generator[Piece, None, int]:
        """Yields the pieces of all documents, each in the split that `held_out` says; returns how many there were."""
        number = 0
        for path in files:
            for document in self._documents(path, bad):
                yield from _pieces(VALIDATION if next(held_out) else TRAIN, document)
                number += 1
        return number

    def _check_splits(self, files: Sequence[Path]) -> None:
        """Refuses a folder of which some files are to train on and others to measure by."""
        for folder in map(Path, self.files):
            inside = [path for path in files if path.is_relative_to(folder) and path != folder]
            # A text may have any name, but for one that is nothing else than that of a split.
            check_one_split(folder, [path for path in inside if split_of(path) and not _is_named_text(path)])

    def _check_number(self, documents: int) -> None:
        """Refuses documents too few to hold out a share of: the draw would decide whether any is."""
        if documents < (least := ceil(1 / _exactly(self.validation))):
            raise InputError(
                f"expected at least {least} documents to hold out a share of {self.validation:g}, got {documents}; "
                "hold out a larger share (--validation of prepare, --data.split of train), none, or files by name"
            )

    def _cut_in_two(self, path: Path) -> Iterator[Piece]:
        """The pieces of a single document, whose last characters are held out."""
        characters = sum(map(len, read_text(path, self.encoding)))
        kept = int(characters * (1 - _exactly(self.validation)))
        for split, parts in groupby(_divided_at(read_text(path, self.encoding), kept), itemgetter(0)):
            for number, text in enumerate(_at_white_space(part for _, part in parts)):
                yield Piece(split, text, begins=number == 0, ends=False)

    def _documents(self, path: Path, bad: BadRows) -> Iterator[Iterable[str]]:
        """The documents of a file, each in chunks that are to be read before the next."""
        if kind_of(path) == ".txt" and self.documents == "files":
            yield read_text(path, self.encoding)
            return
        for origin, text in self._records(path, bad):
            if fault := text_fault(text):
                bad.add(origin, f"the text {fault}")
            elif text and not text.isspace():
                yield (text[start : start + CHUNK_BYTES] for start in range(0, len(text), CHUNK_BYTES))

    def _records(self, path: Path, bad: BadRows) -> Iterator[tuple[str, Any]]:
        """Where each document stands, and its text."""
        match kind_of(path):
            case ".txt":
                for number, line in enumerate(read_lines(path, self.encoding), start=1):
                    yield f"{path}:{number}", line.removesuffix("\r")
            case ".parquet":
                with open_parquet(path) as file:
                    names = file.schema_arrow.names
                    column = names[find_column(str(path), names, self.text_column, _REMEDY)]
                    rows = count(1)
                    for batch in file.iter_batches(_ROWS, columns=[column]):
                        for text in batch.column(0).to_pylist():
                            yield f"{path}: row {next(rows)}", text
            case _:
                for origin, record in read_records(path, self.encoding, bad):
                    if self.text_column in record:
                        yield origin, record[self.text_column]
                    else:
                        known = listed([repr(str(key)[:40]) for key in record])
                        bad.add(origin, f"expected one column {self.text_column!r}, found none among {known}", _REMEDY)


def _is_named_text(path: Path) -> bool:
    """Whether a file is one text that has a name of its own, and not just that of a split."""
    return kind_of(path) == ".txt" and path.name.lower().partition(".")[0] not in SPLIT_WORDS


def find_files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """The text files that the paths name, those of a folder sorted by name; each once.

    Raises:
        InputError: there is no such file or folder, a folder holds no text, or a file is empty or of another kind.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = [path] if os.path.exists(path) else matching_files(path)
        if path.is_dir():
            if (path / INDEX).exists():
                raise InputError(
                    f"{path}: expected text files, got a folder that kerasformer prepare wrote; name the files that it "
                    "was made from"
                )
            inside = sorted(other for other in path.rglob("*") if kind_of(other) in SUFFIXES and other.is_file())
            inside = [other for other in inside if kind_of(other) == ".txt" or is_data(other)]
            found = [other for other in inside if not any(part[0] == "." for part in other.relative_to(path).parts)]
        if not found:
            raise InputError(f"{path}: expected text files in this folder, found none; add {KINDS}")
        files += found
    for path in files:
        if kind_of(path) not in SUFFIXES:
            raise InputError(f"{path}: unknown kind of file; expected {KINDS}: rename or convert it")
        if not path.stat().st_size:
            raise InputError(f"{path}: expected text, got an empty file; remove it")
    once: dict[Path, Path] = {}
    for path in files:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def _exactly(share: float) -> Fraction:
    """The fraction that was meant: 1/10 by 0.1, which as a float is a little more."""
    return Fraction(share).limit_denominator(10**9)


def _draws(share: Fraction, seed: int) -> Iterator[bool]:
    """Which documents are held out: one of every `1 / share` in a row, whatever their number will be."""
    random = np.random.PCG64(seed)  # its raw stream is what NumPy keeps the same for ever
    for group in count():
        start, stop = ceil(group / share), ceil((group + 1) / share)
        chosen = start + random.random_raw() % (stop - start)
        yield from (number == chosen for number in range(start, stop))


def _divided_at(chunks: Iterable[str], kept: int) -> Iterator[tuple[str, str]]:
    """The first `kept` characters to train on, and the others to validate on."""
    for chunk in chunks:
        if kept > 0:
            yield TRAIN, chunk[:kept]
        if kept < len(chunk):
            yield VALIDATION, chunk[max(kept, 0) :]
        kept -= len(chunk)


def _at_white_space(chunks: Iterable[str]) -> Iterator[str]:
    """Puts the chunks of a text together anew, so that each can be tokenized by itself."""
    held: list[str] = []
    for chunk in chunks:
        if held and (place := _PLACE.match(held[-1])):
            yield "".join([*held[:-1], place.group()])
            held = [held[-1][place.end() :]]
        held.append(chunk)
    if text := "".join(held):
        yield text


def _pieces(split: str, document: Iterable[str]) -> Iterator[Piece]:
    """The pieces of a document, the last of which ends it."""
    text, begins = None, True
    for following in _at_white_space(document):
        if text is not None:
            yield Piece(split, text, begins, ends=False)
            begins = False
        text = following
    if text is not None:
        yield Piece(split, text, begins, ends=True)
