"""Windows of a tokenized text -> batches to predict the next tokens: a language model's sibling of `Batches`.

Which windows a step holds is computed from (seed, step), so that a run resumes at any step without reading what came
before, and whatever the number of replicas was. Example i of step s is example s * B + i of an endless sequence; or
first_example(s) + i where the first batches are smaller.

Shapes: B batch, T length, K steps computed at a time, W windows.
"""

import functools
import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import tensorflow as tf

from kerasformer.config.ramp import Ramp, check_ramp
from kerasformer.data.computed import computed, handed_out
from kerasformer.data.corpus import Corpus, Split, read_corpus
from kerasformer.data.hashing import splitmix64
from kerasformer.errors import InputError
from kerasformer.text.tokenizer import Tokenizer

Order = Literal["random", "consecutive"]

# Steps are computed together, in blocks of about so many tokens: one at a time would cost more than it holds.
BLOCK_TOKENS = 2**16
_SHOWN = 8  # windows of a batch that a message names
_SAMPLED = 2**12  # tokens of each array that a fingerprint is of
_ROUNDS = 6  # of the permutation; from 4 on it is as good as random


class Stage(NamedTuple):
    """Where batches of a size begin."""

    first_step: int
    first_example: int
    batch_size: int


class Windows:
    """The windows of one split of a corpus and the order in which a model sees them.

    A window holds T + 1 tokens of the stream, whatever shards they lie in: T inputs and, one further on, T labels.

    Args:
        corpus: a folder that `kerasformer prepare` wrote, or a Corpus.
        batch_size: B.
        batch_ramp: (size, steps) of the smaller batches before those of B, the smallest first, as GPT-3 was trained
            (Brown et al. 2020, arXiv 2005.14165, appendix B).
        max_length: T.
        order: "random" starts windows anywhere, independently of each other; "consecutive" lays them end to end and
            shows each once an epoch, in another order every epoch. A batch can hold the end of one epoch and the
            start of the next.

    Raises:
        InputError: a folder that cannot be used, or a split that does not hold one window.
    """

    def __init__(
        self,
        corpus: str | os.PathLike | Corpus,
        split: str = "train",
        *,
        batch_size: int,
        max_length: int,
        batch_ramp: Ramp = (),
        order: Order = "random",
        seed: int = 0,
    ):
        for name, value in {"batch_size": batch_size, "max_length": max_length}.items():
            if value < 1:
                raise InputError(f"expected a {name} of at least 1, got {value}; raise it")
        if not 0 <= seed < 2**64:
            raise InputError(f"expected a seed from 0 to 2**64 - 1, got {seed}; change it")
        if order not in get_args(Order):
            raise InputError(f"expected an order among {', '.join(get_args(Order))}, got {order!r}; name one of them")
        check_ramp(batch_ramp, batch_size)
        self.corpus = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
        self.batch_size, self.max_length, self.order, self.seed = batch_size, max_length, order, seed
        stages, step, example = [], 0, 0
        for size, steps in batch_ramp:
            stages.append(Stage(step, example, size))
            step, example = step + steps, example + size * steps
        self.batch_ramp, self._stages = batch_ramp, (*stages, Stage(step, example, batch_size))
        stream: Split = self.corpus.split(split)
        self.tokens, self.bytes = stream.counts.tokens, stream.counts.bytes
        if self.tokens <= max_length:
            where = f" in the {split} split," if len(self.corpus.splits) > 1 else ""
            raise InputError(
                f"{self.corpus.name}: expected more than max_length tokens, {max_length},{where} got {self.tokens}; "
                "add text or lower max_length"
            )
        self._arrays = [array for array in stream.arrays if len(array)]
        self._offsets = np.cumsum([0, *map(len, self._arrays)])  # where each array starts in the stream
        self._views = [
            np.lib.stride_tricks.sliding_window_view(array, max_length + 1) if len(array) > max_length else None
            for array in self._arrays
        ]

    def __repr__(self) -> str:
        return f"Windows({self.tokens:,} tokens, max_length={self.max_length}, batch_size={self.batch_size})"

    @property
    def vocab_size(self) -> int:
        """Of the tokenizer that made the token ids."""
        return self.corpus.vocab_size

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the token ids."""
        return self.corpus.tokenizer()

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes for each token: nats per token / ln 2 / this are bits per byte."""
        return self.bytes / self.tokens

    @property
    def count(self) -> int:
        """W, the windows that lie end to end in the stream; each starts with the last label of the one before."""
        return (self.tokens - 1) // self.max_length

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see about as many tokens as the stream holds.

        Raises:
            InputError: batches grow, so that epochs differ.
        """
        if len(self._stages) > 1:
            raise InputError(
                "expected a number of steps where batches grow, as epochs have no one length then, got none; "
                "set --train.steps, or steps_per_epoch, or no batch_ramp"
            )
        return max(1, self.count // self.batch_size)

    def starts(self, first: int, count: int) -> np.ndarray:
        """Where the examples first, first + 1, ... of the endless sequence start in the stream, [count] int64."""
        if self.order == "random":
            # The generator gives the numbers 4 * counter to 4 * counter + 3 of its stream at once.
            random = np.random.Philox(key=self._key(0), counter=first // 4)
            raw = random.random_raw(first % 4 + count)[first % 4 :]
            return (raw % (self.tokens - self.max_length)).astype(np.int64)
        parts = []
        while count:
            epoch, place = divmod(first, self.count)
            size = min(count, self.count - place)
            parts.append(_permute(np.arange(place, place + size), self.count, self._key(1 + epoch)))
            first, count = first + size, count - size
        return np.concatenate([np.empty(0, np.int64), *parts]) * self.max_length

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """All that there are, the last one B."""
        return tuple(stage.batch_size for stage in self._stages)

    def batch_size_at(self, step: int) -> int:
        """How many examples a step holds."""
        return self._stage(step).batch_size

    def first_example(self, step: int) -> int:
        """The number of examples before a step."""
        stage = self._stage(step)
        return stage.first_example + (step - stage.first_step) * stage.batch_size

    def describe(self, step: int) -> str:
        """Where the windows of a step start: in the stream, or in the shards of a prepared folder."""
        starts = self.starts(self.first_example(step), self.batch_size_at(step))
        shown = ", ".join(map(self._place, starts[:_SHOWN]))
        more = f" and {len(starts) - _SHOWN} more" if len(starts) > _SHOWN else ""
        return f"windows of {self.max_length + 1} tokens that start at {shown}{more}"

    @property
    def fingerprint(self) -> str:
        """Equal for the same text, as far as a sample of it tells."""
        found = hashlib.sha256()
        for array in self._arrays:
            sample = np.ascontiguousarray(array[:: max(1, len(array) // _SAMPLED)])
            found.update(b"%d %s" % (len(array), sample.tobytes()))
        return found.hexdigest()

    def dataset(self, first_step: int, steps: int) -> tf.data.Dataset:
        """Batches of these steps: token ids and labels, the tokens after them, int32 [B, T] each."""
        end = first_step + steps
        ends = [*(stage.first_step for stage in self._stages[1:]), end]
        spans = [range(max(s.first_step, first_step), min(e, end)) for s, e in zip(self._stages, ends, strict=True)]
        spans = [span for span in spans if span] or [range(first_step, first_step)]  # of one batch size each
        parts = [
            self._blocks(self.first_example(span.start), len(span), self.batch_size_at(span.start), self.starts)
            for span in spans
        ]
        return _step_by_step(parts, steps)

    def in_order(self, max_steps: int | None = None) -> tf.data.Dataset:
        """Batches of the windows that lie end to end, once each and in order; the last batch holds the rest.

        Args:
            max_steps: stops after so many batches.
        """
        size = self.batch_size
        limit = self.count if max_steps is None else min(self.count, max_steps * size)

        def starts(first: int, count: int) -> np.ndarray:
            return np.arange(first, first + count) * self.max_length

        parts = [self._blocks(0, limit // size, size, starts)]
        if rest := limit % size:
            parts.append(self._blocks(limit - rest, 1, rest, starts))
        return _step_by_step(parts, -(-limit // size))

    def _stage(self, step: int) -> "Stage":
        return self._stages[bisect_right(self._stages, step, key=attrgetter("first_step")) - 1]

    def _place(self, start: int) -> str:
        """Where in which shard, or where in a stream that has none."""
        place = int(np.searchsorted(self._offsets, start, side="right")) - 1
        file = getattr(self._arrays[place], "filename", None)
        return f"{Path(file).name}:{start - self._offsets[place]}" if file else str(start)

    def _key(self, purpose: int) -> np.ndarray:
        return np.array([self.seed, purpose], np.uint64)

    def _blocks(
        self, first: int, steps: int, batch_size: int, starts: Callable[[int, int], np.ndarray]
    ) -> tf.data.Dataset:
        """The steps from an example on, in blocks: token ids and labels, [K, B, T] each.

        Args:
            starts: of the examples first, first + 1, ..., as the method of that name gives them.
        """
        most = max(1, BLOCK_TOKENS // (batch_size * self.max_length))

        def block(i: int) -> tuple[np.ndarray, np.ndarray]:
            size = min(most, steps - i * most)
            rows = self._read(starts(first + i * most * batch_size, size * batch_size))
            rows = rows.reshape(size, batch_size, self.max_length + 1)
            return rows[..., :-1], rows[..., 1:]

        spec = tf.TensorSpec([None, batch_size, self.max_length], tf.int32)
        return computed(-(-steps // most), block, (spec, spec))

    def _read(self, starts: np.ndarray) -> np.ndarray:
        """The windows that start there, [n, T + 1] int32."""
        rows = np.empty((len(starts), self.max_length + 1), np.int32)
        places = np.searchsorted(self._offsets, starts, side="right") - 1  # the array that each starts in
        inside = starts + self.max_length < self._offsets[places + 1]
        for place in np.unique(places[inside]):
            chosen = inside & (places == place)
            rows[chosen] = self._views[place][starts[chosen] - self._offsets[place]]
        for i in np.flatnonzero(~inside):
            rows[i] = self._across(starts[i], places[i])
        return rows

    def _across(self, start: int, place: int) -> np.ndarray:
        """The window that starts in the array at that place and ends in a later one, [T + 1]."""
        parts, missing = [], self.max_length + 1
        while missing:
            begin = max(start - self._offsets[place], 0)
            parts.append(self._arrays[place][begin : begin + missing])
            missing -= len(parts[-1])
            place += 1
        return np.concatenate(parts)


def _step_by_step(parts: list[tf.data.Dataset], steps: int) -> tf.data.Dataset:
    """The steps of blocks, one after another."""
    # Blocks are read ahead. Handing single steps to yet another thread would take longer than cutting them off.
    return handed_out(functools.reduce(tf.data.Dataset.concatenate, parts).prefetch(2).unbatch(), steps)


def _permute(places: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Where a pseudo-random permutation of range(size) puts these places, int64.

    A Feistel network permutes the numbers of an even number of bits; what falls outside the range goes through it
    again, until it is inside.
    """
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.Philox(key=key).random_raw(_ROUNDS)
    found = places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        left, right = found[outside] >> half, found[outside] & mask
        for i in range(_ROUNDS):
            left, right = right, left ^ (splitmix64(right ^ keys[i : i + 1]) & mask)
        found[outside] = left << half | right
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)
