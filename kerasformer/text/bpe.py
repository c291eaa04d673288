"""Byte-level BPE, GPT-2's tokenizer, offline: the `tokenizers` library on every core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.text import bpe_files
from kerasformer.text.added_tokens import find_added_tokens, ordered_tokens
from kerasformer.text.tokenizer import Frame, Tokenizer, check_ids, numbered

if TYPE_CHECKING:
    from kerasformer.text.bpe_graph import BPEGraph

EOT_TOKEN = "<|endoftext|>"
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)
# GPT-2 writes a token as text with a character for each byte: printable ones are themselves, the others follow at 256.
ALPHABET = {chr(256 + i): byte for i, byte in enumerate(_OTHERS)} | {chr(byte): byte for byte in _PRINTABLE}


class BPE(Tokenizer):
    """Splits text into words by GPT-2's pattern, and joins each word's bytes pair by pair, the lowest rank first.

    It can encode and decode anything. The model's own special tokens, the two below, are not recognised inside a text,
    so that no text can forge them: "<|endoftext|>" written there is ordinary text, where `transformers` takes it for
    the token. Added tokens are recognised. From https://arxiv.org/abs/1508.07909 and GPT-2.

    Args:
        vocab: the tokens in order of their ids, in GPT-2's alphabet; the bytes and the end of text are among them.
        merges: the pairs of tokens to join, in order of rank.
        eot_token: ends a text.
        pad_token: fills up rows; the end of text does unless another is named.
        max_length: tokens of the rows that the model was made for; None where that is not known.
        added_tokens: tokens that are found in a text before it is split; those that `vocab` lacks follow it, in order.
        settings: what else `save` writes to tokenizer_config.json, for `transformers`.

    Raises:
        InputError: a token or merge appears twice or is malformed, a byte, the end of text or a part is missing, or
            added tokens cannot be told apart.
    """

    def __init__(
        self,
        vocab: Sequence[str],
        merges: Sequence[tuple[str, str]],
        *,
        eot_token: str = EOT_TOKEN,
        pad_token: str | None = None,
        max_length: int | None = None,
        added_tokens: Sequence[AddedToken] = (),
        settings: Mapping[str, Any] | None = None,
    ):
        vocab, self.merges = list(vocab), [tuple(merge) for merge in merges]
        self.eot_token, self.pad_token = eot_token, pad_token or eot_token
        self.max_length, self.settings = max_length, dict(settings or {})
        own = list(dict.fromkeys((self.eot_token, self.pad_token)))
        ids = numbered(vocab, added_tokens, own)
        self.vocab, self.base_size = list(ids), len(vocab)
        self.added_tokens = ordered_tokens(added_tokens, own, ids)
        base = {token: ids[token] for token in vocab}
        _check_merges(base, self.merges)
        self.eot_id, self.pad_id = ids[self.eot_token], ids[self.pad_token]
        self.end_id = self.eot_id
        self.frame = Frame(between=(self.eot_id,), empty=(self.eot_id,))
        self.token_bytes = [bytes_of(token) for token in vocab]
        self.token_bytes += [token.encode() for token in self.vocab[self.base_size :]]  # which stand for themselves
        for token in self.added_tokens:
            if token.special:
                self.token_bytes[ids[token.content]] = b""
        self.continues_word = np.array([not spelled[:1].isspace() for spelled in self.token_bytes])  # [V] bool
        self.tokenizer = tokenizers.Tokenizer(models.BPE(base, self.merges))
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        self.patterns = find_added_tokens(self.tokenizer, self.added_tokens, own)

    @classmethod
    def from_folder(cls, folder: str | Path) -> BPE:
        """Reads tokenizer.json, vocab.json and merges.txt, or encoder.json and vocab.bpe, from a GPT-2 folder.

        Raises:
            InputError: a file is missing or malformed, or describes a tokenizer that is not this one.
        """
        return cls(**bpe_files.read(path_of(folder)))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, vocab.json, merges.txt and tokenizer_config.json, which `transformers` loads too."""
        bpe_files.write(path_of(folder), self)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, end to end; special tokens have none.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        ids = [int(i) for i in ids]
        check_ids(ids, self.vocab_size)
        return b"".join(self.token_bytes[i] for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The tokens as text; U+FFFD stands for bytes that are not UTF-8."""
        return self.decode_bytes(ids).decode(errors="replace")

    def in_graph(self) -> BPEGraph:
        """The same tokenizer made of TensorFlow operations."""
        from kerasformer.text.bpe_graph import BPEGraph

        return BPEGraph(self)


def bytes_of(token: str) -> bytes:
    """What a token stands for: a byte for each character, if all are of GPT-2's alphabet, or else its own text."""
    if all(char in ALPHABET for char in token):
        return bytes(ALPHABET[char] for char in token)
    return token.encode()


def _check_merges(ids: dict[str, int], merges: list[tuple[str, str]]) -> None:
    if missing := [char for char in ALPHABET if char not in ids]:
        raise InputError(f"vocab: expected a token for each of the 256 bytes, {' '.join(missing)} missing: add them")
    seen: set[tuple[str, str]] = set()
    for rank, merge in enumerate(merges):
        if len(merge) != 2 or not all(isinstance(part, str) for part in merge):
            raise InputError(f"merges[{rank}]: expected a pair of tokens, got {merge!r:.60}")
        if missing := [token for token in (*merge, "".join(merge)) if token not in ids]:
            raise InputError(f"merges[{rank}]: expected tokens of the vocabulary, got {missing[0]!r}")
        if merge in seen:
            raise InputError(f"merges[{rank}]: expected each pair once, got {' '.join(merge)} again")
        seen.add(merge)
