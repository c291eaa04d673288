"""Calls the signatures of an exported model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kerasformer.serving.session import load

Call = Callable[..., dict[str, np.ndarray]]


def in_python(version: Path) -> Call:
    """Calls signatures through `tf.saved_model.load`."""
    signatures = tf.saved_model.load(version).signatures

    def call(signature: str, **inputs) -> dict[str, np.ndarray]:
        outputs = signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return call


def in_session(version: Path) -> Call:
    """Calls signatures through a session, as TF Serving does."""
    session, graph = load(version)

    def call(signature: str, **inputs) -> dict[str, np.ndarray]:
        tensors = graph.signature_def[signature]
        feeds = {tensors.inputs[name].name: value for name, value in inputs.items()}
        return session.run({name: info.name for name, info in tensors.outputs.items()}, feeds)

    return call


def ops_of(version: Path) -> set[str]:
    """The names of all operations of the graph and its functions."""
    [graph] = SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs
    nodes = [*graph.graph_def.node, *(node for f in graph.graph_def.library.function for node in f.node_def)]
    return {node.op for node in nodes}


def strings(texts) -> np.ndarray:
    return np.array([text.encode() for text in texts], object)
