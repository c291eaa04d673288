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


def graph_of(version: Path) -> tf.compat.v1.GraphDef:
    [graph] = SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs
    return graph.graph_def


def nodes_of(graph: tf.compat.v1.GraphDef) -> list[tf.compat.v1.NodeDef]:
    """The operations of a graph and its functions; what is named after one of these calls it, and is none."""
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return [node for node in nodes if node.op not in functions]


def ops_of(version: Path) -> set[str]:
    """The names of all operations of an exported model."""
    return {node.op for node in nodes_of(graph_of(version))}


def strings(texts) -> np.ndarray:
    return np.array([text.encode() for text in texts], object)
