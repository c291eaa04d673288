"""A SavedModel in a session with XLA off: how TF Serving loads it, and so what its verdict on a model is."""

import contextlib
import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def disable_xla() -> bool:
    """Switches XLA compilation off in this process, as TF Serving does; False where this build hides the switch.

    Source: tensorflow_serving/model_servers/main.cc, `DisableXlaCompilation`.
    """
    suffix = "2.dylib" if sys.platform == "darwin" else "so.2"
    try:
        library = ctypes.CDLL(str(Path(tf.sysconfig.get_lib(), f"libtensorflow_cc.{suffix}")))
        library._ZN10tensorflow21DisableXlaCompilationEv()
    except (OSError, AttributeError):
        return False
    return True


def with_defaults(signature: SignatureDef, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a signature, those that are not given by their defaults."""
    return {name: tf.make_ndarray(value) for name, value in signature.defaults.items()} | dict(inputs)


def load(version_dir: Path) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
    """Loads the graph tagged "serve" into a session of its own.

    Raises:
        tf.errors.OpError, RuntimeError, ValueError: it does not load.
    """
    with contextlib.suppress(ImportError):
        import tensorflow_text  # noqa: F401  registers the ops of TF Text, which TF Serving links
    with tf.Graph().as_default():
        session = tf.compat.v1.Session()
        return session, tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(version_dir))
