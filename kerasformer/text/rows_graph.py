"""Rows of token ids inside the graph, framed and cut as `Tokenizer.encode` does."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.text.tokenizer import Frame, longest_first

_NO_LIMIT = 2**31 - 1  # tokens of a row


def string_function(method: Callable[[tf.Tensor], tf.RaggedTensor]) -> Callable[[tf.Tensor], tf.RaggedTensor]:
    """A TensorFlow function of strings [B] that keeps the object of the method.

    One that decorates the method in its class does not, and would fail where nothing else keeps the object.
    """
    return tf.function(method, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def to_strings(name: str, texts: tf.Tensor | Sequence[str]) -> tf.Tensor:
    """Texts as a tensor. Raises InputError, which calls them `name`, for what is none."""
    if not isinstance(texts, str | bytes):
        try:
            return tf.convert_to_tensor(texts, tf.string)
        except (TypeError, ValueError):
            pass
    raise InputError(f"{name}: expected a tensor or list of strings, got {texts!r:.60}; pass one")


def encode(
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
    text: tf.Tensor | Sequence[str],
    text_pair: tf.Tensor | Sequence[str] | None,
    frame: Frame,
    *,
    max_length: int | None,
    pad_id: int,
) -> dict[str, tf.Tensor]:
    """Makes the rows of `frame_rows` from strings [B], of which `tokenize` gives the ids.

    Raises:
        InputError: a text is no string, or max_length leaves no room for a token.
    """
    texts = {"text": text} if text_pair is None else {"text": text, "text_pair": text_pair}
    ids = [tokenize(to_strings(name, strings)) for name, strings in texts.items()]
    return frame_rows(ids, frame, max_length=max_length, pad_id=pad_id)


def frame_rows(
    texts: Sequence[tf.RaggedTensor], frame: Frame, *, max_length: int | None, pad_id: int
) -> dict[str, tf.Tensor]:
    """Makes padded rows of the token ids [B, None] of a text, or of a text and its pair.

    Args:
        max_length: tokens of a row at most; None cuts nothing.

    Returns:
        int32 token_ids, segment_ids and padding_mask [B, T].

    Raises:
        InputError: max_length leaves no room for a token.
    """
    paired = len(texts) == 2
    room = frame.room(_NO_LIMIT if max_length is None else max_length, paired=paired)
    sizes = [tf.cast(ids.row_lengths(), tf.int32) for ids in texts]
    kept = longest_first(*sizes, room, tf) if paired else [tf.minimum(sizes[0], room)]
    rows = framed([_head(ids, size) for ids, size in zip(texts, kept, strict=True)], frame)
    token_ids = rows.to_tensor(pad_id)
    position = tf.range(tf.shape(token_ids)[1])
    is_token = position < tf.cast(rows.row_lengths(), tf.int32)[:, None]
    segment_ids = tf.zeros_like(token_ids)
    if paired:
        in_pair = position >= kept[0][:, None] + len(frame.first) + len(frame.between)
        segment_ids = tf.where(is_token & in_pair, frame.pair_segment, 0)
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": tf.cast(is_token, tf.int32)}


def framed(texts: Sequence[tf.RaggedTensor], frame: Frame) -> tf.RaggedTensor:
    """Puts the special tokens around and between one text or two, int32 [B, None]."""
    count = texts[0].nrows(out_type=tf.int32)

    def each(special: Sequence[int]) -> tf.Tensor:
        return tf.tile(tf.constant([special], tf.int32, [1, len(special)]), [count, 1])

    if len(texts) == 2:
        parts = [each(frame.first), texts[0], each(frame.between), texts[1], each(frame.last)]
    else:
        missing = tf.where(texts[0].row_lengths() == 0, len(frame.empty), 0)
        empty = _head(tf.RaggedTensor.from_tensor(each(frame.empty)), missing)
        parts = [each(frame.first), texts[0], empty, each(frame.last)]
    return tf.concat([part for part in parts if part.shape[1] != 0], axis=1)


def _head(ids: tf.RaggedTensor, sizes: tf.Tensor) -> tf.RaggedTensor:
    """The first `sizes` [B] ids of each row."""
    starts = ids.row_starts()
    return tf.gather(ids.values, tf.ragged.range(starts, starts + tf.cast(sizes, starts.dtype)))
