"""Byte-level BPE inside the graph, for models that are served strings: core TensorFlow operations alone."""

from collections.abc import Sequence

import tensorflow as tf

from kerasformer.text.added_graph import AddedTokens
from kerasformer.text.bpe import ALPHABET, BPE, bytes_of
from kerasformer.text.bpe_merges import Merges
from kerasformer.text.bpe_words import Words
from kerasformer.text.rows_graph import encode, string_function

_NONE = -1  # the word is not a single token


class BPEGraph(tf.Module):
    """Tokenizes any bytes: UTF-8 text as the BPE that it is made from, id for id, and the rest without loss.

    Shapes: B texts, W words, U distinct words, R of them of several tokens.

    Attributes:
        tokenize: a TensorFlow function of strings [B] that gives token ids int32 [B, None], as `BPE.tokenize`.
    """

    def __init__(self, bpe: BPE):
        super().__init__(name="bpe")
        self._pad_id, self._frame = bpe.pad_id, bpe.frame
        self._words, self._merges = Words(), Merges(bpe)
        model = bpe.tokenizer.model
        whole = {_spelled(token): i for i, token in enumerate(bpe.vocab) if _makes(model, token, i)}
        self._whole = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(list(whole), list(whole.values()), tf.string, tf.int32), _NONE
        )
        self._token_bytes = tf.constant([*bpe.token_bytes, b""])  # [V + 1]
        self._max_length = bpe.max_length
        self._added_tokens = AddedTokens(bpe.patterns) if bpe.patterns else None
        self.tokenize = string_function(self._tokenize)

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns the int32 token ids [B, None] of strings [B], without special tokens."""
        with tf.device("CPU"):  # strings live there; to copy the integers between them would take longer
            return self._spell(text) if self._added_tokens is None else self._added_tokens(text, self._spell)

    def _spell(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Token ids [B, None] of strings [B] without added tokens."""
        words = self._words(text)
        distinct, which = tf.unique(words.values, tf.int64)  # [U], [W]
        whole = self._whole.lookup(distinct)
        several = tf.where(whole == _NONE)[:, 0]  # [R]
        spelled = self._merges(tf.gather(distinct, several))  # [R, None]
        # Each distinct word is a span of the pool: one token of the first U, or several of the rest.
        pool = tf.concat([whole, spelled.values], axis=0)
        start = tf.range(tf.size(whole, tf.int64))
        end = tf.tensor_scatter_nd_update(start + 1, several[:, None], start[-1:] + 1 + spelled.row_limits())
        start = tf.tensor_scatter_nd_update(start, several[:, None], start[-1:] + 1 + spelled.row_starts())
        spans = tf.ragged.range(tf.gather(start, which), tf.gather(end, which))  # [W, None]
        splits = tf.gather(spans.row_splits, words.row_splits)
        return tf.RaggedTensor.from_row_splits(tf.gather(pool, spans.values), splits, validate=False)

    def detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Returns the text of token ids [B, None] as strings [B] of valid UTF-8, as `BPE.decode` does.

        An id outside the vocabulary, as of a model with more outputs than there are tokens, stands for nothing.
        """
        with tf.device("CPU"):
            size = tf.size(self._token_bytes, ids.dtype) - 1
            known = (ids.values >= 0) & (ids.values < size)
            pieces = tf.gather(self._token_bytes, tf.where(known, ids.values, size))
            joined = tf.strings.unsorted_segment_join(pieces, ids.value_rowids(), ids.nrows())
            return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    def __call__(
        self,
        text: tf.Tensor | Sequence[str],
        text_pair: tf.Tensor | Sequence[str] | None = None,
        *,
        max_length: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Makes the rows of `BPE.encode`, padded to the longest of the batch.

        Args:
            text, text_pair: strings [B].
            max_length: tokens of a row at most; those that the tokenizer knew when this was made, by default, and
                any number where it knew none.

        Returns:
            int32 token_ids and padding_mask [B, T].

        Raises:
            InputError: a text is no string, or max_length leaves no room for a token.
        """
        max_length = self._max_length if max_length is None else max_length
        rows = encode(self.tokenize, text, text_pair, self._frame, max_length=max_length, pad_id=self._pad_id)
        return {name: rows[name] for name in ("token_ids", "padding_mask")}


def _spelled(token: str) -> str:
    """The token as `Words` gives words: one character for each byte, of the code point 0 to 255."""
    return bytes_of(token).decode("latin-1")


def _makes(model, token: str, token_id: int) -> bool:
    """Whether the merges make this one token of its bytes."""
    return all(char in ALPHABET for char in token) and [made.id for made in model.tokenize(token)] == [token_id]
