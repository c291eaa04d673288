"""From scores to the next token of each row, by rules of its own: greedy or drawn.

What a row gets depends on its scores, its rules and how many tokens it has, not on the rows beside it: a server can
batch requests. The draws are a function of the row's seed, the same on every backend.

Shapes: B batch, V vocabulary.
"""

from typing import NamedTuple

import numpy as np
from keras import KerasTensor, ops

from kerasformer import backend

INT32 = np.iinfo(np.int32)
LEAST_TEMPERATURE = 1e-4  # divided by less, scores could be infinite; it is as good as 0


class Rules(NamedTuple):
    """What each row asks for, each [B].

    Args:
        max_new_tokens: int32.
        temperature: float32; the scores are divided by it, and at 0 the best token is taken.
        top_k: int32, draw among the k best tokens; 0 for all.
        top_p: float32, draw among the best tokens that have this probability together; 1 for all.
        repetition_penalty: float32; makes tokens of the row so far less likely above 1, more likely below.
        seed: int32; the same one gives the same draws.
    """

    max_new_tokens: KerasTensor
    temperature: KerasTensor
    top_k: KerasTensor
    top_p: KerasTensor
    repetition_penalty: KerasTensor
    seed: KerasTensor


def next_tokens(logits: KerasTensor, seen: KerasTensor, rules: Rules, step: KerasTensor) -> KerasTensor:
    """The token that follows in each row, int32 [B].

    Args:
        logits: [B, V].
        seen: bool [B, V], the tokens that the row holds.
        step: how many tokens were drawn before.
    """
    logits = penalised(ops.cast(logits, "float32"), seen, rules.repetition_penalty)
    best = backend.argmax(logits)
    is_drawn = rules.temperature > 0

    def draw():
        scores = logits / ops.where(is_drawn, ops.maximum(rules.temperature, LEAST_TEMPERATURE), 1.0)[:, None]
        scores = ops.where(supported(scores, rules.top_k, rules.top_p), scores, -np.inf)
        drawn = backend.argmax(scores + gumbel(rules.seed, step, ops.shape(logits)[-1]))
        return ops.where(is_drawn, drawn, best)

    return ops.cond(ops.any(is_drawn), draw, lambda: best)


def penalised(scores: KerasTensor, seen: KerasTensor, penalty: KerasTensor) -> KerasTensor:
    """Scores [B, V] with those of `seen` tokens lowered (Keskar et al. 2019, arXiv 1909.05858, section 4.1).

    Args:
        penalty: [B]; scores above 0 are divided by it, others multiplied.
    """

    def lower():
        factor = penalty[:, None]
        return ops.where(seen, ops.where(scores < 0, scores * factor, scores / factor), scores)

    return ops.cond(ops.any(penalty != 1.0), lower, lambda: scores)


def supported(scores: KerasTensor, top_k: KerasTensor, top_p: KerasTensor) -> KerasTensor:
    """Which tokens may be drawn, bool [B, V]: the `top_k` best, and of these the best that make up `top_p`.

    The last token taken in is the one that reaches `top_p`. Tokens that tie with the last are taken in as well.
    """
    order = _in_order(scores)
    everywhere = ops.ones_like(scores)

    def best_k():
        limit = ops.where(top_k > 0, ops.cast(top_k, "float32"), np.inf)
        return order >= _threshold(order, everywhere, limit)[:, None]

    def best_p():
        probabilities = ops.softmax(ops.where(kept, scores, -np.inf))
        limit = ops.where(top_p < 1, top_p, np.inf)
        return ops.logical_and(kept, order >= _threshold(order, probabilities, limit)[:, None])

    kept = ops.cond(ops.any(top_k > 0), best_k, lambda: everywhere > 0)
    return ops.cond(ops.any(top_p < 1), best_p, lambda: kept)


def _in_order(scores: KerasTensor) -> KerasTensor:
    """Maps float32 to int32 of the same order, which bisection divides in 32 steps."""
    bits = ops.view(scores, "int32")
    return ops.where(bits < 0, ops.bitwise_xor(bits, INT32.max), bits)


def _threshold(order: KerasTensor, weights: KerasTensor, limit: KerasTensor) -> KerasTensor:
    """For each row the smallest t of its `order` [V] such that the weights [V] of entries above t sum to less than
    `limit` [B].

    Bisection takes a tenth of the time of sorting.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = ops.bitwise_and(low, high) + ops.right_shift(ops.bitwise_xor(low, high), 1)  # no sum overflows
        above = ops.sum(ops.where(order > middle[:, None], weights, 0.0), axis=-1)
        return ops.where(above < limit, low, middle + 1), ops.where(above < limit, middle, high)

    return ops.fori_loop(0, 32, halve, (ops.min(order, axis=-1), ops.max(order, axis=-1)))[0]


def gumbel(seed: KerasTensor, step: KerasTensor, size: int) -> KerasTensor:
    """Noise [B, size] of the standard Gumbel distribution: the place of the largest sum of it and log-probabilities
    is a draw from them (Gumbel-max).

    Args:
        seed: int32 [B].
        step: int32, how many such draws were made before.
    """
    # A counter through a hash, so that each number depends on seed, step and place alone.
    stream = _mix(_mix(ops.cast(seed, "uint32")) + ops.cast(step, "uint32"))  # [B]
    places = ops.cast(ops.arange(size, dtype="int32"), "uint32")
    words = _mix(ops.bitwise_xor(stream[:, None], _mix(places)[None, :]))  # [B, size]
    # In (0, 1); near 0, where the largest noise comes from, as fine as 32 bits allow.
    uniform = ops.minimum((ops.cast(words, "float32") + 0.5) * 2.0**-32, 1 - 2.0**-24)
    return -ops.log(-ops.log1p(-uniform))


def _mix(words: KerasTensor) -> KerasTensor:
    """Scrambles uint32 words so that each bit depends on all (multiply, xor and shift: MurmurHash3's finalizer)."""
    words = ops.add(words, _word(0x9E3779B9))  # 0 would stay 0
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        words = ops.multiply(ops.bitwise_xor(words, ops.right_shift(words, _word(shift))), _word(factor))
    return ops.bitwise_xor(words, ops.right_shift(words, _word(16)))


def _word(value: int) -> KerasTensor:
    return ops.convert_to_tensor(np.uint32(value))
