"""The loss of predicting tokens, whose logits never exist all at once, nor twice.

Shapes: B batch, T length, D width, V vocabulary; n tokens, in k chunks of c.
"""

from collections.abc import Callable

import tensorflow as tf

from kerasformer import backend
from kerasformer.gradients import custom_gradient
from kerasformer.layers.reductions import largest, summed

# Tokens are read in chunks whose logits number about this: 64 MB in float32.
CHUNK_LOGITS = 2**24
# Where few tokens are to be predicted, all are read in at least so many chunks: the first then holds BERT's 15 %.
FEW_CHUNKS = 6


def summed_crossentropy(
    hidden_states: tf.Tensor,
    table: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    *,
    bias: tf.Tensor | None = None,
    few: bool = False,
    gradients: bool = True,
    chunk_logits: int = CHUNK_LOGITS,
) -> tf.Tensor:
    """Weighted sum of the cross-entropies, in nats, of `labels` under the logits `hidden_states @ table.T + bias`.

    A chunk's gradients are computed beside its loss, so that its logits are made once and kept no longer. The
    products are made in the dtype of `hidden_states`, all else in float32.

    Args:
        hidden_states: [B, T, D].
        table: [V, D], a vector for each token.
        labels: [B, T]; below 0 where there is nothing to predict.
        weights: float32 [B, T].
        bias: float32 [V]; none by default.
        few: most labels weigh nothing. Those that do are brought together, and no others are computed.
        gradients: whether they will be asked for; without them there is a third as much to do.
        chunk_logits: about how many logits exist at a time.
    """
    hidden = tf.reshape(hidden_states, [-1, hidden_states.shape[-1]])  # [n, D]
    weights = tf.reshape(tf.where(labels < 0, 0.0, weights), [-1])
    labels = tf.reshape(tf.maximum(labels, 0), [-1])
    if few:
        order = _true_first(tf.not_equal(weights, 0))
        hidden, labels, weights = (tf.gather(part, order) for part in (hidden, labels, weights))
    size = max(1, chunk_logits // table.shape[0])
    output = (table,) if bias is None else (table, bias)
    if not gradients:
        return _loss(hidden, output, labels, weights, size, few)

    @custom_gradient
    def loss_of(hidden: tf.Tensor, *output: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        loss, for_hidden, *for_output = _loss_and_gradients(hidden, output, labels, weights, size, few)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            parts = zip((for_hidden, *for_output), (hidden, *output), strict=True)
            is_one = tf.get_static_value(upstream) == 1  # a product less, the size of the table
            return tuple(tf.cast(part if is_one else upstream * part, of.dtype) for part, of in parts)

        return loss, gradient

    return loss_of(hidden, *output)


def _loss(
    hidden: tf.Tensor, output: tuple[tf.Tensor, ...], labels: tf.Tensor, weights: tf.Tensor, size: int, few: bool
) -> tf.Tensor:
    table, *bias = output
    table, chunks = tf.cast(table, hidden.dtype), _chunks(size, few, hidden, labels, weights)

    def add(i: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
        states, labels, weights = (part[i] for part in chunks)
        return i + 1, loss + tf.reduce_sum(weights * _softmax(states, table, labels, *bias)[0])

    return _repeat(chunks, few, add, (tf.constant(0.0),))[0]


def _loss_and_gradients(
    hidden: tf.Tensor, output: tuple[tf.Tensor, ...], labels: tf.Tensor, weights: tf.Tensor, size: int, few: bool
) -> tuple[tf.Tensor, ...]:
    """The loss, and its gradients with respect to the hidden states [n, D], the table [V, D] and, if there is one, the
    bias [V], all float32."""
    dtype, dim = hidden.dtype, hidden.shape[-1]
    table, *bias = output
    narrow, chunks = tf.cast(table, dtype), _chunks(size, few, hidden, labels, weights)
    alone = _is_alone(chunks, few)

    def add(i: tf.Tensor, loss: tf.Tensor, for_hidden: tf.Tensor, *for_output: tf.Tensor) -> tuple:
        states, labels, weights = (part[i] for part in chunks)
        losses, others, rest, total = _softmax(states, narrow, labels, *bias)
        scale = weights[:, None] / total
        own = tf.gather(narrow, labels)  # [c, D]
        for_states = _for_states(tf.matmul(others, narrow), own, rest, scale)
        for_output = [
            _pushed(sums, tf.matmul(others, tf.cast(part, dtype), transpose_a=True), labels, rest, part)
            for sums, part in zip(for_output, (scale * tf.cast(states, tf.float32), scale), strict=False)
        ]
        # A tensor, not an array of them, whose size XLA would not know before it runs.
        for_hidden = for_states[None] if alone else tf.tensor_scatter_nd_update(for_hidden, [[i]], for_states[None])
        return i + 1, loss + tf.reduce_sum(weights * losses), for_hidden, *for_output

    rows, *sums = [tf.zeros(())] * (2 + len(bias))  # one chunk has nothing to add to: no memory to fill and to read
    if not alone:
        rows = tf.zeros_like(chunks[0], tf.float32)  # [k, c, D]
        sums = [tf.zeros_like(table, tf.float32), *(tf.zeros_like(part[:, None]) for part in bias)]
    loss, rows, for_table, *for_bias = _repeat(chunks, few, add, (tf.constant(0.0), rows, *sums))
    for_hidden = tf.reshape(rows, [-1, dim])[: tf.shape(hidden)[0]]
    return loss, for_hidden, for_table, *(part[:, 0] for part in for_bias)


@backend.fusible
def _for_states(pull: tf.Tensor, own: tf.Tensor, rest: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The gradient of states [c, D], from what the other tokens pull at them and the vectors of their own labels.

    The label's share is p - 1: as the sum of the others it keeps its digits where p is near 1.
    """
    return scale * (tf.cast(pull, tf.float32) - rest * tf.cast(own, tf.float32))


@backend.fusible
def _pushed(sums: tf.Tensor, push: tf.Tensor, labels: tf.Tensor, rest: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Sums [V, m] or [], what the exponentials of all tokens but the labels give, and less their sums at the labels.

    Args:
        factors: float32 [c, m], of each token's exponentials.
    """
    return tf.tensor_scatter_nd_sub(sums + tf.cast(push, tf.float32), labels[:, None], rest * factors)


def _softmax(
    states: tf.Tensor, table: tf.Tensor, labels: tf.Tensor, bias: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Losses [c], exponentials [c, V] of all logits but the label's, their sum [c, 1], and that of all logits [c, 1].

    The exponentials are those of the logits' distance to the largest.
    """
    return _exponentials(tf.matmul(states, table, transpose_b=True), labels, *(() if bias is None else (bias,)))


@backend.fusible
def _exponentials(
    logits: tf.Tensor, labels: tf.Tensor, bias: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    wide = tf.cast(logits, tf.float32)  # [c, V]
    chosen = tf.cast(tf.gather(logits, labels, batch_dims=1), tf.float32)[:, None]  # [c, 1]
    if bias is not None:
        wide, chosen = wide + bias, chosen + tf.gather(bias, labels)[:, None]
    peak = largest(wide, -1, keepdims=True)
    is_label = tf.range(logits.shape[1])[None, :] == labels[:, None]
    others = tf.where(is_label, 0.0, backend.exp(wide - peak))
    rest = summed(others, -1, keepdims=True)
    total = rest + backend.exp(chosen - peak)
    return (tf.math.log(total) + peak - chosen)[:, 0], backend.cast(others, logits.dtype), rest, total


def _true_first(choice: tf.Tensor) -> tf.Tensor:
    """The places of the true ones and then of the others, [n]: what a stable sort gives, at sizes that XLA knows."""
    true = tf.cast(choice, tf.int32)
    place = tf.where(choice, tf.cumsum(true) - 1, tf.reduce_sum(true) + tf.cumsum(1 - true) - 1)
    return tf.tensor_scatter_nd_update(tf.zeros_like(place), place[:, None], tf.range(tf.size(place)))


def _chunks(size: int, few: bool, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Tensors [n, ...] as [k, c, ...], c at most `size`; zeros, which weigh nothing, fill the last chunk."""
    tokens = tensors[0].shape[0] if tensors[0].shape[0] is not None else tf.shape(tensors[0])[0]
    count = -(-tokens // size)
    least = FEW_CHUNKS if few else 1  # of no tokens, they are empty
    count = max(count, least) if isinstance(count, int) else tf.maximum(count, least)
    length = -(-tokens // count)
    missing = count * length - tokens
    padded = [tf.pad(tensor, [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)) for tensor in tensors]
    return [tf.reshape(tensor, [count, length, *tensor.shape[1:]]) for tensor in padded]


def _is_alone(chunks: list[tf.Tensor], few: bool) -> bool:
    """Whether there is one chunk, and it is read in any case."""
    return chunks[0].shape[0] == 1 and not few


def _repeat(chunks: list[tf.Tensor], few: bool, step: Callable, state: tuple) -> tuple:
    """`step(i, *state)`, which returns i + 1 and the next state, for each chunk i, or for those that weigh something.

    Args:
        chunks: of states, labels and weights.
    """
    if _is_alone(chunks, few):
        return step(tf.constant(0), *state)[1:]
    count = tf.shape(chunks[0])[0]
    if few:
        weigh = tf.reduce_any(tf.not_equal(chunks[-1], 0), axis=1)  # [k], the true ones first
        count = tf.math.count_nonzero(weigh, dtype=tf.int32)
    return tf.while_loop(lambda i, *_: i < count, step, (tf.constant(0), *state), parallel_iterations=1)[1:]
