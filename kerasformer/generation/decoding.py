"""The decoding loop: a prompt is read in one pass, then each token with the keys and values of those before it cached.

A pure function of tensors in `keras.ops`: it runs eagerly, in graphs with and without XLA, under JAX's jit and in a
SavedModel.

Shapes: B batch, P columns of the prompt, R room for new tokens, S = P + R columns of the cache, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import KerasTensor, ops

from kerasformer.generation.sampling import Rules, next_tokens
from kerasformer.layers.attention import Cache
from kerasformer.models.base import Model


class State(NamedTuple):
    """What the loop knows after a step.

    Args:
        step: how many columns of `token_ids` are filled.
        token_ids: int32 [B, R], the new tokens; the end of text after a row's last.
        lengths: int32 [B], how many new tokens there are, the end of text not among them.
        is_done: bool [B].
        seen: bool [B, V], the tokens of prompt and continuation.
        caches: of each block.
        prompt_lengths: int32 [B].
        visible: int32 [B, S], 1 at the columns that hold real tokens, or will.
    """

    step: KerasTensor
    token_ids: KerasTensor
    lengths: KerasTensor
    is_done: KerasTensor
    seen: KerasTensor
    caches: list[Cache]
    prompt_lengths: KerasTensor
    visible: KerasTensor


def as_it_is(step: Callable) -> Callable:
    """The function, which is compiled with the loop around it."""
    return step


def decode(
    model: Model, token_ids: KerasTensor, padding_mask: KerasTensor, rules: Rules, *, room: int, end_id: int
) -> tuple[KerasTensor, KerasTensor]:
    """Continues each prompt until its end of text or its `max_new_tokens`: ids [B, R] and their number in each row.

    Args:
        model: a backbone with `extend`, `empty_caches` and `logits`.
        token_ids: int32 [B, P], the prompts, padded on the left.
        padding_mask: int32 [B, P], 1 at real tokens.
        room: R, the most tokens that any row can get. No row gets more than the model has positions for.
        end_id: ends a text, is not counted, and fills the rows up.
    """
    state = prefill(model, token_ids, padding_mask, rules, room=room, end_id=end_id)
    state = advance(model, state, rules, steps=room, end_id=end_id)
    return state.token_ids, state.lengths


def prefill(
    model: Model, token_ids: KerasTensor, padding_mask: KerasTensor, rules: Rules, *, room: int, end_id: int
) -> State:
    """Reads the prompts and takes the first new token of each row; the arguments are those of `decode`."""
    state, logits = prompt_state(model, token_ids, padding_mask, rules, room=room, end_id=end_id)
    return _append(model, state, logits, rules, end_id)


def prompt_state(
    model: Model, token_ids: KerasTensor, padding_mask: KerasTensor, rules: Rules, *, room: int, end_id: int
) -> tuple[State, KerasTensor]:
    """Reads the prompts: the state before the first new token, and the scores of that, [B, V]."""
    token_ids, padding_mask = ops.cast(token_ids, "int32"), ops.cast(padding_mask, "int32")
    batch, columns = ops.shape(token_ids)
    visible = ops.pad(padding_mask, ((0, 0), (0, room)), constant_values=1)
    positions = ops.maximum(ops.cumsum(padding_mask, axis=1) - 1, 0)
    caches = model.empty_caches(batch, columns + room)
    hidden_states, caches = model.extend(token_ids, caches, 0, positions=positions, visible=visible)
    prompt_lengths = ops.sum(padding_mask, axis=1)
    none = ops.zeros((batch,), "int32")
    state = State(
        step=ops.convert_to_tensor(0, "int32"),
        token_ids=ops.full((batch, room), end_id, "int32"),
        lengths=none,
        is_done=limits_of(model, prompt_lengths, rules, room) < 1,
        seen=_seen(token_ids, padding_mask, model.config.vocab_size),
        caches=caches,
        prompt_lengths=prompt_lengths,
        visible=visible,
    )
    return state, model.logits(hidden_states[:, -1:])[:, 0]


def advance(
    model: Model,
    state: State,
    rules: Rules,
    *,
    steps: int | KerasTensor,
    end_id: int,
    compiled: Callable[[Callable], Callable] = as_it_is,
) -> State:
    """Takes up to `steps` more tokens of each row, and stops when all rows are done.

    Args:
        compiled: wraps the function of one step, such as `backend.fused`; it is compiled with the loop by default.
    """
    last = ops.minimum(state.step + steps, ops.shape(state.token_ids)[1])

    def is_open(state):
        return ops.logical_and(state.step < last, ops.logical_not(ops.all(state.is_done)))

    def step(state, rules):
        room = ops.shape(state.token_ids)[1]
        latest = ops.take(state.token_ids, state.step - 1, axis=1)[:, None]  # [B, 1]
        limits = limits_of(model, state.prompt_lengths, rules, room)
        columns = ops.shape(state.visible)[1] - room
        logits, caches = read_latest(
            model, latest, state.caches, columns, state.step, state.prompt_lengths, limits, state.visible
        )
        return _append(model, state._replace(caches=caches), logits, rules, end_id)

    step = compiled(step)
    [state] = ops.while_loop(is_open, lambda state: (step(state, rules),), (state,))
    return state


def read_latest(
    model: Model,
    latest: KerasTensor,
    caches: list[Cache],
    columns: int | KerasTensor,
    step: KerasTensor,
    prompt_lengths: KerasTensor,
    limits: KerasTensor,
    visible: KerasTensor,
) -> tuple[KerasTensor, list[Cache]]:
    """The scores [B, V] of the token after each row's `latest` [B, 1], which is number `step`; and the caches with it.

    Args:
        columns: P.
        limits: how many new tokens each row may have, [B].
    """
    # Rows that are done go on at the position where they stopped: the table of positions may end there.
    positions = ops.maximum(prompt_lengths + ops.minimum(step, limits) - 1, 0)[:, None]
    latest = ops.maximum(latest, 0)  # where nothing ends a text, -1 fills up the rows that are done
    hidden_states, caches = model.extend(latest, caches, columns + step - 1, positions=positions, visible=visible)
    return model.logits(hidden_states[:, -1:])[:, 0], caches


def _append(model: Model, state: State, logits: KerasTensor, rules: Rules, end_id: int) -> State:
    """Appends the next token, by its scores [B, V], to each row that is not done."""
    room = ops.shape(state.token_ids)[1]
    token = next_tokens(logits, state.seen, rules, state.step)
    ends = ops.logical_or(state.is_done, token == end_id)
    here = ops.logical_and(ops.arange(room)[None, :] == state.step, ops.logical_not(ends)[:, None])  # [B, R]
    lengths = state.lengths + ops.cast(ops.logical_not(ends), "int32")
    limits = limits_of(model, state.prompt_lengths, rules, room)
    return state._replace(
        step=state.step + 1,
        token_ids=ops.where(here, token[:, None], state.token_ids),
        lengths=lengths,
        is_done=ops.logical_or(ends, lengths >= limits),
        seen=ops.logical_or(state.seen, ops.one_hot(token, ops.shape(logits)[-1], dtype="bool")),
    )


def limits_of(model: Model, prompt_lengths: KerasTensor, rules: Rules, room: int) -> KerasTensor:
    """How many new tokens each row may have, [B]."""
    return ops.minimum(ops.minimum(rules.max_new_tokens, room), model.config.max_length - prompt_lengths)


def _seen(token_ids: KerasTensor, padding_mask: KerasTensor, vocab_size: int) -> KerasTensor:
    """Which tokens [B, V] each prompt [B, P] holds."""
    batch, columns = ops.shape(token_ids)
    ids = ops.where(padding_mask > 0, token_ids, token_ids[:, -1:])  # the last column is no padding
    rows = ops.broadcast_to(ops.arange(batch)[:, None], (batch, columns))
    index = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))
    ones = ops.ones((batch * columns,), "bool")
    return ops.scatter_update(ops.zeros((batch, vocab_size), "bool"), index, ones)
