"""Classify and Regress of TF Serving's REST API: JSON features -> serialized tf.Example, results -> JSON.

Source: tensorflow_serving/util/json_tensor.cc, servables/tensorflow/classifier.cc and regressor.cc.
B is the number of examples, C the number of classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from kerasformer.serving import json_tensor
from kerasformer.serving.status import invalid

_INPUT = "inputs"
_KINDS = {bool: "int64", int: "int64", float: "float", str: "bytes", dict: "bytes"}


def from_examples(document: dict[str, Any]) -> dict[str, np.ndarray]:
    """The input of a classify or regress signature: serialized examples (B), the shared context in each."""
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        fault = "When method is classify, key 'examples' is expected and was not found"
        raise json_tensor.malformed(document, fault)
    examples = document["examples"]
    if not isinstance(examples, list):
        raise json_tensor.malformed(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise json_tensor.malformed(document, "'examples' value is an empty array")
    return {_INPUT: np.array([context + _example(example) for example in examples], object)}


def check_classify(signature: meta_graph_pb2.SignatureDef) -> None:
    """Raise unless the signature maps `inputs` to `classes`, `scores` or both."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUT not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature}")
    if not signature.outputs.keys() & {"classes", "scores"}:
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )


def check_regress(signature: meta_graph_pb2.SignatureDef) -> None:
    """Raise unless the signature maps `inputs` to `outputs`."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if _INPUT not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature}")


def to_classifications(outputs: Mapping[str, np.ndarray], batch_size: int) -> bytes:
    """The `results` of a classify call: for each example, a list of [label, score] (B, C, 2)."""
    for name, dtype in (("classes", "DT_STRING"), ("scores", "DT_FLOAT")):
        if name in outputs:
            _check_classes(name, outputs[name], dtype, batch_size)
    shape = outputs["classes" if "classes" in outputs else "scores"].shape  # (B, C)
    classes = outputs.get("classes", np.full(shape, b"", object))
    scores = outputs.get("scores", np.zeros(shape, np.float32))
    if classes.shape != scores.shape:
        sizes = f"{classes.shape[1]} vs. {scores.shape[1]}"
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {sizes}")
    pairs = zip(classes.reshape(-1), json_tensor.encode_floats(scores.reshape(-1)), strict=True)
    texts = [f"[{json_tensor.encode_string(label)}, {score}]" for label, score in pairs]
    return json_tensor.response("results", json_tensor.nest(texts, shape, 0)[0])


def _check_classes(name: str, tensor: np.ndarray, dtype: str, batch_size: int) -> None:
    if tensor.ndim != 2:
        shape = json_tensor.shape_string(tensor.shape)
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape}")
    if _dtype_name(tensor) != dtype:
        raise invalid(f"Expected {name} Tensor of {dtype}. Got: {_dtype_name(tensor)}")
    if len(tensor) != batch_size:
        raise invalid(f"Expected {name} output batch size of {batch_size}. Got: {len(tensor)}")


def to_regressions(outputs: Mapping[str, np.ndarray], batch_size: int) -> bytes:
    """The `results` of a regress call: one number for each example."""
    values = outputs["outputs"]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        shape = json_tensor.shape_string(values.shape)
        raise invalid(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape}")
    if len(values) != batch_size:
        raise invalid(f"Input batch size did not match output batch size: {batch_size} vs. {len(values)}")
    if _dtype_name(values) != "DT_FLOAT":
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype_name(values)}")
    return json_tensor.response("results", f"[{', '.join(json_tensor.encode_floats(values.reshape(-1)))}]")


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_tensor.json_type(value)}")
    features = {name: _feature(name, content) for name, content in value.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _feature(name: str, content: Any) -> tf.train.Feature:
    values = content if isinstance(content, list) else [content]
    for value in values:
        if type(value) not in _KINDS or (isinstance(value, dict) and not json_tensor.is_base64(value)):
            raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_tensor.json_type(value)}")
        if _KINDS[type(value)] != _KINDS[type(values[0])]:
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[type(values[0])]}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if not values:
        return tf.train.Feature()
    kind = _KINDS[type(values[0])]
    convert = {"bytes": json_tensor.decode_string, "float": float, "int64": int}[kind]
    return tf.train.Feature(**{f"{kind}_list": {"value": map(convert, values)}})


def _dtype_name(tensor: np.ndarray) -> str:
    return types_pb2.DataType.Name(tf.as_dtype(tensor.dtype).as_datatype_enum)
