"""JSON <-> tensors by the rules of TF Serving's REST API.

Source: https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md and util/json_tensor.cc.
A tensor type is named as TF names it: float, double, int32, string, bool, half, ...
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from kerasformer.serving.status import ServingError, invalid

_WHITESPACE = " \t\n\r"
_JSON_TYPES = {type(None): "Null", dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_SHOWN_CHARS = 256
_MAX_RANK = 64  # of a numpy array


def parse(body: bytes) -> dict[str, Any]:
    """Parse a request body; what follows the first JSON value is ignored, as TF Serving does.

    Bytes that are not UTF-8 become lone surrogates, which `from_columns` and `from_rows` turn back into the same bytes.
    """
    text = body.decode("utf-8-sig", "surrogateescape")
    start = len(text) - len(text.lstrip(_WHITESPACE))
    if start == len(text):
        raise invalid("JSON Parse error: The document is empty")
    try:
        document, _ = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise invalid("JSON Parse error: Number too big to be stored in double.") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: Nested too deeply.") from error
    if not isinstance(document, dict):
        raise malformed(document, "Is not object")
    return document


def malformed(value: Any, fault: str) -> ServingError:
    """The error of a JSON value, of which it shows the start."""
    return invalid(f"JSON Value: {_shown(value)} {fault}")


def json_type(value: Any) -> str:
    """The name that an error message gives to the type of a JSON value."""
    return str(value) if isinstance(value, bool) else _JSON_TYPES[type(value)]


def from_columns(value: Any, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Tensors of the `inputs` of a request: one value, or an object of input name -> value.

    Args:
        value: the JSON value.
        dtypes: input name -> tensor type; every one of them is required.
    """
    if not _is_object(value):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        value = dict.fromkeys(dtypes, value)
    for name in dtypes:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(value[name], dtype) for name, dtype in dtypes.items()}


def from_rows(instances: list[Any], dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Tensors of the `instances` of a request: a list of values, or of objects that name every input.

    Args:
        instances: one element or more; they become dimension 0.
        dtypes: input name -> tensor type.
    """
    named = _is_object(instances[0])
    if not named and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    stacks = {name: _Stack(dtype) for name, dtype in dtypes.items()}
    for index, instance in enumerate(instances):
        if _is_object(instance) != named:
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {index} of input list")
        for name, value in (instance if named else dict.fromkeys(dtypes, instance)).items():
            try:
                if name not in stacks:
                    raise invalid(f"JSON object: does not have named input: {name}")
                stacks[name].push(value)
            except ServingError as error:
                key = f" key: {name}" if named else ""
                raise invalid(f"Failed to process element: {index}{key} of 'instances' list. Error: {error}") from error
        if named and len(instance) != len(dtypes):
            fault = f"JSON object: {_shown(instance)} keys must be equal to: {','.join(dtypes)}"
            raise invalid(f"Failed to process element: {index} of 'instances' list. {fault}")
    return {name: stack.tensor() for name, stack in stacks.items()}


def to_columns(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The `outputs` of a response; the name of a single tensor is dropped."""
    return response("outputs", _object({name: _encode(name, tensor, 0)[0] for name, tensor in tensors.items()}))


def to_rows(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The `predictions` of a response: one element for each index of dimension 0, the same in every tensor."""
    batch_size = None
    for name, tensor in tensors.items():
        if tensor.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch_size not in (None, len(tensor)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(tensor)} expecting: {batch_size}")
        batch_size = len(tensor)
    columns = [_encode(name, tensor, 1) for name, tensor in tensors.items()]
    rows = [_object(dict(zip(tensors, row, strict=True))) for row in zip(*columns, strict=True)]
    return response("predictions", f"[{', '.join(rows)}]")


def response(key: str, text: str) -> bytes:
    """The body of a response: an object of one key and the JSON text of its value."""
    return f'{{"{key}": {text}}}\n'.encode("utf-8", "surrogateescape")


def nest(texts: list[str], shape: Sequence[int], outer: int) -> list[str]:
    """Join the JSON texts of a tensor's values into one for each index of its first `outer` dimensions."""
    for axis in range(len(shape) - 1, outer - 1, -1):
        size = shape[axis]
        starts = (index * size for index in range(math.prod(shape[:axis])))
        texts = [f"[{', '.join(texts[start : start + size])}]" for start in starts]
    return texts


def shape_string(shape: Sequence[int]) -> str:
    """A shape as error messages write it."""
    return f"[{','.join(map(str, shape))}]"


def decode_string(value: Any) -> bytes:
    """The bytes of a JSON string or of a `{"b64": ...}` object."""
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    if not is_base64(value):
        raise malformed(value, "not formatted correctly for base64 data")
    text = "".join(value["b64"].split())
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def is_base64(value: Any) -> bool:
    """Whether a JSON value is bytes: an object whose only key is `b64`."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def encode_string(value: bytes) -> str:
    """A JSON string of these bytes, UTF-8 or not: the client gets them as the model made them."""
    return json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)


def encode_floats(values: np.ndarray) -> list[str]:
    """Each number in six digits where they give it back exactly, else in all (9, or 17 for double)."""
    numbers = values.tolist()
    texts = [f"{number:g}" for number in numbers]
    lossy = np.fromiter(map(float, texts), values.dtype, len(texts)) != values
    digits = 9 if values.dtype == np.float32 else 17
    for index in np.flatnonzero(lossy).tolist():
        texts[index] = f"{numbers[index]:.{digits}g}"
    return [text if "." in text or "e" in text else _NON_FINITE.get(text) or text + ".0" for text in texts]


def _shown(value: Any) -> str:
    return "".join(islice(json.JSONEncoder().iterencode(value), _SHOWN_CHARS))[:_SHOWN_CHARS]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


class _Stack:
    """Values of one shape, gathered into a tensor that has one dimension more."""

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.leaves: list[Any] = []
        self.shape: list[int] = []
        self.count = 0

    def push(self, value: Any) -> None:
        shape = _shape(value)
        leaves = _leaves(value, shape, self.dtype)
        if self.count == 0:
            self.shape = shape
        if math.prod(shape) != math.prod(self.shape):
            raise invalid(f"Expecting tensor size: {math.prod(self.shape)} but got: {math.prod(shape)}")
        if shape != self.shape:
            raise invalid(f"Expecting shape {shape_string(self.shape)} but got: {shape_string(shape)}")
        self.leaves += leaves
        self.count += 1

    def tensor(self) -> np.ndarray:
        return _array(self.leaves, [self.count, *self.shape], self.dtype)


def _tensor(value: Any, dtype: str) -> np.ndarray:
    shape = _shape(value)
    return _array(_leaves(value, shape, dtype), shape, dtype)


def _shape(value: Any) -> list[int]:
    """The shape of nested lists, read off the first element of each."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _leaves(value: Any, shape: list[int], dtype: str) -> list[Any]:
    """The values of nested lists in order, once their shape and type are found to be these."""
    leaves = [value]
    for level, size in enumerate(shape):
        for item in leaves:
            if not isinstance(item, list):
                fault = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
                raise malformed(item, fault)
            if len(item) != size:
                fault = f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {size}"
                raise invalid(fault)
        leaves = list(chain.from_iterable(leaves))
    accepts = _ACCEPTS.get(dtype)
    for leaf in leaves:
        if isinstance(leaf, list):
            raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
        if accepts is None:
            raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {_shown(leaf)} to type: {dtype}")
        if not accepts(leaf):
            raise malformed(leaf, f"Type: {json_type(leaf)} is not of expected type: {dtype}")
    return [decode_string(leaf) for leaf in leaves] if dtype == "string" else leaves


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _integers_of(dtype: str) -> Callable[[Any], bool]:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return lambda value: type(value) is int and low <= value <= high


_ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "float": _is_number,
    "double": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str | dict),
    **{name: _integers_of(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")},
}


def _array(leaves: list[Any], shape: list[int], dtype: str) -> np.ndarray:
    if len(shape) > _MAX_RANK:
        raise invalid(f"Tensor has {len(shape)} dimensions, expected at most {_MAX_RANK}")
    numpy_dtype = {"float": np.float32, "double": np.float64, "string": object}.get(dtype, dtype)
    try:
        with np.errstate(over="ignore"):  # a double beyond float's range is infinite
            return np.array(leaves, numpy_dtype).reshape(shape)
    except OverflowError as error:
        raise invalid("JSON Parse error: Number too big to be stored in double.") from error


def _encode(name: str, tensor: np.ndarray, outer: int) -> list[str]:
    """JSON texts of a tensor, one for each index of its first `outer` dimensions."""
    return nest(_encode_values(name, tensor.reshape(-1)), tensor.shape, outer)


def _encode_values(name: str, values: np.ndarray) -> list[str]:
    match values.dtype.name:
        case "object" if name.endswith("_bytes"):
            return [f'{{"b64": "{base64.b64encode(value).decode()}"}}' for value in values]
        case "object":
            return [encode_string(value) for value in values]
        case "float32" | "float64":
            return encode_floats(values)
        case "bool" | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint32" | "uint64":
            return [json.dumps(value) for value in values.tolist()]
        case other:
            dtype = "half" if other == "float16" else other
            raise invalid(f"Failed to write JSON value for tensor type: {dtype}")


def _object(values: Mapping[str, str]) -> str:
    """A JSON object of JSON texts, or the text itself where there is only one."""
    if len(values) == 1:
        return next(iter(values.values()))
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in values.items()) + "}"
