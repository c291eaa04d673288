"""WordPiece, BERT's tokenizer, offline: the `tokenizers` library on every core."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.text import wordpiece_files
from kerasformer.text.added_tokens import find_added_tokens, ordered_tokens
from kerasformer.text.code_points import CodePointMap, map_code_points
from kerasformer.text.tokenizer import Frame, Tokenizer, numbered

if TYPE_CHECKING:
    from kerasformer.text.wordpiece_graph import WordPieceGraph

MAX_WORD_LENGTH = 100  # characters; a longer word is unknown


class WordPiece(Tokenizer):
    """Splits text into words and punctuation, and each word into the longest pieces in the vocabulary.

    The model's own special tokens, the five below, are not recognised inside a text, so that no text can forge them:
    "[CLS]" written there is ordinary text, three words long, where `transformers` takes it for the token. Added tokens
    are recognised. From https://arxiv.org/abs/1810.04805.

    Args:
        vocab: the tokens in order of their ids; "##" starts those that continue a word.
        lowercase: lower-cases the text.
        strip_accents: removes accents; None does as `lowercase`.
        handle_chinese_chars: makes each CJK ideograph a word.
        unk_token: stands for a word that the vocabulary cannot spell.
        max_length: tokens of the rows that the model was made for; None where that is not known.
        added_tokens: tokens that are found in a text before it is split; those that `vocab` lacks follow it, in order.
        settings: what else `save` writes to tokenizer_config.json, for `transformers`.

    Raises:
        InputError: a token appears twice, holds a line break or is no text, a special token is missing, or added
            tokens cannot be told apart.
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
        added_tokens: Sequence[AddedToken] = (),
        settings: Mapping[str, Any] | None = None,
    ):
        self.max_length, self.settings = max_length, dict(settings or {})
        self.special_tokens = {
            "unk_token": unk_token,
            "pad_token": pad_token,
            "cls_token": cls_token,
            "sep_token": sep_token,
            "mask_token": mask_token,
        }
        own = list(self.special_tokens.values())
        vocab = list(vocab)
        ids = numbered(vocab, added_tokens, own)
        self.vocab, self.base_size = list(ids), len(vocab)
        self.added_tokens = ordered_tokens(added_tokens, own, ids)
        self.unk_id, self.pad_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in self.special_tokens.values()
        )
        if self.unk_id >= self.base_size:
            raise InputError(f"vocab: expected {unk_token} for unknown words, got it among added tokens alone: add it")
        self.special_ids = frozenset(ids[token.content] for token in self.added_tokens if token.special)
        self.end_id = self.sep_id
        self.frame = Frame((self.cls_id,), (self.sep_id,), (self.sep_id,), pair_segment=1)
        self.continues_word = np.array([token.startswith("##") for token in self.vocab])  # [V] bool
        self.normalization = {
            "lowercase": lowercase,
            "strip_accents": strip_accents,
            "handle_chinese_chars": handle_chinese_chars,
        }
        base = {token: ids[token] for token in vocab}
        model = models.WordPiece(base, unk_token=unk_token, max_input_chars_per_word=MAX_WORD_LENGTH)
        self.tokenizer = tokenizers.Tokenizer(model)
        self.tokenizer.normalizer = normalizers.BertNormalizer(**self.normalization)
        self.tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.tokenizer.decoder = decoders.WordPiece(prefix="##")
        self.patterns = find_added_tokens(self.tokenizer, self.added_tokens, own)

    @classmethod
    def from_folder(cls, folder: str | Path) -> WordPiece:
        """Reads tokenizer.json, or else vocab.txt and tokenizer_config.json, from a Hugging Face checkpoint folder.

        Raises:
            InputError: a file is missing or malformed, or describes a tokenizer that is not this one.
        """
        return cls(**wordpiece_files.read(path_of(folder)))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, vocab.txt and tokenizer_config.json, which `transformers` loads too."""
        wordpiece_files.write(path_of(folder), self)

    def decode(self, ids: Iterable[int]) -> str:
        """Joins the tokens into text, leaving out the special ones."""
        return self.tokenizer.decode([int(i) for i in ids if int(i) not in self.special_ids])

    def code_points(self, *, split: bool = True) -> CodePointMap:
        """What lower-casing, accent stripping and, with `split`, word splitting make of each code point."""
        return _map_code_points(split, **self.normalization)

    def in_graph(self) -> WordPieceGraph:
        """The same tokenizer made of TensorFlow operations."""
        from kerasformer.text.wordpiece_graph import WordPieceGraph

        return WordPieceGraph(self)


@functools.cache
def _map_code_points(split: bool, **normalization: bool | None) -> CodePointMap:
    normalizer = normalizers.BertNormalizer(**normalization)
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str if split else lambda text: [(text, None)]
    return map_code_points(normalizer.normalize_str, words)
