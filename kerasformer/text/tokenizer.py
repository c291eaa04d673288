"""What the tokenizers share: checked texts, and rows of token ids for a model."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import tokenizers
from tokenizers import AddedToken

from kerasformer.errors import InputError
from kerasformer.text.added_tokens import Pattern, is_text

if TYPE_CHECKING:
    import tensorflow as tf

_BATCH = 256  # texts tokenized at a time: what `tokenizers` returns takes many times the memory of the ids


@dataclass(frozen=True)
class Encoded:
    """N rows of token ids, end to end: row i is token_ids[offsets[i] : offsets[i + 1]].

    Attributes:
        token_ids: [total] int32.
        segment_ids: [total] int32, the frame's `pair_segment` for the second text of a pair and what ends it, else 0.
        offsets: [N + 1] int64.
        truncated: [N] bool, whether the row lost tokens to max_length.
    """

    token_ids: np.ndarray
    segment_ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True)
class Frame:
    """The special tokens of a row: `first text last`, or `first text between pair last`.

    Attributes:
        empty: stands for a single text that has no token.
        pair_segment: the segment id of the second text.
    """

    first: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    pair_segment: int = 0

    def room(self, max_length: int, *, paired: bool) -> int:
        """How many tokens of text fit a row. Raises InputError where none would."""
        special = len(self.first) + len(self.last) + (len(self.between) if paired else 0)
        if max_length <= special:
            raise InputError(f"max_length: expected more than the {special} special tokens of a row, got {max_length}")
        return max_length - special


class Tokenizer(ABC):
    """Strings <-> token ids.

    Attributes:
        vocab: the tokens in order of their ids.
        added_tokens: the special tokens, and those that are found in a text before it is split, in order of their ids.
        patterns: what to look for in a text before it is split; nothing where there are but the own special tokens.
        base_size: how many tokens the splitting of words can give, the first ones; added tokens may follow them.
        pad_id: fills up rows.
        end_id: follows each document where many make one stream.
        continues_word: [V] bool, whether a token continues the word before it.
        frame: the special tokens of a row.
        tokenizer: splits text, without special tokens.
        max_length: tokens of the rows that the model was made for; None where that is not known.
        max_positions: those that the model has room for; it sets them.
    """

    vocab: list[str]
    added_tokens: list[AddedToken]
    patterns: list[Pattern]
    base_size: int
    pad_id: int
    end_id: int
    continues_word: np.ndarray
    frame: Frame
    tokenizer: tokenizers.Tokenizer
    max_length: int | None = None
    max_positions: int | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tokenizer.encode_special_tokens = True  # which a pickled tokenizer of `tokenizers` has lost

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.vocab)

    @classmethod
    @abstractmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Reads the tokenizer of a Hugging Face checkpoint folder. Raises InputError where it is another one."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Writes the files that `from_folder` and `transformers` read."""

    def to_files(self) -> dict[str, str]:
        """The content of the files that `save` writes, by name."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> Self:
        """The tokenizer of such files."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_text(content, encoding="utf-8", newline="\n")
            return cls.from_folder(folder)

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Joins the tokens into text, leaving out the special ones."""

    @abstractmethod
    def in_graph(self) -> tf.Module:
        """The same tokenizer made of TensorFlow operations."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens. Raises InputError where a text is no text."""
        texts = checked("texts", texts)
        return [ids for start in range(0, len(texts), _BATCH) for ids in self._tokenize(texts[start : start + _BATCH])]

    def encode(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, *, max_length: int) -> Encoded:
        """Makes rows of one or two texts, framed by special tokens, of at most max_length token ids.

        Raises:
            InputError: a text is no text, there are not as many pairs as texts, or max_length is too small.
        """
        room = self.frame.room(max_length, paired=text_pairs is not None)
        texts = checked("texts", texts)
        if text_pairs is not None:
            text_pairs = checked("text_pairs", text_pairs)
            if len(text_pairs) != len(texts):
                raise InputError(f"text_pairs: expected {len(texts)}, one for each text, got {len(text_pairs)}")

        batches = [slice(start, start + _BATCH) for start in range(0, len(texts) or 1, _BATCH)]
        packed = [self._pack(texts[rows], text_pairs and text_pairs[rows], room) for rows in batches]
        token_ids, segment_ids, lengths, truncated = map(np.concatenate, zip(*packed, strict=True))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Encoded(token_ids, segment_ids, offsets, truncated)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _pack(self, texts: Sequence[str], pairs: Sequence[str] | None, room: int) -> tuple[np.ndarray, ...]:
        """Returns token ids and segment ids end to end, and the length of each row and whether it was truncated."""
        frame, paired = self.frame, pairs is not None
        first, second = self._tokenize(texts), self._tokenize(pairs) if paired else [[]] * len(texts)
        sizes = np.array([(len(a), len(b)) for a, b in zip(first, second, strict=True)], np.int64).reshape(-1, 2)
        kept = np.stack(longest_first(sizes[:, 0], sizes[:, 1], room), axis=1)
        middle, last, empty = (frame.between, frame.last, ()) if paired else (frame.last, (), frame.empty)
        rows = (
            (frame.first, a[:m] or empty, middle, b[:n], last) for a, b, (m, n) in zip(first, second, kept, strict=True)
        )
        token_ids = np.fromiter(chain.from_iterable(chain.from_iterable(rows)), np.int32)
        lengths = kept + (len(frame.first) + len(middle), len(last))
        lengths[:, 0] += len(empty) * (kept[:, 0] == 0)
        segment_ids = np.repeat(np.tile(np.array([0, frame.pair_segment], np.int32), len(texts)), lengths.ravel())
        return token_ids, segment_ids, lengths.sum(axis=1), (kept < sizes).any(axis=1)


def longest_first(first: Any, second: Any, room: int, xp: ModuleType = np) -> tuple[Any, Any]:
    """How many tokens to keep of two texts of these lengths: the longer is cut first, then both in turn.

    Args:
        first, second: integer arrays of `xp`, NumPy or TensorFlow, so that both forms of a tokenizer share this.
    """
    half = xp.where(first > second, room - room // 2, room // 2)  # of an odd room, the longer text gets more
    first = xp.minimum(first, xp.maximum(half, room - second))
    return first, xp.minimum(second, room - first)


def numbered(vocab: Sequence[str], added_tokens: Sequence[AddedToken], required: Iterable[str]) -> dict[str, int]:
    """Maps each token to its id; added tokens that the vocabulary lacks follow it.

    Raises:
        InputError: a token is given twice, malformed or missing.
    """
    ids: dict[str, int] = {}
    for i, token in enumerate(vocab):
        if not is_text(token) or "\n" in token or "\r" in token:
            raise InputError(f"vocab: expected tokens of one line of Unicode text, got {token!r} for id {i}")
        if ids.setdefault(token, i) != i:
            raise InputError(f"vocab: expected each token once, got {token!r} for ids {ids[token]} and {i}")
    for token in added_tokens:
        ids.setdefault(token.content, len(ids))
    if missing := [token for token in required if token not in ids]:
        raise InputError(f"vocab: expected the special tokens, {', '.join(missing)} missing: add or name them")
    return ids


def check_ids(ids: Iterable[int], vocab_size: int) -> None:
    """Raises InputError for an id outside the vocabulary."""
    if odd := [i for i in ids if not 0 <= i < vocab_size]:
        raise InputError(f"expected token ids from 0 to {vocab_size - 1}, got {odd[0]}; use the model's tokenizer")


def checked(name: str, texts: Sequence[str]) -> list[str]:
    """The texts as a list. Raises InputError, which calls them `name`, for what is no text."""
    if isinstance(texts, str):
        raise InputError(f"{name}: expected a list of strings, got one string")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not is_text(text):
            raise InputError(f"{name}[{i}]: expected a string of Unicode text, got {text!r:.60}")
    return texts
