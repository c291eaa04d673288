"""Text files -> streams of token ids: on disk, to train on as often as one likes, or in memory."""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kerasformer.data.corpus import SHARD_TOKENS, Corpus, Counts, ShardWriter, Split, id_type, write_index
from kerasformer.data.documents import TRAIN, VALIDATION, Piece, Texts
from kerasformer.errors import InputError
from kerasformer.files import new_folder, path_of
from kerasformer.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# Characters that each core tokenizes at a time; a text counts as some more than it has, for what is kept about it.
_BATCH, _TEXT = 2**18, 64


def prepare(
    texts: Texts, output: str | os.PathLike, *, tokenizer: Tokenizer, shard_tokens: int = SHARD_TOKENS
) -> dict[str, Counts]:
    """Writes a folder of shards, their index and the tokenizer, whole or not at all; see `corpus`.

    Memory does not grow with the texts, as long as there is white space in them and they are no .json files.

    Args:
        tokenizer: its `end_id` follows each document.

    Returns:
        How much is in the training and the validation split.

    Raises:
        InputError: the output is in use, a text cannot be read, or there is none to train on or to hold out.
    """
    dtype = id_type(tokenizer.vocab_size)
    with new_folder(path_of(output)) as folder, ExitStack() as opened, _Speed() as speed:
        writers: dict[str, ShardWriter] = {}
        totals: dict[str, Counts] = defaultdict(Counts)
        for split, ids, counts in tokenized(texts.pieces(), tokenizer):
            if split not in writers:
                writers[split] = ShardWriter(folder, split, dtype, shard_tokens)
                opened.callback(writers[split].close)
            writers[split].write(ids)
            totals[split] += counts
            speed.add(counts)
        opened.close()
        _check(totals, texts)
        write_index(folder, tokenizer, totals, writers)
    for split, counts in totals.items():
        logger.info("%s: %s", split, summary(counts))
    return dict(totals)


def load(texts: Texts, *, tokenizer: Tokenizer) -> Corpus:
    """The same streams in memory, 2 or 4 bytes a token.

    Raises:
        InputError: as `prepare`.
    """
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    totals: dict[str, Counts] = defaultdict(Counts)
    for split, ids, counts in tokenized(texts.pieces(), tokenizer):
        parts[split].append(ids.astype(id_type(tokenizer.vocab_size)))
        totals[split] += counts
    _check(totals, texts)
    splits = {split: Split([np.concatenate(arrays)], totals[split]) for split, arrays in parts.items()}
    return Corpus(f"{', '.join(map(str, texts.files)):.200}", splits, tokenizer.vocab_size, lambda: tokenizer)


def tokenized(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Iterator[tuple[str, np.ndarray, Counts]]:
    """Tokenizes pieces on every core and yields the ids of each split as they come."""
    for batch in _batches(pieces):
        found = tokenizer.tokenize([piece.text for piece in batch])
        for split in sorted({piece.split for piece in batch}):
            chosen = [(piece, ids) for piece, ids in zip(batch, found, strict=True) if piece.split == split]
            ends = ((tokenizer.end_id,) * piece.ends for piece, _ in chosen)
            rows = chain.from_iterable(zip((ids for _, ids in chosen), ends, strict=True))
            stream = np.fromiter(chain.from_iterable(rows), np.uint32)
            yield split, stream, _count([piece for piece, _ in chosen], len(stream))


def summary(counts: Counts) -> str:
    """One line on a split."""
    return f"{_numbers(counts)}, {counts.bytes / counts.tokens:.2f} bytes a token"


def _numbers(counts: Counts) -> str:
    return f"{counts.tokens:,} tokens in {counts.documents:,} document{'s' * (counts.documents != 1)}"


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    limit = _BATCH * (os.cpu_count() or 1)
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text) + _TEXT
        if size >= limit:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _count(pieces: list[Piece], tokens: int) -> Counts:
    return Counts(
        tokens=tokens,
        documents=sum(piece.begins for piece in pieces),
        characters=sum(len(piece.text) for piece in pieces),
        bytes=sum(len(piece.text.encode()) for piece in pieces),
    )


def _check(totals: Mapping[str, Counts], texts: Texts) -> None:
    """Refuses a corpus without text to train on, or without any in the files that were to be held out."""
    if TRAIN not in totals:
        raise InputError("expected text to train on, found none that is not blank or held out; add some")
    if VALIDATION not in totals and texts.validation_files:
        raise InputError("expected text in the files to validate on, found none that is not blank; name others")


class _Speed:
    """Shows documents, tokens and MB/s on stderr: in place on a terminal, else in a line now and then."""

    def __init__(self, every: float = 15.0):
        self.console, self.every = Console(stderr=True), every
        self.total = Counts()

    def __enter__(self) -> "_Speed":
        self.begun = self.printed = time.perf_counter()
        columns = SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
        self.line = Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.task = self.line.add_task("", total=None)
        self.line.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.line.stop()

    def add(self, counts: Counts) -> None:
        self.total += counts
        now = time.perf_counter()
        speed = self.total.bytes / 1e6 / (now - self.begun)
        text = f"{_numbers(self.total)}, {speed:.1f} MB/s"
        self.line.update(self.task, description=text)
        if not self.console.is_terminal and now - self.printed > self.every:
            self.printed = now
            logger.info(text)
