"""GPT-2's split of text into words, inside the graph: core TensorFlow operations on the bytes of all texts at once.

It does what this pattern says, whose lookahead TensorFlow's own regular expressions lack:

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

Shapes: B texts, N bytes, W words, C characters of more than one byte, A apostrophes.
"""

import functools

import tensorflow as tf

from kerasformer.text.code_points import PAGE, class_code_points

_OTHER, _LETTER, _NUMBER, _SPACE = range(4)
_CLASSES = (r"\p{L}", r"\p{N}", r"\s")
# Of sequences of 2, 3 and 4 bytes: what the first byte adds to its bits, and the least code point.
_LEAD, _LEAST = (0xC0, 0xE0, 0xF0), (0x80, 0x800, 0x10000)


class Words(tf.Module):
    """Splits strings of any bytes into words; a byte that is not UTF-8 counts as a symbol.

    Words come as UTF-8 of the code points 0 to 255, one for each byte, so that no byte is lost.
    """

    def __init__(self):
        super().__init__(name="words")
        classes = class_code_points(*_CLASSES)
        self._pages = tf.constant(classes.pages * PAGE)
        self._rows = tf.constant(classes.rows.reshape(-1))
        ascii_classes = classes.rows[classes.pages[0], :0x80].tolist()
        self._of_byte = tf.constant([*ascii_classes, *[_OTHER] * 0x80], tf.uint8)

    def __call__(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Strings [B] -> words [B, None]."""
        data = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(text), tf.uint8), tf.int32)  # [N]
        bounds = tf.cumsum(tf.cast(tf.strings.length(text), tf.int64))
        bounds = tf.concat([[0], bounds], axis=0)  # [B + 1]
        starts = self._starts(data, bounds)
        words = tf.strings.unicode_encode(tf.RaggedTensor.from_row_splits(data, starts, validate=False), "UTF-8")
        return tf.RaggedTensor.from_row_splits(words, tf.searchsorted(starts, bounds), validate=False)

    def _starts(self, data: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
        """Where words start, and the end of the last one: ascending int64 [W + 1]."""
        opens = _mark(tf.fill(tf.shape(data) + 1, False), bounds)  # [N + 1], where texts start and the last one ends
        follow = tf.pad(tf.where(opens[:-1], -1, data), [[0, 3]], constant_values=-1)  # nothing goes on in a new text
        kind, space, space_end = self._classify(data, follow)

        before = tf.pad(kind, [[1, 0]])[:-1]
        joins = tf.pad(data == ord(" "), [[1, 0]])[:-1]  # a space is part of the word after it
        starts = opens[:-1] | ((kind != before) & ~joins)
        # Of white space before a word, the last character stands alone or joins the word.
        is_space = kind == _SPACE
        lone = is_space & ~opens[1:] & ~tf.pad(is_space, [[0, 1]])[1:]  # [N], its last byte
        starts = _mark(starts | (lone & (data < 0x80)), tf.boolean_mask(space, tf.gather(lone, space_end)))
        apostrophe, end = _contractions(follow, starts & (data == ord("'")))
        starts = _mark(tf.pad(starts, [[0, 1]], constant_values=True), end)
        return tf.where(_mark(starts, apostrophe + 1, False))[:, 0]

    def _classify(self, data: tf.Tensor, follow: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The class of each byte's character; where white space of several bytes begins, and where it ends.

        Args:
            data: [N] int32.
            follow: [N + 3], the same but for what cannot go on from the byte before it.

        Returns:
            uint8 [N], int64 [some of C], int64 [some of C].
        """
        at = tf.where((data >= 0xC2) & (data <= 0xF4))[:, 0]  # [C]
        lead = tf.gather(data, at)
        tails = tf.cast(lead >= 0xE0, tf.int32) + tf.cast(lead >= 0xF0, tf.int32)  # one less than there are
        code_point, whole = lead - tf.gather(_LEAD, tails), tf.ones_like(lead, tf.bool)
        for i in range(3):
            tail = tf.gather(follow, at + i + 1) - 0x80
            code_point = tf.where(i <= tails, code_point * 64 + tail, code_point)
            whole &= (i > tails) | ((tail >= 0) & (tail < 64))
        surrogate = (code_point >= 0xD800) & (code_point < 0xE000)
        whole &= (code_point >= tf.gather(_LEAST, tails)) & (code_point < 0x110000) & ~surrogate
        code_point = tf.where(whole, code_point, 0)
        kind = tf.gather(self._rows, tf.gather(self._pages, code_point // PAGE) + code_point % PAGE)
        known = whole & (kind != _OTHER)

        at, kind, last = (tf.boolean_mask(x, known) for x in (at, kind, at + tf.cast(tails, tf.int64) + 1))
        spread = tf.ragged.range(at, last + 1)
        kinds = tf.gather(self._of_byte, data)
        kinds = tf.tensor_scatter_nd_update(kinds, spread.values[:, None], tf.gather(kind, spread.value_rowids()))
        return kinds, tf.boolean_mask(at, kind == _SPACE), tf.boolean_mask(last, kind == _SPACE)


def _contractions(follow: tf.Tensor, starts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where 's 't 're 've 'm 'll 'd start, of the apostrophes that start a word, and where they end.

    Args:
        follow: as in `_classify`. [N + 3]
        starts: bool [N]

    Returns:
        int64 [some of A], int64 [some of A].
    """
    at = tf.where(starts)[:, 0]  # [A]
    first, second = tf.gather(follow, at + 1), tf.gather(follow, at + 2)

    def spells(letters: str) -> tf.Tensor:
        found = first == ord(letters[0])
        return found & (second == ord(letters[1])) if letters[1:] else found

    short, long = (functools.reduce(tf.logical_or, map(spells, words.split())) for words in ("s t m d", "re ve ll"))
    end = at + tf.where(short, tf.constant(2, tf.int64), 3)
    return tf.boolean_mask(at, short | long), tf.boolean_mask(end, short | long)


def _mark(flags: tf.Tensor, at: tf.Tensor, value: bool = True) -> tf.Tensor:
    """Sets the flags at these places."""
    return tf.tensor_scatter_nd_update(flags, at[:, None], tf.fill(tf.shape(at), value))
