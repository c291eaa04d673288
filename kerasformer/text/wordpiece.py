"""WordPiece, BERT's tokenizer, offline: the `tokenizers` library on every core."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from kerasformer.errors import InputError
from kerasformer.text import wordpiece_files
from kerasformer.text.code_points import CodePointMap, map_code_points

MAX_WORD_LENGTH = 100  # characters; a longer word is unknown
_BATCH = 256  # texts tokenized at a time: what `tokenizers` returns takes many times the memory of the ids


@dataclass(frozen=True)
class Encoded:
    """N rows of token ids, end to end: row i is token_ids[offsets[i] : offsets[i + 1]].

    Attributes:
        token_ids: [total] int32.
        segment_ids: [total] int32, 1 for the second text of a pair and the separator after it.
        offsets: [N + 1] int64.
        truncated: [N] bool, whether the row lost tokens to max_length.
    """

    token_ids: np.ndarray
    segment_ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray


class WordPiece:
    """Splits text into words and punctuation, and each word into the longest pieces in the vocabulary.

    Special tokens are not recognised inside a text: "[CLS]" written there is ordinary text, three words long.
    From https://arxiv.org/abs/1810.04805.

    Args:
        vocab: the tokens in order of their ids; "##" starts those that continue a word.
        lowercase: lower-cases the text.
        strip_accents: removes accents; None does as `lowercase`.
        handle_chinese_chars: makes each CJK ideograph a word.
        unk_token: stands for a word that the vocabulary cannot spell.
        max_length: tokens of the rows that the model was made for; None where that is not known.

    Raises:
        InputError: a token appears twice, holds a line break or is no text, or a special token is missing.
    """

    def __init__(
        self,
        vocab: Sequence[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        handle_chinese_chars: bool = True,
        unk_token: str = "[UNK]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        sep_token: str = "[SEP]",
        mask_token: str = "[MASK]",
        max_length: int | None = None,
    ):
        self.vocab = list(vocab)
        self.vocab_size = len(self.vocab)
        self.max_length = max_length
        self.max_positions: int | None = None  # of the model that the rows are for, which sets it
        self.special_tokens = {
            "unk_token": unk_token,
            "pad_token": pad_token,
            "cls_token": cls_token,
            "sep_token": sep_token,
            "mask_token": mask_token,
        }
        ids = _numbered(self.vocab, self.special_tokens.values())
        self.unk_id, self.pad_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in self.special_tokens.values()
        )
        self.continues_word = np.array([token.startswith("##") for token in self.vocab])  # [V] bool
        self.normalization = {
            "lowercase": lowercase,
            "strip_accents": strip_accents,
            "handle_chinese_chars": handle_chinese_chars,
        }
        model = models.WordPiece(ids, unk_token=unk_token, max_input_chars_per_word=MAX_WORD_LENGTH)
        self.tokenizer = Tokenizer(model)
        self.tokenizer.normalizer = normalizers.BertNormalizer(**self.normalization)
        self.tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.tokenizer.decoder = decoders.WordPiece(prefix="##")

    @classmethod
    def from_folder(cls, folder: str | Path) -> WordPiece:
        """Reads tokenizer.json, or else vocab.txt and tokenizer_config.json, from a Hugging Face checkpoint folder.

        Raises:
            InputError: a file is missing or malformed, or describes a tokenizer that is not this one.
        """
        return cls(**wordpiece_files.read(Path(folder)))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, vocab.txt and tokenizer_config.json, which `transformers` loads too."""
        wordpiece_files.write(Path(folder), self.tokenizer, self.normalization, self.special_tokens, self.max_length)

    def encode(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, *, max_length: int) -> Encoded:
        """Makes rows `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]` of at most max_length token ids.

        Raises:
            InputError: a text is no text, there are not as many pairs as texts, or max_length is too small.
        """
        room = room_for_tokens(max_length, paired=text_pairs is not None)
        texts = _checked("texts", texts)
        if text_pairs is not None:
            text_pairs = _checked("text_pairs", text_pairs)
            if len(text_pairs) != len(texts):
                raise InputError(f"text_pairs: expected {len(texts)}, one for each text, got {len(text_pairs)}")

        batches = [slice(start, start + _BATCH) for start in range(0, len(texts) or 1, _BATCH)]
        packed = [self._pack(texts[rows], text_pairs and text_pairs[rows], room) for rows in batches]
        token_ids, segment_ids, lengths, truncated = map(np.concatenate, zip(*packed, strict=True))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Encoded(token_ids, segment_ids, offsets, truncated)

    def decode(self, ids: Iterable[int]) -> str:
        """Joins the tokens into text, leaving out the special ones."""
        special = {self.unk_id, self.pad_id, self.cls_id, self.sep_id, self.mask_id}
        return self.tokenizer.decode([int(i) for i in ids if int(i) not in special])

    def code_points(self) -> CodePointMap:
        """What lower-casing, accent stripping and word splitting make of each code point."""
        return _map_code_points(**self.normalization)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _pack(self, texts: Sequence[str], pairs: Sequence[str] | None, room: int) -> tuple[np.ndarray, ...]:
        """Returns token ids and segment ids end to end, and the length of each row and whether it was truncated."""
        first = self._tokenize(texts)
        second = [[]] * len(texts) if pairs is None else self._tokenize(pairs)
        last = () if pairs is None else (self.sep_id,)
        sizes = np.array([(len(a), len(b)) for a, b in zip(first, second, strict=True)], np.int64).reshape(-1, 2)
        kept = np.stack(longest_first(sizes[:, 0], sizes[:, 1], room), axis=1)
        rows = (
            ((self.cls_id,), a[:m], (self.sep_id,), b[:n], last)
            for a, b, (m, n) in zip(first, second, kept, strict=True)
        )
        token_ids = np.fromiter(chain.from_iterable(chain.from_iterable(rows)), np.int32)
        lengths = kept + (2, len(last))
        segment_ids = np.repeat(np.tile(np.array([0, 1], np.int32), len(texts)), lengths.ravel())
        return token_ids, segment_ids, lengths.sum(axis=1), (kept < sizes).any(axis=1)


def room_for_tokens(max_length: int, *, paired: bool) -> int:
    """How many tokens fit beside [CLS] and [SEP]. Raises InputError where none would."""
    special = 3 if paired else 2
    if max_length <= special:
        raise InputError(f"max_length: expected more than the {special} special tokens of a row, got {max_length}")
    return max_length - special


def longest_first(first: Any, second: Any, room: int, xp: ModuleType = np) -> tuple[Any, Any]:
    """How many tokens to keep of two texts of these lengths: the longer is cut first, then both in turn.

    Args:
        first, second: integer arrays of `xp`, NumPy or TensorFlow, so that both forms of the tokenizer share this.
    """
    half = xp.where(first > second, room - room // 2, room // 2)  # of an odd room, the longer text gets more
    first = xp.minimum(first, xp.maximum(half, room - second))
    return first, xp.minimum(second, room - first)


@functools.cache
def _map_code_points(**normalization: bool | None) -> CodePointMap:
    normalizer = normalizers.BertNormalizer(**normalization)
    return map_code_points(normalizer.normalize_str, pre_tokenizers.BertPreTokenizer().pre_tokenize_str)


def _numbered(vocab: list[str], required: Iterable[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i, token in enumerate(vocab):
        if not _is_text(token) or "\n" in token or "\r" in token:
            raise InputError(f"vocab: expected tokens of one line of Unicode text, got {token!r} for id {i}")
        if ids.setdefault(token, i) != i:
            raise InputError(f"vocab: expected each token once, got {token!r} for ids {ids[token]} and {i}")
    if missing := [token for token in required if token not in ids]:
        raise InputError(f"vocab: expected the special tokens, {', '.join(missing)} missing: add or name them")
    return ids


def _checked(name: str, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InputError(f"{name}: expected a list of strings, got one string")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not _is_text(text):
            raise InputError(f"{name}[{i}]: expected a string of Unicode text, got {text!r:.60}")
    return texts


def _is_text(value: object) -> bool:
    """Whether the value is a string without lone surrogates, which UTF-8 cannot hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
