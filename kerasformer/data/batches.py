"""Tokenized examples -> batches of one length each: seeded order, little padding, tf.data at the end.

Shapes: N examples, B batch, T length of a batch's longest row.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from kerasformer.config import Augment
from kerasformer.data.augment import augment_rows, word_pool
from kerasformer.data.computed import computed, handed_out
from kerasformer.errors import InputError
from kerasformer.text.rows_graph import framed
from kerasformer.text.tokenizer import Encoded, Tokenizer

# Rows are sorted by length inside pools of this many batches: little padding, and an order that stays random.
POOL = 50
# Batches are padded to a multiple of this, so that a model sees few shapes.
STRIDE = 16


@dataclass(frozen=True, eq=False, repr=False)
class Batches:
    """Encoded examples and the order in which a model sees them.

    Args:
        encoded: token and segment ids of N rows.
        tokenizer: made them; gives the id of the padding and which tokens continue a word.
        labels: names of the classes, in the order of `label_ids`.
        label_ids: [N], or None for text to predict.
        texts: what was encoded, to show a reader which examples a model gets wrong.
        text_pair: each row holds two texts.
        batch_size: B; one batch of an epoch holds the rest.
        shuffle: a new order every epoch, a function of (seed, epoch) alone.
        augment: word-level changes to each training example, other ones every epoch.
    """

    encoded: Encoded
    tokenizer: Tokenizer
    max_length: int
    batch_size: int
    labels: Sequence[str] | None = None
    label_ids: np.ndarray | None = None
    texts: Sequence[str] = ()
    text_pair: bool = False
    shuffle: bool = False
    seed: int = 0
    augment: Augment | None = None
    lengths: np.ndarray = field(init=False)

    def __post_init__(self):
        if self.batch_size < 1:
            raise InputError(f"expected a batch_size of at least 1, got {self.batch_size}; raise it")
        if self.seed < 0:
            raise InputError(f"expected a seed of 0 or more, got {self.seed}; raise it")
        object.__setattr__(self, "lengths", np.diff(self.encoded.offsets))

    def __repr__(self) -> str:
        classes = "" if self.labels is None else f", {len(self.labels):,} labels"
        return (
            f"Batches({len(self.lengths):,} texts{classes}, max_length={self.max_length}, batch_size={self.batch_size})"
        )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """B alone; see `Windows`."""
        return (self.batch_size,)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self)

    def order(self, epoch: int = 0) -> list[np.ndarray]:
        """Example indices of each batch of an epoch; each example once."""
        if not self.shuffle:
            by_length = np.argsort(-self.lengths, kind="stable")
            return np.split(by_length, range(self.batch_size, len(by_length), self.batch_size))
        random = np.random.default_rng([self.seed, epoch])
        shuffled = random.permutation(len(self.lengths))
        pools = np.split(shuffled, range(POOL * self.batch_size, len(shuffled), POOL * self.batch_size))
        shuffled = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        batches = np.split(shuffled, range(self.batch_size, len(shuffled), self.batch_size))
        return [batches[i] for i in random.permutation(len(batches))]

    def padded_length(self, rows: np.ndarray) -> int:
        """T of the batch that holds these examples."""
        longest = int(self.lengths[rows].max()) if len(rows) else 1
        return min(self.max_length, -(-longest // STRIDE) * STRIDE)

    @property
    def padding_share(self) -> float:
        """Share of an epoch's positions that hold padding, before augmentation."""
        positions = sum(len(rows) * self.padded_length(rows) for rows in self.order())
        return 1 - self.lengths.sum() / max(positions, 1)

    def describe(self, step: int) -> str:
        """Which examples a step holds, counted over all epochs, and how they begin."""
        epoch, place = divmod(step, len(self))
        rows = self.order(epoch)[place]
        begin = ", ".join(repr(" ".join(str(self.texts[i]).split()[:4])) for i in rows[:4]) if len(self.texts) else ""
        return f"examples {_listed(rows)}" + (f", which begin with {begin}" if begin else "")

    @property
    def fingerprint(self) -> str:
        """Equal for the same examples."""
        found = hashlib.sha256()
        for array in (self.encoded.token_ids, self.encoded.segment_ids, self.encoded.offsets, self.label_ids):
            found.update(b"" if array is None else np.ascontiguousarray(array))
        return found.hexdigest()

    def dataset(self, first_step: int = 0, steps: int | None = None) -> tf.data.Dataset:
        """Batches of these steps, counted over all epochs: inputs [B, T], and label ids [B] where there are any.

        Args:
            steps: how many; those of one epoch by default.
        """
        steps = len(self) if steps is None else steps
        order = functools.lru_cache(maxsize=1)(self.order)

        def rows(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            epoch, place = divmod(first_step + i, len(self))
            chosen = order(epoch)[place]
            seed = np.random.default_rng([self.seed, epoch, place]).integers(2**31, size=2)
            return chosen, np.int32(self.padded_length(chosen)), seed

        signature = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int32), tf.TensorSpec([2], tf.int64))
        dataset = computed(steps, rows, signature).map(self._assembler(), num_parallel_calls=2).prefetch(4)
        return handed_out(dataset, steps)

    def _assembler(self):
        token_ids, segment_ids = tf.constant(self.encoded.token_ids), tf.constant(self.encoded.segment_ids)
        offsets = tf.constant(self.encoded.offsets)
        label_ids = None if self.label_ids is None else tf.constant(self.label_ids)
        change = self._augmenter()

        def assemble(rows, length, seed):
            ranges = tf.ragged.range(tf.gather(offsets, rows), tf.gather(offsets, rows + 1))
            tokens, segments = tf.gather(token_ids, ranges), tf.gather(segment_ids, ranges)
            if change is not None:
                tokens = change(tokens, length, seed)
                segments = tf.zeros_like(tokens)
            shape = tf.stack([-1, length])
            inputs = {
                "token_ids": tokens.to_tensor(self.tokenizer.pad_id, shape=shape),
                "segment_ids": segments.to_tensor(0, shape=shape),
                "padding_mask": tf.ones_like(tokens).to_tensor(0, shape=shape),
            }
            return inputs if label_ids is None else (inputs, tf.gather(label_ids, rows))

        return tf.autograph.experimental.do_not_convert(assemble)  # it is written in operations

    def _augmenter(self):
        """Changes the words of single texts inside their frame; None where nothing is to change."""
        if self.augment is None:
            return None
        frame, continues_word = self.tokenizer.frame, tf.constant(self.tokenizer.continues_word)
        special = len(frame.first) + len(frame.last)

        def words_of(rows: tf.RaggedTensor) -> tf.RaggedTensor:
            words = rows[:, len(frame.first) : -len(frame.last) or None]
            for token_id in frame.empty:  # stands for no words
                words = tf.ragged.boolean_mask(words, words != token_id)
            return words

        rows = tf.RaggedTensor.from_row_splits(self.encoded.token_ids, self.encoded.offsets)
        pool = word_pool(words_of(rows), continues_word)

        def change(tokens: tf.RaggedTensor, length: tf.Tensor, seed: tf.Tensor) -> tf.RaggedTensor:
            words = augment_rows(words_of(tokens), self.augment, continues_word, pool, seed)
            return framed([words[:, : length - special]], frame)

        return change


def _listed(rows: np.ndarray) -> str:
    """The first of some numbers, and how many more there are."""
    shown = ", ".join(map(str, rows[:8]))
    return shown if len(rows) <= 8 else f"{shown} and {len(rows) - 8} more"
