"""Windows of a tokenized text -> rows with hidden tokens to predict: a masked language model's `Windows`.

Tokens are hidden anew whenever a row is seen (Liu et al. 2019, arXiv 1907.11692). Which, and behind what, is computed
from (seed, number of the example), so it does not depend on the batch size, on replicas, or on where a run resumes.

Shapes: n rows, T length, B batch, V vocabulary.
"""

import numpy as np
import tensorflow as tf

from kerasformer.data.hashing import splitmix64
from kerasformer.data.language import File, language_modelling
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.text.tokenizer import Tokenizer
from kerasformer.text.wordpiece import WordPiece

SPECIAL = 2  # [CLS] and [SEP], around the tokens of a window
HIDDEN, REPLACED = 8, 1  # of ten chosen tokens: behind [MASK], behind another token; the rest stay as they are
LAST = np.iinfo(np.int64).max
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Masking:
    """Hides tokens of rows, as BERT does (Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1).

    Of each row `share` of its ordinary tokens are chosen, but at least one: 80 % of these become [MASK], 10 % another
    ordinary token, and 10 % stay. All of them are to be predicted. Special tokens, padding among them, are left alone.

    Args:
        share: of the tokens that are no special ones.
        whole_words: chooses words, in which each token then has a fate of its own: in a random order as many as fit
            what would be chosen of tokens, and so none where the first one is longer.
        seed: with the number of a row it decides what is chosen.

    Raises:
        InputError: a tokenizer without [MASK], or a share that cannot be.
    """

    def __init__(self, tokenizer: Tokenizer, *, share: float = 0.15, whole_words: bool = False, seed: int = 0):
        if not isinstance(tokenizer, WordPiece):
            raise InputError(
                f"expected a WordPiece tokenizer, whose [MASK] hides tokens, got a {type(tokenizer).__name__}; "
                "use BERT's or train one"
            )
        if not 0 < share < 1:
            raise InputError(f"expected a share of the tokens above 0 and below 1 to mask, got {share}; change it")
        self.share, self.whole_words, self.mask_id = share, whole_words, tokenizer.mask_id
        self.special = np.isin(np.arange(tokenizer.vocab_size), list(tokenizer.special_ids))  # [V]
        self.ordinary = np.flatnonzero(~self.special).astype(np.int32)
        self.continues_word = tokenizer.continues_word  # [V]
        self.key = np.random.Philox(key=seed).random_raw()

    def __call__(self, token_ids: tf.Tensor, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows as a model sees them, and what it is to predict, -1 where that is nothing; int32 [n, T] each.

        Args:
            token_ids: int32 [n, T].
            numbers: int64 [n], of the rows: one number gives one outcome.
        """
        for_choice, for_fate, for_token = tf.unstack(_draws(self.key, numbers, tf.shape(token_ids)[1]))
        chosen = self._choose(token_ids, tf.cast(for_choice // np.uint64(2), tf.int64))
        fate = tf.cast(for_fate % np.uint64(10), tf.int32)
        places = tf.cast(for_token % np.uint64(len(self.ordinary)), tf.int32)
        changed = tf.where(fate < HIDDEN + REPLACED, tf.gather(self.ordinary, places), token_ids)
        changed = tf.where(fate < HIDDEN, self.mask_id, changed)
        return tf.where(chosen, changed, token_ids), tf.where(chosen, token_ids, -1)

    def _choose(self, token_ids: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        """Which tokens are to be predicted, bool [n, T]: those that come first in a random order int64 [n, T]."""
        special = tf.gather(self.special, token_ids)
        if self.whole_words:  # the tokens of a word have one place in the order
            after_special = tf.pad(special[:, :-1], [[0, 0], [1, 0]], constant_values=True)
            begins = ~tf.gather(self.continues_word, token_ids) | special | after_special
            order = tf.gather(order, tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1, batch_dims=1)
        order = tf.where(special, LAST, order)
        tokens = tf.reduce_sum(tf.cast(~special, tf.float64), axis=1)  # [n]
        wanted = tf.maximum(tf.cast(tf.round(self.share * tokens), tf.int32), 1)
        # The first that is one too many; a word of which that is true has no place.
        limits = tf.pad(tf.sort(order, axis=1), [[0, 0], [0, 1]], constant_values=LAST)
        return order < tf.gather(limits, wanted, batch_dims=1)[:, None]


class MaskedWindows:
    """Windows between [CLS] and [SEP], with hidden tokens, in the order of the windows; batches are as theirs.

    Args:
        windows: of T - 2 tokens.
        mask_share: of the tokens, to be predicted.
        whole_words: hides words, not tokens.

    Raises:
        InputError: see Masking.
    """

    def __init__(self, windows: Windows, *, mask_share: float = 0.15, whole_words: bool = False):
        self.windows, self.max_length = windows, windows.max_length + SPECIAL
        self.batch_size, self.batch_ramp, self.batch_sizes = windows.batch_size, windows.batch_ramp, windows.batch_sizes
        self.vocab_size, self.tokens, self.bytes_per_token = windows.vocab_size, windows.tokens, windows.bytes_per_token
        tokenizer, settings = windows.tokenizer(), {"share": mask_share, "whole_words": whole_words}
        # What is read in order is hidden alike each time, and otherwise than in training.
        self._training, self._fixed = (Masking(tokenizer, seed=2 * windows.seed + i, **settings) for i in range(2))
        self._frame = tokenizer.frame

    def __repr__(self) -> str:
        return f"MaskedWindows({self.tokens:,} tokens, max_length={self.max_length}, batch_size={self.batch_size})"

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the token ids."""
        return self.windows.tokenizer()

    @property
    def steps_per_epoch(self) -> int:
        """See Windows."""
        return self.windows.steps_per_epoch

    @property
    def fingerprint(self) -> str:
        """See Windows."""
        return self.windows.fingerprint

    def describe(self, step: int) -> str:
        """See Windows."""
        return self.windows.describe(step)

    def dataset(self, first_step: int, steps: int) -> tf.data.Dataset:
        """Batches of these steps: token ids and labels, -1 where there is nothing to predict, int32 [B, T] each."""
        first = self.windows.first_example(first_step)
        return self._masked(self.windows.dataset(first_step, steps), self._training, first)

    def in_order(self, max_steps: int | None = None) -> tf.data.Dataset:
        """Batches of the windows that lie end to end; see Windows. Each time the same tokens are hidden."""
        return self._masked(self.windows.in_order(max_steps), self._fixed, 0)

    def _masked(self, dataset: tf.data.Dataset, masking: Masking, first_example: int) -> tf.data.Dataset:
        def number(first: tf.Tensor, inside: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tuple]:
            return first + tf.shape(inside, tf.int64)[0], (first, inside)

        def mask(first: tf.Tensor, inside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = tf.shape(inside, tf.int64)[0]
            cls, sep = (tf.fill([rows, 1], token_id) for (token_id,) in (self._frame.first, self._frame.last))
            return masking(tf.concat([cls, inside, sep], axis=1), first + tf.range(rows))

        numbered = dataset.scan(np.int64(first_example), lambda first, windows: number(first, *windows))
        return numbered.map(mask, num_parallel_calls=2).prefetch(2)


AnyWindows = Windows | MaskedWindows


def masked_language_modelling(
    source: File | list[File] | tuple[File, ...],
    *,
    tokenizer: Tokenizer | None = None,
    max_length: int = 128,
    mask_share: float = 0.15,
    whole_words: bool = False,
    **settings,
) -> tuple[MaskedWindows, MaskedWindows | None]:
    """Opens a prepared folder, or tokenizes text files in memory, to train a masked language model.

    Args:
        source: as of `language_modelling`.
        tokenizer: of text files; a prepared folder has its own.
        max_length: T, tokens of a row: a window between [CLS] and [SEP].
        mask_share: of the tokens, to be predicted.
        whole_words: hides words, not tokens.
        **settings: `batch_size`, `order`, `seed` and what is for the texts; see `language_modelling`.

    Returns:
        The training windows; and those held out, if any are, in which the same tokens are hidden each time.

    Raises:
        InputError: as `language_modelling`, or a text of other tokens than WordPiece's.
    """
    if max_length <= SPECIAL:
        raise InputError(f"expected a max_length above {SPECIAL}, for [CLS] and [SEP], got {max_length}; raise it")
    sets = language_modelling(source, tokenizer=tokenizer, max_length=max_length - SPECIAL, **settings)
    masking = {"mask_share": mask_share, "whole_words": whole_words}
    training, validation = (windows and MaskedWindows(windows, **masking) for windows in sets)
    return training, validation


def _draws(key: int, numbers: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Random bits for each place of the rows of these numbers [n], uint64 [3, n, T]: a splitmix64 for each number."""
    starts = splitmix64(tf.cast(numbers, tf.uint64) * GOLDEN + np.uint64(key), tf.bitwise)  # [n]
    steps = tf.reshape(tf.range(1, tf.cast(3 * length, tf.int64) + 1), [3, 1, length])
    return splitmix64(starts[:, None] + tf.cast(steps, tf.uint64) * GOLDEN, tf.bitwise)
