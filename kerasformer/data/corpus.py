"""Tokenized text: streams of token ids in shards, the index that describes them, and the tokenizer that made them.

A folder of it is all that training needs:

    index.json              what is in the other files
    train-00000.bin ...     token ids, little-endian, end to end; a stream goes on from one shard to the next
    validation-00000.bin ...
    tokenizer/              the files of the tokenizer
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from kerasformer.errors import InputError
from kerasformer.files import read_json, write_json
from kerasformer.text.folder import read_tokenizer
from kerasformer.text.tokenizer import Tokenizer

INDEX, TOKENIZER = "index.json", "tokenizer"
FORMAT, VERSION = "kerasformer-tokens", 1
SHARD_TOKENS = 100_000_000
# The checksums of a split of at most so many bytes are verified when it is opened: that takes a fraction of a second.
VERIFIED_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Counts:
    """How much text there is.

    Args:
        tokens: end-of-text ones included.
        bytes: of the documents in UTF-8, for bits per byte.
    """

    tokens: int = 0
    documents: int = 0
    characters: int = 0
    bytes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, eq=False)
class Split:
    """One stream of token ids, in the arrays that hold its parts in order."""

    arrays: Sequence[np.ndarray]
    counts: Counts


@dataclass(frozen=True, eq=False)
class Corpus:
    """The streams of a tokenized text by name, such as "train" and "validation".

    Args:
        name: what messages call it.
        tokenizer: gives the tokenizer that made the token ids.
    """

    name: str
    splits: Mapping[str, Split]
    vocab_size: int
    tokenizer: Callable[[], Tokenizer]

    def split(self, name: str) -> Split:
        """The stream of that name.

        Raises:
            InputError: there is none.
        """
        if name not in self.splits:
            known = ", ".join(self.splits)
            raise InputError(f"{self.name}: expected a split among {known}, got {name!r}; name one of them")
        return self.splits[name]


def id_type(vocab_size: int) -> np.dtype:
    """The smallest type that holds every token id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def fingerprint(tokenizer: Tokenizer) -> str:
    """Equal for tokenizers whose ids mean the same tokens."""
    return hashlib.sha256(json.dumps(tokenizer.vocab).encode()).hexdigest()


class ShardWriter:
    """Writes a stream of token ids to `<split>-00000.bin` and so on."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype, shard_tokens: int = SHARD_TOKENS):
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.shards: list[dict[str, Any]] = []  # as the index lists them
        self._file, self._hash, self._room = None, None, 0

    def write(self, ids: np.ndarray) -> None:
        """Appends to the stream."""
        ids = ids.astype(self.dtype, copy=False)
        while len(ids):
            if not self._room:
                self._open()
            part, ids = ids[: self._room], ids[self._room :]
            data = part.tobytes()
            self._file.write(data)
            self._hash.update(data)
            self._room -= len(part)

    def close(self) -> None:
        """Ends the last shard."""
        if self._file is not None:
            self._file.close()
            entry = {"tokens": self.shard_tokens - self._room, "sha256": self._hash.hexdigest()}
            self.shards.append({"file": Path(self._file.name).name, **entry})
            self._file, self._room = None, 0

    def _open(self) -> None:
        self.close()
        self._file = (self.folder / f"{self.split}-{len(self.shards):05}.bin").open("xb")
        self._hash, self._room = hashlib.sha256(), self.shard_tokens


def write_index(
    folder: Path, tokenizer: Tokenizer, counts: Mapping[str, Counts], writers: Mapping[str, ShardWriter]
) -> None:
    """Completes a folder: the tokenizer's files, then the index of the shards that the writers wrote."""
    tokenizer.save(folder / TOKENIZER)
    splits = {name: vars(counts[name]) | {"shards": writer.shards} for name, writer in writers.items()}
    index = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": id_type(tokenizer.vocab_size).name,
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_id,
        "tokenizer": fingerprint(tokenizer),
        "splits": splits,
    }
    write_json(folder / INDEX, index)


def read_corpus(folder: str | os.PathLike) -> Corpus:
    """Opens a prepared folder; its token ids stay on disk until they are used.

    Raises:
        InputError: no index, one of another version, or a shard that is missing, cut or altered.
    """
    folder = Path(folder)
    path = folder / INDEX
    index = read_json(path, "the index of a prepared corpus")
    if (found := (index.get("format"), index.get("version"))) != (FORMAT, VERSION):
        raise InputError(
            f"{path}: expected version {VERSION} of {FORMAT}, got version {found[1]} of {found[0]}; "
            "run kerasformer prepare again"
        )
    try:
        vocab_size, expected = int(index["vocab_size"]), index["tokenizer"]
        dtype = id_type(vocab_size)
        if index["dtype"] != dtype.name:
            raise ValueError(f"dtype {index['dtype']} for {vocab_size} tokens")
        described = {name: _described(entry) for name, entry in index["splits"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: expected an index as prepared, got {reason}; prepare the text again") from error
    splits = {name: _open(folder, dtype, *entry) for name, entry in described.items()}

    def tokenizer() -> Tokenizer:
        found = read_tokenizer(folder / TOKENIZER)
        if fingerprint(found) != expected:
            raise InputError(f"{folder / TOKENIZER}: expected the tokenizer of the shards, got another; prepare again")
        return found

    return Corpus(str(folder), splits, vocab_size, tokenizer)


def _described(entry: Mapping[str, Any]) -> tuple[Counts, dict[str, tuple[int, str]]]:
    """What the index says of a split: its counts, and the tokens and checksum of each file."""
    shards = {str(shard["file"]): (int(shard["tokens"]), str(shard["sha256"])) for shard in entry["shards"]}
    counts = Counts(**{field.name: int(entry[field.name]) for field in fields(Counts)})
    sizes = [tokens for tokens, _ in shards.values()]
    if sum(sizes) != counts.tokens or min(sizes, default=0) < 1:
        raise ValueError(f"{counts.tokens:,} tokens in shards of {sizes}")
    return counts, shards


def _open(folder: Path, dtype: np.dtype, counts: Counts, shards: Mapping[str, tuple[int, str]]) -> Split:
    remedy = "copy it again or prepare the text again"
    for name, (tokens, checksum) in shards.items():
        path, expected = folder / name, tokens * dtype.itemsize
        if (size := path.stat().st_size if path.is_file() else -1) != expected:
            found = "no such file" if size < 0 else f"{size:,}"
            raise InputError(f"{path}: expected a shard of {expected:,} bytes, as {INDEX} says, got {found}; {remedy}")
        if counts.tokens * dtype.itemsize <= VERIFIED_BYTES:
            with path.open("rb") as file:
                altered = hashlib.file_digest(file, "sha256").hexdigest() != checksum
            if altered:
                raise InputError(f"{path}: expected the checksum in {INDEX}, got another; {remedy}")
    return Split([np.memmap(folder / name, dtype, mode="r") for name in shards], counts)
