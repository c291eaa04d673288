"""Added tokens found inside the graph: core TensorFlow operations alone.

Shapes: B texts, P pieces of them, of which each is the text of an added token or ordinary text.
"""

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tokenizers import AddedToken, Tokenizer, models

from kerasformer.errors import InputError
from kerasformer.text.added_tokens import WHITE_SPACE, Pattern

_NONE = -1  # in place of a token id: the piece is ordinary text
_MAX_BYTES = 10_000  # of all patterns: with more, TensorFlow's regular expressions run out of memory and get slow


class AddedTokens(tf.Module):
    """Finds added tokens in texts as `tokenizers` does: first those without `normalized`, then the others between them.

    Args:
        patterns: what to look for.
        normalize: strings [P] -> strings [P], if the tokenizer normalizes.

    Raises:
        InputError: there are too many.
    """

    def __init__(self, patterns: Sequence[Pattern], normalize: Callable[[tf.Tensor], tf.Tensor] = tf.identity):
        super().__init__(name="added_tokens")
        if (size := sum(len(pattern.text.encode()) for pattern in patterns)) > _MAX_BYTES:
            raise InputError(
                f"added tokens: expected at most {_MAX_BYTES} bytes of them in a graph, got {size}; add fewer"
            )
        stages = [(tf.identity, [p for p in patterns if not p.token.normalized])]
        stages += [(normalize, [p for p in patterns if p.token.normalized])]
        self._stages = [
            (before, _Matches(found)) for before, found in stages if any(p.token_id is not None for p in found)
        ]

    def __call__(self, text: tf.Tensor, tokenize: Callable[[tf.Tensor], tf.RaggedTensor]) -> tf.RaggedTensor:
        """Token ids int32 [B, None] of texts [B].

        Args:
            tokenize: gives the ids [P, None] of ordinary text [P].
        """
        pieces, ids, splits = text, tf.fill(tf.shape(text), _NONE), tf.range(tf.size(text, tf.int64) + 1)
        for normalize, match in self._stages:
            found, found_ids = match(normalize(tf.where(ids == _NONE, pieces, "")))
            before = tf.gather(ids, found.value_rowids())
            pieces, ids = found.values, tf.where(before == _NONE, found_ids, before)
            splits = tf.gather(found.row_splits, splits)
        is_text = ids == _NONE
        ordinary = tokenize(tf.where(is_text, pieces, ""))
        added = tf.RaggedTensor.from_row_lengths(tf.boolean_mask(ids, ~is_text), tf.cast(~is_text, tf.int64), False)
        rows = tf.concat([ordinary, added], axis=1)  # one of the two is empty
        return tf.RaggedTensor.from_row_splits(rows, splits, validate=False).merge_dims(1, 2)


class _Matches(tf.Module):
    """Splits strings at some added tokens: of those that start first the longest, and so on after its end."""

    def __init__(self, patterns: Sequence[Pattern]):
        super().__init__(name="matches")
        # Of alternatives the first that matches is taken, so longer ones come first.
        patterns = sorted(patterns, key=lambda pattern: -len(pattern.text))
        self._expression = f"({'|'.join(re.escape(pattern.text) for pattern in patterns)})"
        self._index = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                [pattern.text for pattern in patterns], list(range(len(patterns))), tf.string, tf.int32
            ),
            len(patterns),
        )
        ids = [_NONE if pattern.token_id is None else pattern.token_id for pattern in patterns]
        self._ids = tf.constant([*ids, _NONE])
        flags = {
            name: [*(getattr(p.token, name) for p in patterns), False] for name in ("single_word", "lstrip", "rstrip")
        }
        self._single_word, self._lstrip, self._rstrip = (
            tf.constant(flag) if any(flag) else None for flag in flags.values()
        )
        self._all_count = _NONE not in ids and self._single_word is None

    def __call__(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Strings [B] -> pieces [B, None], in turn ordinary text and a token's; ids [P], -1 for ordinary text."""
        pieces = self._split(text)
        position = tf.range(tf.size(pieces.values, tf.int64)) - tf.gather(pieces.row_starts(), pieces.value_rowids())
        index = tf.where(position % 2 == 1, self._index.lookup(pieces.values), tf.size(self._ids) - 1)
        if self._single_word is not None:
            discarded = tf.gather(self._single_word, index) & _inside_word(pieces.values, position)
            index = tf.where(discarded, tf.size(self._ids) - 1, index)
        if not self._all_count:
            pieces, index = self._join(pieces, index)
        values = pieces.values
        if self._lstrip is not None:  # it takes the white space before the token
            stripped = tf.strings.regex_replace(values, f"[{WHITE_SPACE}]+$", "")
            values = tf.where(tf.concat([tf.gather(self._lstrip, index[1:]), [False]], axis=0), stripped, values)
        if self._rstrip is not None:
            stripped = tf.strings.regex_replace(values, f"^[{WHITE_SPACE}]+", "")
            values = tf.where(tf.concat([[False], tf.gather(self._rstrip, index[:-1])], axis=0), stripped, values)
        return pieces.with_values(values), tf.gather(self._ids, index)

    def _split(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Splits strings [B] before and after each match: [B, an odd number], the matches at odd positions."""
        for char, code in (("\x01", "\x01\x02"), ("\\x00", "\x01\x03")):  # so that no text has the separator in it
            text = tf.strings.regex_replace(text, char, code)
        text = tf.strings.regex_replace(text, self._expression, "\x00\\1\x00")
        pieces = tf.strings.split(text, "\x00")
        for code, char in (("\x01\x03", "\x00"), ("\x01\x02", "\x01")):
            pieces = pieces.with_values(tf.strings.regex_replace(pieces.values, code, char))
        return pieces

    def _join(self, pieces: tf.RaggedTensor, index: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Joins the matches that do not count with the ordinary text around them."""
        counts = tf.gather(self._ids, index) != _NONE
        starts = counts | tf.concat([[True], counts[:-1]], axis=0)[: tf.size(index)]
        starts = tf.tensor_scatter_nd_update(starts, pieces.row_starts()[:, None], tf.fill([pieces.nrows()], True))
        number = tf.cumsum(tf.cast(starts, tf.int64))
        values = tf.strings.unsorted_segment_join(pieces.values, number - 1, tf.math.count_nonzero(starts))
        splits = tf.gather(tf.concat([[0], number], axis=0), pieces.row_splits)
        return tf.RaggedTensor.from_row_splits(values, splits, validate=False), tf.boolean_mask(index, starts)


def _inside_word(values: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Whether the piece before each, or the one after it, joins it to a word: bool [P].

    Args:
        values: pieces [P], in turn ordinary text, which can be empty, and tokens.
        position: of each in its text.
    """
    word = _word_characters()
    ends = tf.strings.regex_full_match(values, rf"\C*[{word}]")
    starts = tf.strings.regex_full_match(values, rf"[{word}]\C*")
    empty = values == ""
    none = tf.zeros_like(empty)

    def shifted(flags: tf.Tensor, by: int) -> tf.Tensor:
        return tf.concat([none[:by], flags[:-by]] if by > 0 else [flags[-by:], none[:-by]], axis=0)

    before = tf.where(shifted(empty, 1) & (position > 1), shifted(ends, 2), shifted(ends, 1))
    last = position == 0
    after = tf.where(shifted(empty, -1) & ~shifted(last, -2), shifted(starts, -2), shifted(starts, -1))
    return before | after


@functools.cache
def _word_characters() -> str:
    """The characters of words, as `tokenizers` itself takes them: the inside of a character class."""
    probe = "\ue000"
    tokenizer = Tokenizer(models.WordLevel({"": 0}, ""))
    tokenizer.add_tokens([AddedToken(probe, single_word=True, normalized=False)])
    is_word = np.zeros(0x110000 + 1, bool)
    for span in (range(0xE000), range(0xE001, 0x110000)):
        for start in range(span.start, span.stop, 4096):
            codes = [c for c in range(start, min(start + 4096, span.stop)) if not 0xD800 <= c < 0xE000]
            encoding = tokenizer.encode("".join(f"{chr(c)}{probe} " for c in codes))
            alone = {begin // 3 for i, (begin, _) in zip(encoding.ids, encoding.offsets, strict=True) if i == 1}
            is_word[[c for i, c in enumerate(codes) if i not in alone]] = True
    bounds = np.flatnonzero(np.diff(is_word, prepend=False))
    return "".join(rf"\x{{{a:x}}}-\x{{{b - 1:x}}}" for a, b in bounds.reshape(-1, 2))
