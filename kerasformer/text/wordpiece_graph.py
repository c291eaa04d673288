"""WordPiece inside the graph, for models that are served strings: core TensorFlow operations alone."""

from collections.abc import Sequence

import tensorflow as tf

from kerasformer.text.added_graph import AddedTokens
from kerasformer.text.code_points import BREAK, PAGE, CodePointMap
from kerasformer.text.rows_graph import encode, string_function
from kerasformer.text.wordpiece import MAX_WORD_LENGTH, WordPiece

_NONE = -1  # in place of a piece: not in the vocabulary, or the word has ended
_FAILED = -2  # in place of a piece: the vocabulary cannot spell the word


class WordPieceGraph(tf.Module):
    """Tokenizes any UTF-8 text as the WordPiece that it is made from, id for id.

    Bytes that are not UTF-8 are left out. Shapes: B texts, C code points, W what each turns into at most, U distinct
    words, N of them not yet spelled, L lengths of pieces.

    Attributes:
        tokenize: a TensorFlow function of strings [B] that gives token ids int32 [B, None], as `WordPiece.tokenize`.
    """

    def __init__(self, wordpiece: WordPiece):
        super().__init__(name="wordpiece")
        self._unk_id, self._pad_id, self._frame = wordpiece.unk_id, wordpiece.pad_id, wordpiece.frame
        self._max_length = wordpiece.max_length
        self._normalize = _Normalize(wordpiece.code_points())
        pieces = _pieces(wordpiece.vocab[: wordpiece.base_size])
        self._longest = max(map(len, pieces))
        self._ids = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(list(pieces), list(pieces.values()), tf.string, tf.int32), _NONE
        )
        normalized = any(pattern.token.normalized for pattern in wordpiece.patterns)
        normalize = _Normalize(wordpiece.code_points(split=False)) if normalized else tf.identity
        self._added_tokens = AddedTokens(wordpiece.patterns, normalize) if wordpiece.patterns else None
        self.tokenize = string_function(self._tokenize)

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns the int32 token ids [B, None] of strings [B], without special tokens."""
        with tf.device("CPU"):  # strings live there; the integers between them had better stay
            return self._spell_all(text) if self._added_tokens is None else self._added_tokens(text, self._spell_all)

    def _spell_all(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Token ids [B, None] of strings [B] without added tokens, be they normalized already or not."""
        words = tf.strings.split(self._normalize(text))
        distinct, which = tf.unique(words.values)
        token_ids = tf.gather(self._spell(distinct), which)
        return tf.RaggedTensor.from_row_splits(token_ids, words.row_splits, validate=False).merge_dims(1, 2)

    def __call__(
        self,
        text: tf.Tensor | Sequence[str],
        text_pair: tf.Tensor | Sequence[str] | None = None,
        *,
        max_length: int | None = None,
    ) -> dict[str, tf.Tensor]:
        """Makes the rows of `WordPiece.encode`, padded to the longest of the batch.

        Args:
            text, text_pair: strings [B].
            max_length: tokens of a row at most; those that the tokenizer knew when this was made, by default, and
                any number where it knew none.

        Returns:
            int32 token_ids, segment_ids and padding_mask [B, T].

        Raises:
            InputError: a text is no string, or max_length leaves no room for a token.
        """
        max_length = self._max_length if max_length is None else max_length
        return encode(self.tokenize, text, text_pair, self._frame, max_length=max_length, pad_id=self._pad_id)

    def _spell(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Spells words [U] by token ids [U, None], each time with the longest piece that the rest begins with."""
        rest = tf.strings.join([" ", words])
        too_long = tf.strings.length(words, unit="UTF8_CHAR") > MAX_WORD_LENGTH
        whole = tf.where(too_long, _FAILED, self._ids.lookup(rest))
        where = tf.where(whole == _NONE)[:, 0]

        def spell_on(ids, where, rest):
            size = tf.strings.length(rest, unit="UTF8_CHAR")
            ends = tf.minimum(tf.range(1, self._longest + 1), size[:, None])  # [N, L]
            starts = tf.strings.substr(rest[:, None], tf.zeros_like(ends), ends, unit="UTF8_CHAR")
            end = tf.reduce_max(tf.where(self._ids.lookup(starts) == _NONE, 0, ends), axis=1)  # [N]
            piece = self._ids.lookup(tf.strings.substr(rest, tf.zeros_like(end), end, unit="UTF8_CHAR"))
            piece = tf.where(end == 0, _FAILED, piece)
            column = tf.tensor_scatter_nd_update(tf.fill(tf.shape(words), _NONE), where[:, None], piece)
            going_on = (end > 0) & (end < size)
            where, rest, end, size = (tf.boolean_mask(x, going_on) for x in (where, rest, end, size))
            rest = tf.strings.substr(rest, end, size, unit="UTF8_CHAR")
            return tf.concat([ids, column[:, None]], axis=1), where, rest

        ids, _, _ = tf.while_loop(
            lambda ids, where, rest: tf.size(where) > 0,
            spell_on,
            (whole[:, None], where, tf.gather(rest, where)),
            shape_invariants=(tf.TensorShape([None, None]), tf.TensorShape([None]), tf.TensorShape([None])),
        )
        failed = tf.reduce_any(ids == _FAILED, axis=1, keepdims=True)  # [U, 1]
        first = tf.where(failed, self._unk_id, ids[:, :1])
        ids = tf.concat([first, tf.where(failed, _NONE, ids[:, 1:])], axis=1)
        real = ids >= 0
        return tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(ids, real), tf.math.count_nonzero(real, axis=1), validate=False
        )


class _Normalize(tf.Module):
    """Replaces the code points of strings [B], and puts marks in canonical order."""

    def __init__(self, code_points: CodePointMap):
        super().__init__(name="normalize")
        self._pages = tf.constant(code_points.pages * PAGE)
        self._rows = tf.constant(code_points.rows.reshape(-1))
        self._outputs = tf.constant(code_points.outputs)
        self._ranks = tf.constant(code_points.ranks)
        self._has_mark = tf.constant(code_points.has_mark)
        self._any_mark = code_points.has_mark.any()

    def __call__(self, text: tf.Tensor) -> tf.Tensor:
        decoded = tf.strings.unicode_decode(text, "UTF-8")  # [B, None]
        code_point = decoded.values  # [C]
        row = tf.gather(self._rows, tf.gather(self._pages, code_point // PAGE) + code_point % PAGE)
        shift = tf.gather(self._outputs, row)  # [C, W]
        output = tf.where(shift == BREAK, ord(" "), code_point[:, None] + shift)
        if self._any_mark:
            output = tf.cond(
                tf.reduce_any(tf.gather(self._has_mark, row)),
                lambda: _in_canonical_order(output, tf.gather(self._ranks, row), decoded.value_rowids()),
                lambda: output,
            )
        splits = decoded.row_splits * self._outputs.shape[1]
        normalized = tf.RaggedTensor.from_row_splits(tf.reshape(output, [-1]), splits, validate=False)
        return tf.strings.unicode_encode(normalized, "UTF-8", errors="ignore")


def _in_canonical_order(output: tf.Tensor, ranks: tf.Tensor, text: tf.Tensor) -> tf.Tensor:
    """Sorts the marks in output [C, W] by rank; those of rank 0 stay, as do the bounds of the texts [C]."""
    shape = tf.shape(output)
    stays = tf.cast(tf.reshape(ranks, [-1]) == 0, tf.int64)
    run = tf.reshape(tf.cumsum(stays), shape) + text[:, None]
    ranks = tf.cast(ranks, tf.int64)
    order = tf.argsort(tf.reshape(run * (1 + tf.reduce_max(ranks)) + ranks, [-1]), stable=True)
    return tf.reshape(tf.gather(tf.reshape(output, [-1]), order), shape)


def _pieces(vocab: list[str]) -> dict[str, int]:
    """Maps " word" to the id of a piece that starts words, and "ing" to that of one that continues them."""
    ids = {token: i for i, token in enumerate(vocab) if " " not in token and len(token) <= MAX_WORD_LENGTH + 2}
    return {
        token[2:] if token.startswith("##") else f" {token}": i for token, i in ids.items() if token not in ("", "##")
    }
