"""The loss of predicting next tokens, whose logits never exist all at once, nor twice.

Shapes: B batch, T length, D width, V vocabulary; n tokens, in k chunks of c.
"""

from collections.abc import Callable

import tensorflow as tf

# Tokens are read in chunks whose logits number about this: 64 MB in float32.
CHUNK_LOGITS = 2**24
NEVER = -1e30  # a logit whose exponential is zero


def summed_crossentropy(
    hidden_states: tf.Tensor,
    table: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    *,
    gradients: bool = True,
    chunk_logits: int = CHUNK_LOGITS,
) -> tf.Tensor:
    """Weighted sum of the cross-entropies, in nats, of `labels` under the logits `hidden_states @ table.T`.

    A chunk's gradients are computed beside its loss, so that its logits are made once and kept no longer. The
    products are made in the dtype of `hidden_states`, all else in float32.

    Args:
        hidden_states: [B, T, D].
        table: float32 [V, D], a vector for each token.
        labels: [B, T]; below 0 where there is nothing to predict.
        weights: float32 [B, T].
        gradients: whether they will be asked for; without them there is a third as much to do.
        chunk_logits: about how many logits exist at a time.
    """
    hidden = tf.reshape(hidden_states, [-1, hidden_states.shape[-1]])  # [n, D]
    weights = tf.reshape(tf.where(labels < 0, 0.0, weights), [-1])
    labels = tf.reshape(tf.maximum(labels, 0), [-1])
    size = max(1, chunk_logits // table.shape[0])
    if not gradients:
        return _loss(hidden, table, labels, weights, size)

    @tf.custom_gradient
    def loss_of(hidden: tf.Tensor, table: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        loss, for_hidden, for_table = _loss_and_gradients(hidden, table, labels, weights, size)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.cast(upstream * for_hidden, hidden.dtype), upstream * for_table

        return loss, gradient

    return loss_of(hidden, table)


def _loss(hidden: tf.Tensor, table: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, size: int) -> tf.Tensor:
    table, chunks = tf.cast(table, hidden.dtype), _chunks(size, hidden, labels, weights)

    def add(i: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
        states, labels, weights = (part[i] for part in chunks)
        return i + 1, loss + tf.reduce_sum(weights * _softmax(states, table, labels)[0])

    return _repeat(chunks, add, (tf.constant(0.0),))[0]


def _loss_and_gradients(
    hidden: tf.Tensor, table: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The loss, and its gradients with respect to the hidden states [n, D] and the table [V, D], all float32."""
    dtype, dim = hidden.dtype, hidden.shape[-1]
    narrow, chunks = tf.cast(table, dtype), _chunks(size, hidden, labels, weights)

    def add(i: tf.Tensor, loss: tf.Tensor, for_hidden: tf.TensorArray, for_table: tf.Tensor) -> tuple:
        states, labels, weights = (part[i] for part in chunks)
        losses, others, rest, total = _softmax(states, narrow, labels)
        others, scale = tf.cast(others, dtype), weights[:, None] / total
        # The label's share of the gradient is p - 1. As the sum of the others it keeps its digits where p is near 1.
        pull = tf.cast(others @ narrow, tf.float32) - rest * tf.cast(tf.gather(narrow, labels), tf.float32)  # [c, D]
        states = scale * tf.cast(states, tf.float32)
        push = tf.matmul(others, tf.cast(states, dtype), transpose_a=True)  # [V, D]
        for_table = tf.tensor_scatter_nd_sub(for_table + tf.cast(push, tf.float32), labels[:, None], rest * states)
        return i + 1, loss + tf.reduce_sum(weights * losses), for_hidden.write(i, scale * pull), for_table

    count, length = chunks[0].shape[0], chunks[0].shape[1]
    rows = tf.TensorArray(tf.float32, tf.shape(chunks[0])[0] if count is None else count, element_shape=[length, dim])
    loss, rows, for_table = _repeat(chunks, add, (tf.constant(0.0), rows, tf.zeros_like(table)))
    return loss, tf.reshape(rows.stack(), [-1, dim])[: tf.shape(hidden)[0]], for_table


def _softmax(
    states: tf.Tensor, table: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Losses [c], exponentials [c, V] of all logits but the label's, their sum [c, 1], and that of all logits [c, 1].

    The exponentials are those of the logits' distance to the largest.
    """
    logits = tf.cast(tf.matmul(states, table, transpose_b=True), tf.float32)  # [c, V]
    chosen = tf.gather(logits, labels, batch_dims=1)[:, None]  # [c, 1]
    with tf.control_dependencies([chosen]):  # so that the logits, which nobody reads again, are changed in place
        places = tf.stack([tf.range(tf.shape(labels)[0]), labels], axis=1)
        logits = tf.tensor_scatter_nd_update(logits, places, tf.fill(tf.shape(labels), NEVER))
    largest = tf.maximum(tf.reduce_max(logits, axis=1, keepdims=True), chosen)
    others = tf.exp(logits - largest)
    rest = tf.reduce_sum(others, axis=1, keepdims=True)
    total = rest + tf.exp(chosen - largest)
    return (tf.math.log(total) + largest - chosen)[:, 0], others, rest, total


def _chunks(size: int, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Tensors [n, ...] as [k, c, ...], c at most `size`; zeros, which weigh nothing, fill the last chunk."""
    tokens = tensors[0].shape[0] if tensors[0].shape[0] is not None else tf.shape(tensors[0])[0]
    count = -(-tokens // size)
    count = max(count, 1) if isinstance(count, int) else tf.maximum(count, 1)  # of no tokens there is one, empty
    length = -(-tokens // count)
    missing = count * length - tokens
    padded = [tf.pad(tensor, [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)) for tensor in tensors]
    return [tf.reshape(tensor, [count, length, *tensor.shape[1:]]) for tensor in padded]


def _repeat(chunks: list[tf.Tensor], step: Callable, state: tuple) -> tuple:
    """`step(i, *state)`, which returns i + 1 and the next state, for each chunk i."""
    if chunks[0].shape[0] == 1:
        return step(tf.constant(0), *state)[1:]
    count = tf.shape(chunks[0])[0]
    return tf.while_loop(lambda i, *_: i < count, step, (tf.constant(0), *state), parallel_iterations=1)[1:]
