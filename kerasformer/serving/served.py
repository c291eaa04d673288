"""What is exported of a model: a float32 copy behind its tokenizer, and the signatures that clients call."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.models.base import Model
from kerasformer.models.head import Head

Requests = list[tuple[str, dict[str, np.ndarray]]]  # of a signature, its inputs by name


class Served(ABC):
    """A task's model as it is served.

    Args:
        model: with a tokenizer.
        copy: the same weights in a model that computes in float32, without what training added to it.
    """

    task: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()  # that its constructor takes

    def __init__(self, model: Head, copy: Head):
        if model.tokenizer is None:
            raise InputError(
                "expected a model with a tokenizer, got one without; "
                f"load it with {type(model).__name__}.from_pretrained"
            )
        self.model = copy
        copy.set_weights(model.get_weights())
        self.tokenizer = model.tokenizer.in_graph()
        # Of a Keras model, a SavedModel holds each weight in a copy that the server does not restore. So the state of
        # what is exported is TensorFlow's own variables, without the model that they belong to.
        self.state = tf.Module()
        self.state.weights = [weight.value for weight in copy.weights]
        self.state.tokenizer = self.tokenizer

    @abstractmethod
    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The concrete functions by the names that clients call them by."""

    @abstractmethod
    def warmup_requests(self) -> Requests:
        """Requests for each signature, of the kind that clients send."""

    @abstractmethod
    def description(self) -> dict:
        """What the manifest says of the task, and of each signature's `inputs` and `outputs`."""

    def save(self, folder: Path) -> None:
        """Writes the SavedModel."""
        tf.saved_model.save(self.state, str(folder), signatures=self.signatures())


def backbone_in_float32(model: Head) -> Model:
    """A backbone of the same shape that computes in float32."""
    return type(model.backbone)(model.backbone.config, dtype="float32")


def traced(serve: Callable, *specs: tf.TensorSpec, **named: tf.TensorSpec) -> tf.types.experimental.ConcreteFunction:
    """A signature: the graph of a function, for inputs of any size that the specs allow."""
    return tf.function(serve, autograph=False).get_concrete_function(*specs, **named)


def check_shapes(rank: int, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The inputs of a request, which fails with INVALID_ARGUMENT unless they have one shape of so many dimensions.

    A server runs a graph with whatever shapes come, and its operations may well take them.
    """
    shaped = {name: tf.ensure_shape(tensor, [None] * rank) for name, tensor in inputs.items()}
    names = ", ".join(shaped)
    first, *others = shapes = [tf.shape(tensor) for tensor in shaped.values()]
    if not others:
        return shaped
    is_alike = tf.reduce_all([tf.reduce_all(shape == first) for shape in others])
    with tf.control_dependencies([tf.debugging.Assert(is_alike, [f"expected one shape of {names}, got", *shapes])]):
        return {name: tf.identity(tensor) for name, tensor in shaped.items()}


def check_range(name: str, values: tf.Tensor, low: int, high: int) -> tf.Tensor:
    """Integers of a request, which fails with INVALID_ARGUMENT where one is not from `low` to `high`.

    What looks them up may not tell: a GPU gives zeros for what is beyond a table, and negative ones count from its end.
    """
    least, most = tf.reduce_min(values), tf.reduce_max(values)
    is_within = (tf.size(values) == 0) | ((least >= low) & (most <= high))
    message = [f"expected {name} from {low} to {high}, got", least, "to", most]
    with tf.control_dependencies([tf.debugging.Assert(is_within, message)]):
        return tf.identity(values)
