"""Beam search (Sutskever et al. 2014, arXiv 1409.3215), with the rules for when to stop that `transformers` has.

Shapes: B batch, K beams, P columns of the prompt, R room for new tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import KerasTensor, ops

from kerasformer.generation.decoding import State, as_it_is, limits_of, prompt_state, read_latest
from kerasformer.generation.sampling import Rules, penalised
from kerasformer.layers.attention import Cache
from kerasformer.models.base import Model

# Added to the log-probability of what must not be chosen. Finite: sums of several still compare.
NEVER = -1e9


class Beams(NamedTuple):
    """K texts a row: tokens int32 [B, K, R], their number without the end of text, and scores float32 [B, K]."""

    token_ids: KerasTensor
    lengths: KerasTensor
    scores: KerasTensor

    def best(self, count: int, scores: KerasTensor | None = None) -> tuple["Beams", KerasTensor]:
        """The `count` best by the scores, best first, and their places, [B, count]."""
        places = ops.top_k(self.scores if scores is None else scores, count)[1]
        return self.at(places), places

    def at(self, places: KerasTensor) -> "Beams":
        """Those at `places` [B, any]."""
        token_ids = ops.take_along_axis(self.token_ids, places[:, :, None], axis=1)
        return Beams(token_ids, *(ops.take_along_axis(values, places, axis=1) for values in self[1:]))


class Search(NamedTuple):
    """What the loop knows after a step.

    Args:
        step: how many columns of the running texts are filled.
        running: to be continued; the scores are sums of log-probabilities.
        finished: the best that ended, best first; the scores are divided by their length to the `length_penalty`.
        is_finished: bool [B, K], whether there is a text in that place of `finished`.
        is_open: bool [B], whether a running text may still surpass a finished one.
        seen: bool [B * K, V].
        caches: of each block, with B * K rows.
    """

    step: KerasTensor
    running: Beams
    finished: Beams
    is_finished: KerasTensor
    is_open: KerasTensor
    seen: KerasTensor
    caches: list[Cache]


def search(
    model: Model,
    token_ids: KerasTensor,
    padding_mask: KerasTensor,
    rules: Rules,
    length_penalty: KerasTensor,
    *,
    num_beams: int,
    room: int,
    end_id: int,
    compiled: Callable[[Callable], Callable] = as_it_is,
) -> tuple[KerasTensor, KerasTensor]:
    """The continuation of each prompt with the best score that was found: ids [B, R] and their number in each row.

    The arguments are those of `decoding.decode`; of the rules, `max_new_tokens` and `repetition_penalty` count.

    Args:
        length_penalty: float32 [B]; above 0 longer texts are favoured, below 0 shorter ones.
        num_beams: K.
        compiled: wraps the function of one step, as in `decoding.advance`.
    """
    prompt, logits = prompt_state(model, token_ids, padding_mask, rules, room=room, end_id=end_id)
    columns = ops.shape(token_ids)[1]
    limits = limits_of(model, prompt.prompt_lengths, rules, room)

    def repeat(x):
        return ops.repeat(x, num_beams, axis=0)

    penalty, visible = repeat(rules.repetition_penalty), repeat(prompt.visible)
    prompt_lengths = repeat(prompt.prompt_lengths)

    def choose(state, logits):
        scores = ops.log_softmax(ops.cast(logits, "float32"))
        return _choose(state, penalised(scores, state.seen, penalty), limits, length_penalty, end_id)

    def step(state):
        latest = ops.reshape(ops.take(state.running.token_ids, state.step - 1, axis=2), (-1, 1))  # [B * K, 1]
        logits, caches = read_latest(
            model, latest, state.caches, columns, state.step, prompt_lengths, repeat(limits), visible
        )
        return choose(state._replace(caches=caches), logits)

    def goes_on(state):
        return ops.logical_and(state.step < room, ops.any(state.is_open))

    step = compiled(step)
    state = choose(_start(prompt, num_beams, end_id), repeat(logits))
    [state] = ops.while_loop(goes_on, lambda state: (step(state),), (state,))
    return state.finished.token_ids[:, 0], state.finished.lengths[:, 0]


def _start(prompt: State, num_beams: int, end_id: int) -> Search:
    """The state before the first token: each row of the prompts repeated."""
    batch, room = ops.shape(prompt.token_ids)
    empty = Beams(
        ops.full((batch, num_beams, room), end_id, "int32"),
        ops.zeros((batch, num_beams), "int32"),
        ops.full((batch, num_beams), NEVER, "float32"),
    )
    # All beams are alike at first, so that the first alone goes on: the others would be copies of it.
    first = ops.broadcast_to(ops.arange(num_beams)[None, :] == 0, (batch, num_beams))
    return Search(
        step=prompt.step,
        running=empty._replace(scores=ops.where(first, 0.0, NEVER)),
        finished=empty,
        is_finished=ops.zeros((batch, num_beams), "bool"),
        is_open=ops.logical_not(prompt.is_done),
        seen=ops.repeat(prompt.seen, num_beams, axis=0),
        caches=[Cache(*(ops.repeat(part, num_beams, axis=0) for part in cache)) for cache in prompt.caches],
    )


def _choose(
    state: Search, scores: KerasTensor, limits: KerasTensor, length_penalty: KerasTensor, end_id: int
) -> Search:
    """The state after the next token of each beam, by its log-probabilities, [B * K, V]."""
    batch, num_beams, room = ops.shape(state.running.token_ids)
    vocab_size = ops.shape(scores)[-1]
    totals = ops.reshape(scores, (batch, num_beams, vocab_size)) + state.running.scores[:, :, None]
    # Twice as many as needed: even if half of them end, there are enough to go on with.
    totals, places = ops.top_k(ops.reshape(totals, (batch, num_beams * vocab_size)), 2 * num_beams)  # [B, 2K]
    beams, tokens = places // vocab_size, ops.cast(places % vocab_size, "int32")
    ended = tokens == end_id
    token_ids = ops.take_along_axis(state.running.token_ids, beams[:, :, None], axis=1)
    column = ops.arange(room)[None, None, :] == state.step
    candidates = Beams(
        ops.where(column, tokens[:, :, None], token_ids), state.step + 1 - ops.cast(ended, "int32"), totals
    )
    stops = ops.logical_or(ended, (state.step + 1 >= limits)[:, None])  # [B, 2K]

    running, chosen = candidates.best(num_beams, totals + NEVER * ops.cast(stops, "float32"))
    running = running._replace(scores=running.scores + NEVER * _at(ops.cast(stops, "float32"), chosen))
    finished, is_finished = _finish(state, candidates, stops, length_penalty)

    length = ops.power(ops.cast(state.step + 1, "float32"), length_penalty)  # [B]
    hope = (running.scores[:, 0] / length)[:, None]
    worst = ops.where(is_finished, ops.min(finished.scores, axis=1, keepdims=True), NEVER)  # [B, K]
    is_open = ops.logical_and(state.is_open, ops.any(hope > worst, axis=1))

    rows = ops.arange(batch)[:, None] * num_beams + ops.cast(_at(beams, chosen), "int32")
    rows = ops.reshape(rows, (-1,))  # [B * K], where each beam comes from
    latest = ops.one_hot(ops.reshape(_at(tokens, chosen), (-1,)), vocab_size, dtype="bool")
    seen = ops.logical_or(ops.take(state.seen, rows, axis=0), latest)
    caches = [Cache(*(ops.take(part, rows, axis=0) for part in cache)) for cache in state.caches]
    return Search(state.step + 1, running, finished, is_finished, is_open, seen, caches)


def _finish(
    state: Search, candidates: Beams, stops: KerasTensor, length_penalty: KerasTensor
) -> tuple[Beams, KerasTensor]:
    """The finished texts with those of the K best candidates that stop; and which places hold one."""
    num_beams = ops.shape(state.is_finished)[1]
    best = ops.arange(2 * num_beams)[None, :] < num_beams
    joins = ops.logical_and(stops, best)
    length = ops.power(ops.cast(state.step + 1, "float32"), length_penalty)[:, None]
    barred = ops.logical_not(ops.logical_and(joins, state.is_open[:, None]))
    scores = candidates.scores / length + NEVER * ops.cast(barred, "float32")
    merged = Beams(
        *(
            ops.concatenate(pair, axis=1)
            for pair in zip(state.finished, candidates._replace(scores=scores), strict=True)
        )
    )
    finished, places = merged.best(num_beams)
    return finished, _at(ops.concatenate([state.is_finished, joins], axis=1), places)


def _at(values: KerasTensor, places: KerasTensor) -> KerasTensor:
    """Values [B, any] at `places` [B, n]."""
    return ops.take_along_axis(values, places, axis=1)
