"""Word-level augmentation of token ids, for small data sets.

Random replacement, deletion, insertion and swaps of words (EDA, Wei & Zou 2019, arXiv:1901.11196), as graph operations
on a whole batch. Words come from the training texts in place of a thesaurus, so any language and tokenizer will do.

Shapes: B rows, N words in the batch, W words in the pool, V vocabulary.
"""

import numpy as np
import tensorflow as tf

from kerasformer.config import Augment
from kerasformer.errors import InputError


def augment_rows(
    rows: tf.RaggedTensor,
    rates: Augment,
    continues_word: tf.Tensor,
    random_words: tf.RaggedTensor,
    seed: tf.Tensor,
) -> tf.RaggedTensor:
    """Replace, delete, insert and swap whole words. The same seed gives the same rows.

    A row keeps at least one word if it had any. Insertion lengthens rows: truncate afterwards.

    Args:
        rows: int32 [B, None] token ids, without special tokens.
        continues_word: bool [V], whether a token continues the word before it ("##ing").
        random_words: int32 [W, None], the words to replace with and to insert (see `word_pool`), W > 0.
        seed: int32 or int64 [2].
    """
    pool_seed, replace_seed, delete_seed, insert_seed, swap_seed = tf.unstack(tf.random.split(seed, 5))
    sentences = _split_words(rows, continues_word)  # [B, None, None]
    words = sentences.values  # [N, None]
    count = words.nrows()
    own = tf.range(count)
    draws = tf.random.stateless_uniform([2 * count], pool_seed, maxval=random_words.nrows(), dtype=tf.int64)
    table = tf.concat([words, tf.gather(random_words, draws)], axis=0)  # [3N, None]: own words, then random ones

    replaced = tf.random.stateless_uniform([count], replace_seed) < rates.replace
    stands = tf.where(replaced, own + count, _swap(sentences, rates.swap, swap_seed))  # the word at each place
    stays = _survives(sentences, rates.delete, delete_seed)
    follows = own + 2 * count  # the word that may be inserted behind it
    inserted = tf.random.stateless_uniform([count], insert_seed) < rates.insert

    used = tf.stack([stays, inserted], axis=1)  # [N, 2]
    result = tf.gather(table, tf.stack([stands, follows], axis=1)[used])
    used_words = tf.math.count_nonzero(used, axis=1)  # [N]
    lengths = tf.math.unsorted_segment_sum(used_words, sentences.value_rowids(), sentences.nrows())  # [B]
    return tf.RaggedTensor.from_row_lengths(result, lengths, validate=False).merge_dims(1, 2)


def word_pool(rows: tf.RaggedTensor, continues_word: tf.Tensor, size: int = 65_536) -> tf.RaggedTensor:
    """Up to `size` words of the training rows, evenly spaced through them: int32 [W, None].

    A word stands in the pool as often as in the texts. Random words then keep the texts' own frequencies, so they are
    mostly words that say little of the label; picking evenly among distinct words would favour rare ones, each seen
    with a single label (noise from the unigram distribution: Xie et al. 2017, arXiv:1703.02573).

    Args:
        rows: int32 [B, None] token ids, without special tokens.
        continues_word: bool [V], as in `augment_rows`.

    Raises:
        InputError: the rows hold no words.
    """
    words = _split_words(rows, continues_word).values
    count = int(words.nrows())
    if not count:
        raise InputError("expected texts to draw words from, found no tokens in any of them")
    return tf.gather(words, np.linspace(0, count - 1, min(count, size)).astype(np.int64))


def _split_words(rows: tf.RaggedTensor, continues_word: tf.Tensor) -> tf.RaggedTensor:
    """[B, tokens] -> [B, words, tokens of the word]. A row's first token starts a word whatever it is."""
    row = rows.value_rowids()  # [tokens]
    starts_row = row != tf.concat([[-1], row], axis=0)[:-1]
    starts_word = tf.where(starts_row | ~tf.gather(continues_word, rows.values))[:, 0]  # [N]
    words = tf.RaggedTensor.from_row_starts(rows.values, starts_word, validate=False)
    return tf.RaggedTensor.from_value_rowids(words, tf.gather(row, starts_word), rows.nrows(), validate=False)


def _swap(sentences: tf.RaggedTensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """For each place the word to stand there: words pair up at random within their row, and a pair may swap. [N]"""
    order_seed, pair_seed = tf.unstack(tf.random.split(seed))
    row = sentences.value_rowids()
    count = tf.size(row, tf.int64)
    shuffle = tf.random.stateless_uniform([count], order_seed, maxval=2**31, dtype=tf.int64)
    order = tf.cast(tf.argsort(row * 2**31 + shuffle), tf.int64)  # a shuffle within each row
    place = tf.range(count)
    rank = place - tf.gather(sentences.row_starts(), row)
    partner = place + 1 - 2 * (rank % 2)
    paired = partner < tf.gather(sentences.row_limits(), row)  # the last of an odd number has none
    draw = tf.gather(tf.random.stateless_uniform([count], pair_seed), tf.minimum(place, partner))  # one for both
    source = tf.where(paired & (draw < rate), partner, place)
    return tf.scatter_nd(order[:, None], tf.gather(order, source), [count])


def _survives(sentences: tf.RaggedTensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Which words stay: those that draw at least `rate`, and in any case the highest draw of each row. bool [N]"""
    row = sentences.value_rowids()
    draw = tf.random.stateless_uniform([tf.size(row)], seed)
    highest = tf.math.unsorted_segment_max(draw, row, sentences.nrows())
    return (draw >= rate) | (draw == tf.gather(highest, row))
