"""Labels and their weights as losses take them.

Shapes: B batch, T length, C classes or tokens; "..." is [B] of a classifier, [B, T] of a model of tokens. An example is
what has one label: a row, or a token of one.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import tensorflow as tf

from kerasformer.errors import InputError


def as_targets(labels: tf.Tensor | None, rank: int) -> tf.Tensor:
    """Class ids [...] or [..., 1] of any numeric type as int32 [...]; a number for each class [..., C] as float32.

    Args:
        rank: of "...".

    Raises:
        InputError: no labels, or labels of another rank.
    """
    if labels is None:
        raise InputError("expected labels beside the inputs, got none; pass (inputs, labels)")
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == rank + 1 and labels.shape[-1] == 1:
        labels = tf.squeeze(labels, -1)
    if labels.shape.rank not in (rank, rank + 1) or labels.dtype == tf.string:
        ids = "[batch]" if rank == 1 else "[batch, length]"
        raise InputError(
            f"expected labels as class ids {ids}, or a number for each class {ids[:-1]}, classes], "
            f"got {labels.dtype.name} of shape {labels.shape}; change their shape or type"
        )
    return tf.cast(labels, tf.int32 if labels.shape.rank == rank else tf.float32)


def check_heads(heads: Collection[str], labels: Any, sample_weight: Any = None) -> None:
    """Raises InputError for what is not labels of each of several heads, and weights of some of them if of any."""
    for what, parts in {"labels": labels, "sample weights": {} if sample_weight is None else sample_weight}.items():
        found = list(parts) if isinstance(parts, Mapping) else f"a {type(parts).__name__}"
        if not isinstance(parts, Mapping) or not parts.keys() <= set(heads):
            raise InputError(f"expected {what} by head, of {', '.join(heads)}, got {found}; pass a dict")
    if missing := [name for name in heads if name not in labels]:
        raise InputError(
            f"expected labels of each head, got none of {', '.join(missing)}; "
            "give labels of -1 where a head has nothing to learn"
        )


def is_ids(labels: tf.Tensor) -> bool:
    """Whether these are class ids, not a number for each class, of what `as_targets` gives."""
    return labels.dtype.is_integer


def as_weights(labels: tf.Tensor, sample_weight: tf.Tensor | None, rank: int) -> tf.Tensor:
    """The weight of each example, float32 [...]: ones by default. One for a row is that of each of its tokens.

    Args:
        labels: of `as_targets`.

    Raises:
        InputError: weights of another rank.
    """
    shape = tf.shape(labels)[:rank]
    if sample_weight is None:
        return tf.ones(shape)
    weights = tf.cast(sample_weight, tf.float32)
    if weights.shape.rank == rank + 1 and weights.shape[-1] == 1:
        weights = tf.squeeze(weights, -1)
    if weights.shape.rank == rank and not (rank == 2 and weights.shape[1] == 1 and labels.shape[1] != 1):
        return _of_shape(weights, shape, "sample weights")
    if rank == 2 and (weights.shape.rank == 1 or weights.shape.rank == 2):
        column = _of_shape(tf.reshape(weights, [-1, 1]), tf.stack([shape[0], 1]), "sample weights")
        return column * tf.ones(shape)
    expected = "[batch]" if rank == 1 else "[batch] or [batch, length]"
    raise InputError(
        f"expected sample weights of shape {expected}, got {weights.shape} for labels of shape {labels.shape[:rank]}; "
        "give one for each"
    )


def weighted_sum(
    loss: str | keras.Loss | Callable, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """The sum of a Keras loss, which is not reduced before it is weighted.

    Args:
        labels: ids [...] or a number for each class [..., C].
        outputs: [..., C].
        weights: float32 [...].

    Raises:
        InputError: a loss that does not take these labels, or that gives something else than a number an example.
    """
    elementwise = loss.call if isinstance(loss, keras.losses.Loss) else keras.losses.get(loss)
    name = getattr(loss, "name", None) or getattr(loss, "__name__", loss)
    try:
        losses = tf.convert_to_tensor(elementwise(labels, outputs))
    except ValueError as error:
        raise InputError(
            f"expected labels that the loss {name} takes beside outputs of shape {outputs.shape}, "
            f"got {labels.dtype.name} of shape {labels.shape} ({str(error).splitlines()[0]}); change one"
        ) from error
    if losses.shape.rank != weights.shape.rank or not losses.shape.is_compatible_with(weights.shape):
        raise InputError(
            f"expected a loss of each example, of shape {weights.shape}, got {losses.shape} from the loss {name} with "
            f"labels of shape {labels.shape}; do not reduce it over examples"
        )
    return tf.reduce_sum(losses * _of_shape(weights, tf.shape(losses), "weights of the losses"))


def _of_shape(tensor: tf.Tensor, shape: tf.Tensor, name: str) -> tf.Tensor:
    """The tensor, of which is made sure that a product with one of this shape is not of all pairs.

    XLA drops assertions, and TensorFlow a reshape of which it thinks that it changes nothing: hence both.
    """
    found = tf.shape(tensor)
    tf.debugging.assert_equal(found, shape, f"expected {name} of one shape with the labels")
    return tf.reshape(tensor, shape)
