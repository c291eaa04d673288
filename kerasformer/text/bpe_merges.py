"""Byte-level BPE's merges inside the graph: of many words at once, pair by pair.

Shapes: R words, M tokens so far, C chunks, K blocks, H pairs that may be joined now, J that are, E new pairs.
"""

from itertools import pairwise

import numpy as np
import tensorflow as tf

from kerasformer.text.bpe import ALPHABET, BPE, bytes_of

_NEVER = np.iinfo(np.int32).max  # the rank of a pair that is not to be joined, or of a word's last token


class Merges(tf.Module):
    """Joins the bytes of words as BPE does: always the pair of lowest rank, the leftmost of several.

    Joining one pair at a time would take as many steps as a word has bytes, so as much as possible is joined in a step.
    First, words are cut into chunks between two bytes that stand side by side in no token: nothing is joined there.
    Then, a pair can only lose one of its tokens to another pair of lower rank, and no token is longer than the
    longest with such bytes. So chunks are cut into blocks of twice that, and a pair is safe to be joined when none in
    its block or the two beside it has a lower rank.
    """

    def __init__(self, bpe: BPE):
        super().__init__(name="merges")
        ids = {token: i for i, token in enumerate(bpe.vocab)}
        merges = np.array([[ids[a], ids[b], ids[a + b]] for a, b in bpe.merges], np.int64).reshape(-1, 3)
        letter = {byte: char for char, byte in ALPHABET.items()}
        self._of_byte = tf.constant([ids[letter[byte]] for byte in range(256)])
        self._size = len(bpe.vocab)
        self._result = tf.constant([*merges[:, 2], 0], tf.int32)  # [merges + 1]
        pairs = np.append(merges[:, 0] * self._size + merges[:, 1], -1)  # -1 is none: a table cannot be empty
        ranks = np.append(np.arange(len(merges)), _NEVER).astype(np.int32)
        self._ranks = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(pairs, ranks), _NEVER)
        reach = np.zeros(1 << 16, np.int64)  # of two bytes, how long the longest token is that they meet in
        for token in sorted((bytes_of(a + b) for a, b in bpe.merges), key=len):
            reach[[256 * a + b for a, b in pairwise(token)]] = len(token)
        self._reach = tf.constant(reach)
        alone = _alone(merges)
        self._alone = tf.constant([*alone, False]) if alone.any() else None

    def __call__(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Words [R], a code point for each byte -> token ids int32 [R, None]."""
        spelled = tf.strings.unicode_decode(words, "UTF-8")
        word = spelled.value_rowids()  # [M]
        reach = tf.gather(self._reach, spelled.values[:-1] * 256 + spelled.values[1:])
        reach = tf.pad(tf.where(word[1:] == word[:-1], reach, 0), [[1, 0]])[: tf.size(word)]
        chunk = tf.cumsum(tf.cast(reach == 0, tf.int32)) - 1
        size = 2 * tf.maximum(tf.math.segment_max(reach, chunk), 1)  # [C]
        place = tf.range(tf.size(word, tf.int64)) - tf.gather(tf.where(reach == 0)[:, 0], chunk)
        opens = place % tf.gather(size, chunk) == 0
        block = tf.cumsum(tf.cast(opens, tf.int32)) - 1
        chunk_of, word_of = tf.boolean_mask(chunk, opens), tf.boolean_mask(word, opens)  # [K]

        def join(ids: tf.Tensor, block: tf.Tensor, rank: tf.Tensor) -> tuple[tf.Tensor, ...]:
            at = self._joined_now(rank, block, chunk_of)  # [J]
            new = tf.gather(self._result, tf.gather(rank, at))
            kept = tf.where(tf.tensor_scatter_nd_update(tf.ones_like(rank, tf.bool), at[:, None] + 1, at < 0))[:, 0]
            ids = tf.gather(tf.tensor_scatter_nd_update(ids, at[:, None], new), kept)
            block, rank = tf.gather(block, kept), tf.gather(rank, kept)
            at -= tf.range(tf.size(at, tf.int64))  # as many tokens to their left are gone
            changed = tf.concat([at, tf.maximum(at - 1, 0)], axis=0)  # [E]
            fresh = self._rank(ids, block, chunk_of, changed)
            return ids, block, tf.tensor_scatter_nd_update(rank, changed[:, None], fresh)

        ids = tf.gather(self._of_byte, spelled.values)
        rank = self._rank(ids, block, chunk_of, tf.range(tf.size(ids, tf.int64)))
        ids, block, _ = tf.while_loop(
            lambda ids, block, rank: tf.reduce_any(rank != _NEVER),
            join,
            (ids, block, rank),
            shape_invariants=(tf.TensorShape([None]),) * 3,
            parallel_iterations=1,
        )
        return tf.RaggedTensor.from_value_rowids(ids, tf.gather(word_of, block), spelled.nrows(), validate=False)

    def _rank(self, ids: tf.Tensor, block: tf.Tensor, chunk_of: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        """The ranks of the pairs that start at these places. int32 [E]"""
        after = tf.minimum(at + 1, tf.size(ids, tf.int64) - 1)
        left, right = (tf.gather(chunk_of, tf.gather(block, x)) for x in (at, after))
        pair = tf.cast(tf.gather(ids, at), tf.int64) * self._size + tf.cast(tf.gather(ids, after), tf.int64)
        return tf.where((left == right) & (after > at), self._ranks.lookup(pair), _NEVER)

    def _joined_now(self, rank: tf.Tensor, block: tf.Tensor, chunk_of: tf.Tensor) -> tf.Tensor:
        """Where the pairs are that are safe to be joined, no two of them sharing a token. int64 [J]"""
        count = tf.size(chunk_of)
        own = tf.math.unsorted_segment_min(rank, block, count)  # [K], _NEVER for a block without tokens
        same = chunk_of[1:] == chunk_of[:-1]
        left = tf.concat([[_NEVER], tf.where(same, own[:-1], _NEVER)], axis=0)[:count]
        right = tf.concat([tf.where(same, own[1:], _NEVER), [_NEVER]], axis=0)[:count]
        lowest = tf.minimum(own, tf.minimum(left, right))
        at = tf.where((rank == tf.gather(lowest, block)) & (rank != _NEVER))[:, 0]  # [H]
        # Of pairs that overlap, as in "aaaa", the first, third and so on are joined, if the first is safe.
        first = tf.concat([[True], at[1:] != at[:-1] + 1], axis=0)[: tf.size(at)]
        start = tf.gather(tf.boolean_mask(at, first), tf.cumsum(tf.cast(first, tf.int32)) - 1)
        before = tf.gather(rank, tf.maximum(start - 1, 0))
        safe = ((at - start) % 2 == 0) & ((start == 0) | (before != tf.gather(rank, start)))
        if self._alone is not None:
            own_block = tf.gather(block, at)
            leftmost = at == tf.gather(tf.math.unsorted_segment_min(at, own_block, count), own_block)
            leftmost &= tf.gather(left, own_block) != tf.gather(rank, at)
            safe = tf.where(tf.gather(self._alone, tf.gather(rank, at)), leftmost, safe)
        return tf.boolean_mask(at, safe)


def _alone(merges: np.ndarray) -> np.ndarray:
    """Which merges make a token that a merge of lower rank takes: bool [merges].

    Such pairs are joined one at a time, the leftmost first, as that other merge comes before the next of this rank.

    Args:
        merges: [merges, 3], left and right token and what they make.
    """
    ranks = np.arange(len(merges))
    earliest = np.full(merges.max(initial=0) + 1, len(merges))
    np.minimum.at(earliest, merges[:, 0], ranks)
    np.minimum.at(earliest, merges[:, 1], ranks)
    return earliest[merges[:, 2]] < ranks
