"""The models of a folder, loaded and run as TF Serving does it: a session of the SavedModel's graph, XLA disabled."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, error_codes_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from kerasformer.errors import InputError
from kerasformer.serving import warmup
from kerasformer.serving.session import disable_xla, load, with_defaults
from kerasformer.serving.status import ServingError, invalid
from kerasformer.serving.versions import newest

RUN_TIMEOUT_MS = 30_000  # TF Serving's --rest_api_timeout_in_ms

_log = logging.getLogger(__name__)


def find_models(folder: Path) -> dict[str, Path]:
    """Find the newest version of each model in a folder.

    Args:
        folder: holds `<model>/<integer version>/`, as TF Serving expects.

    Returns:
        Model name -> version directory, in order of name.

    Raises:
        InputError: the folder is missing, or has no model.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of models, found none at {folder}: export a model there first")
    models = {model.name: version for model in sorted(folder.iterdir()) if (version := newest(model))}
    if not models:
        raise InputError(
            f"expected {folder}/<model>/<integer version>/saved_model.pb, found no such model: export one there, "
            "or name the folder above it"
        )
    return models


class Servable:
    """One loaded version of a model.

    Args:
        path: the version directory.

    Raises:
        ServingError: the SavedModel does not load, or a request of its warm-up file fails.
    """

    def __init__(self, path: Path):
        with _as_serving_error():
            self._session, meta_graph = load(path)
        self.version = int(path.name)
        self.signatures: Mapping[str, SignatureDef] = meta_graph.signature_def
        self._callables: dict[str, Callable[..., list[Any]]] = {}
        for signature_name, inputs in warmup.read(path):
            self.run(signature_name, inputs)

    def run(self, signature_name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a signature of the model.

        Args:
            signature_name: a key of `signatures`.
            inputs: input name -> tensor, for every input without a default; strings are bytes in an object array.

        Returns:
            Output name -> tensor, in order of name.

        Raises:
            ServingError: with the status of the TensorFlow runtime.
        """
        if signature_name not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{signature_name}" not found.')
        signature = self.signatures[signature_name]
        inputs = with_defaults(signature, inputs)
        if inputs.keys() != signature.inputs.keys():
            raise invalid(_size_mismatch(inputs.keys(), signature.inputs.keys()))
        names = sorted(signature.outputs)
        with _as_serving_error():
            if signature_name not in self._callables:
                self._callables[signature_name] = self._make_callable(signature, names)
            values = self._callables[signature_name](*(inputs[name] for name in sorted(inputs)))
        # A scalar comes back as a Python value, and bytes would lose their trailing NULs in an array of their own type.
        arrays = (np.asarray(value, object if isinstance(value, bytes) else None) for value in values)
        return dict(zip(names, arrays, strict=True))

    def _make_callable(self, signature: SignatureDef, outputs: list[str]) -> Callable[..., list[Any]]:
        # Unlike `Session.run`, it checks no shape in Python, adds no Python stack to an error, and costs a fifth.
        options = config_pb2.CallableOptions(
            feed=[signature.inputs[name].name for name in sorted(signature.inputs)],
            fetch=[signature.outputs[name].name for name in outputs],
            run_options=config_pb2.RunOptions(timeout_in_ms=RUN_TIMEOUT_MS),
        )
        return self._session._make_callable_from_options(options)


@contextlib.contextmanager
def _as_serving_error() -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(error_codes_pb2.Code.Name(error.error_code), error.message) from error


def _size_mismatch(sent: Set[str], expected: Set[str]) -> str:
    def names(keys: Set[str]) -> str:
        return "{" + ",".join(sorted(keys)) + "}"

    return (
        f"input size does not match signature: {len(sent)}!={len(expected)} len({names(sent)}) != "
        f"len({names(expected)}). Sent extra: {names(sent - expected)}. "
        f"Missing but required: {names(expected - sent)}."
    )


class ModelSpec(NamedTuple):
    """What a call asks for: a model, and its newest version where none is given."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Version:
    """A version of a model: its servable, or the error that kept it from loading."""

    number: int
    servable: Servable | None = None
    error: ServingError | None = None


class Servables:
    """The versions of the models that this process serves."""

    def __init__(self):
        if not disable_xla():
            _log.warning(
                "XLA stays on here, where TF Serving has it off: `kerasformer check` finds models that need it"
            )
        self._models: dict[str, dict[int, Version]] = {}

    def load(self, name: str, path: Path) -> Version:
        """Load a version of a model; one that fails is kept with its error.

        Args:
            name: of the model.
            path: the version directory.
        """
        number = int(path.name)
        try:
            version = Version(number, servable=Servable(path))
        except ServingError as error:
            version = Version(number, error=error)
        except Exception as error:  # whatever a broken SavedModel makes the loader raise
            version = Version(number, error=ServingError("UNKNOWN", str(error)))
        self._models.setdefault(name, {})[number] = version
        return version

    def get(self, model: ModelSpec) -> Servable:
        """The version asked for, or the newest, if it is available.

        Raises:
            ServingError: it is not; or a label is given, which this server assigns to no version.
        """
        if model.label:
            raise invalid(f"Unrecognized servable version label: {model.label}")
        available = {v.number: v.servable for v in self._models.get(model.name, {}).values() if v.servable}
        number = max(available, default=None) if model.version is None else model.version
        if number not in available:
            request = f"Latest({model.name})" if model.version is None else f"Specific({model.name}, {number})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {request}")
        return available[number]

    def versions(self, model: ModelSpec) -> list[Version]:
        """The version asked for, or every known one of the model, newest first.

        Raises:
            ServingError: there is none.
        """
        versions = self._models.get(model.name, {})
        if model.version is None:
            if not versions:
                raise ServingError("NOT_FOUND", f"Could not find any versions of model {model.name}")
            return [versions[number] for number in sorted(versions, reverse=True)]
        if model.version not in versions:
            raise ServingError("NOT_FOUND", f"Could not find version {model.version} of model {model.name}")
        return [versions[model.version]]
