"""A SavedModel in a session with XLA off: how TF Serving loads it, and so what its verdict on a model is."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
_PREAMBLE = ("Graph execution error", "Detected at node", "Node:")


def disable_xla() -> bool:
    """Switches XLA compilation off in this process, as TF Serving does; False where this build hides the switch.

    Source: tensorflow_serving/model_servers/main.cc, `DisableXlaCompilation`.
    """
    return _call("_ZN10tensorflow21DisableXlaCompilationEv")


def enable_xla() -> bool:
    """Switches XLA compilation on again; False where this build hides the switch."""
    return _call("_ZN10tensorflow20EnableXlaCompilationEv")


def _call(symbol: str) -> bool:
    """Calls a C++ function without arguments; False where TensorFlow's library does not export it."""
    suffix = "2.dylib" if sys.platform == "darwin" else "so.2"
    try:
        library = ctypes.CDLL(str(Path(tf.sysconfig.get_lib(), f"libtensorflow_cc.{suffix}")))
        getattr(library, symbol)()
    except (OSError, AttributeError):
        return False
    return True


def with_defaults(signature: SignatureDef, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a signature, those that are not given by their defaults."""
    return {name: tf.make_ndarray(value) for name, value in signature.defaults.items()} | dict(inputs)


def reason(message: str) -> str:
    """The line of an error's message that tells the cause."""
    lines = [line.strip() for line in message.splitlines()]
    return next((line for line in lines if line and not line.startswith(_PREAMBLE)), "no message")


def load(version_dir: Path) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
    """Loads the graph tagged "serve" into a session of its own.

    Raises:
        tf.errors.OpError, RuntimeError, ValueError: it does not load.
    """
    with contextlib.suppress(ImportError):
        import tensorflow_text  # noqa: F401  registers the ops of TF Text, which TF Serving links
    with tf.Graph().as_default(), _without_warnings(), contextlib.ExitStack() as on_error:
        session = on_error.enter_context(contextlib.closing(tf.compat.v1.Session()))
        graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(version_dir))
        on_error.pop_all()
        return session, graph


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps TensorFlow from warning that this loader is deprecated, which TF Serving runs on."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
