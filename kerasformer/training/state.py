"""The state of a training as arrays with names, and the files that hold it.

A name is a variable's path without the numbers that Keras counts up within a process, so that it is the same in each.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file

from kerasformer.errors import InputError

CHUNK = 2**24  # bytes
# Those of safetensors (github.com/huggingface/safetensors) that variables have.
TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"}
TYPES |= {f"{sign}int{bits}": f"{sign or 'i'}{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)}

Variables = Mapping[str, keras.Variable]


def variables_of(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables that a training goes on from: the model's, random seeds among them, and the optimizer's."""
    names = {variable.path: _plain(variable.path) for variable in model.variables}
    prefixes = {f"{path.replace('/', '_')}_": name for path, name in names.items()}

    def of_optimizer(variable: keras.Variable) -> str:
        known = [prefix for prefix in prefixes if variable.name.startswith(prefix)]
        if not known:
            return f"optimizer/{variable.name}"
        longest = max(known, key=len)
        return f"optimizer/{prefixes[longest]}/{variable.name.removeprefix(longest)}"

    named = [(f"model/{names[variable.path]}", variable) for variable in model.variables]
    return _numbered([*named, *((of_optimizer(variable), variable) for variable in model.optimizer.variables)])


def metrics_of(model: keras.Model) -> dict[str, keras.Variable]:
    """The running means of an epoch."""
    return _numbered((f"metrics/{_plain(variable.path)}", variable) for variable in model.metrics_variables)


def read(variables: Variables) -> dict[str, np.ndarray]:
    """Copies of their values; of a mean that each replica has a part of, the whole."""
    return {name: np.asarray(tf.convert_to_tensor(variable.value).numpy()) for name, variable in variables.items()}


def assign(variables: Variables, values: Mapping[str, np.ndarray], what: str) -> None:
    """Gives variables their values.

    Raises:
        InputError: `what` has other names or shapes; nothing is assigned.
    """
    ours = {name: (tuple(variable.shape), variable.dtype) for name, variable in variables.items()}
    theirs = {name: (value.shape, str(value.dtype)) for name, value in values.items()}
    if ours != theirs:
        name = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))[0]
        raise InputError(
            f"expected {name} as {ours.get(name, 'no variable')}, got {theirs.get(name, 'none')} in {what}; "
            "restore it into the model and optimizer that it was made of"
        )
    for name, variable in variables.items():
        variable.assign(values[name])


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes a safetensors file; returns its SHA-256. Unlike the library it says why a file cannot be written."""
    header, offset = {}, 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {"dtype": TYPES[str(array.dtype)], "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    total = hashlib.sha256()
    with file.open("wb") as out:
        for data in (len(text).to_bytes(8, "little"), text, *(_bytes(array) for array in arrays.values())):
            for start in range(0, len(data), CHUNK):
                total.update(data[start : start + CHUNK])
                out.write(data[start : start + CHUNK])
    return total.hexdigest()


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote."""
    return load_file(file)


def sha256(file: Path) -> str:
    """Of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _plain(path: str) -> str:
    """A path without the number of the model or generator at its start."""
    first, slash, rest = path.partition("/")
    return re.sub(r"_\d+$", "", first) + slash + rest


def _numbered(named: Iterable[tuple[str, keras.Variable]]) -> dict[str, keras.Variable]:
    """Names of which each is there once: the second one of a name gets a number."""
    found: dict[str, keras.Variable] = {}
    for name, variable in named:
        number = 1
        while (unique := name if number == 1 else f"{name}#{number}") in found:
            number += 1
        found[unique] = variable
    return found
