"""The models of a folder, loaded and run as TF Serving does it: a session of the SavedModel's graph, XLA disabled."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, error_codes_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from kerasformer.serving import warmup
from kerasformer.serving.session import disable_xla, enable_xla, load, with_defaults
from kerasformer.serving.status import ServingError, invalid
from kerasformer.serving.versions import files_of

RUN_TIMEOUT_MS = 30_000  # TF Serving's --rest_api_timeout_in_ms

_log = logging.getLogger(__name__)


class Servable:
    """One loaded version of a model.

    Args:
        path: the version directory.

    Raises:
        ServingError: the SavedModel does not load, a request of its warm-up file fails, or its files change meanwhile.
    """

    def __init__(self, path: Path):
        self.files = files_of(path)
        with _as_serving_error():
            self._session, meta_graph = load(path)
        self.version = int(path.name)
        self.signatures: Mapping[str, SignatureDef] = meta_graph.signature_def
        self._callables: dict[str, Callable[..., list[Any]]] = {}
        try:
            for signature_name, inputs in warmup.read(path):
                self.run(signature_name, inputs)
            if files_of(path) != self.files:
                raise ServingError("UNAVAILABLE", f"the files of {path} changed while they were loaded")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the memory of the model, which cannot run any more."""
        self._callables.clear()
        self._session.close()

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


@dataclass
class Version:
    """A version of a model that this process serves, has served, or has tried to.

    Args:
        state: START, LOADING, AVAILABLE, UNLOADING or END, as TF Serving names them.
        servable: what answers, from AVAILABLE on until UNLOADING is over.
        error: what kept it from loading.
        requests: how many are under way.
    """

    number: int
    state: str = "START"
    servable: Servable | None = None
    error: ServingError | None = None
    requests: int = 0


class Servables:
    """The versions of the models that this process serves; they may be called, loaded and unloaded in any thread.

    Args:
        xla: leave XLA on, which is switched for the whole process, for what else runs in it. TF Serving has it off.
    """

    def __init__(self, *, xla: bool = False):
        self._disabled_xla = not xla and disable_xla()
        if not self._disabled_xla:
            _log.warning(
                "XLA stays on here, where TF Serving has it off: `kerasformer check` finds models that need it"
            )
        self._models: dict[str, dict[int, Version]] = {}
        self._lock = threading.Lock()  # of what the versions are; never held while one loads, runs or closes

    def load(self, name: str, path: Path) -> Version:
        """Load a version of a model and put it into service, in the place of one of its number.

        One that fails is kept with its error, unless one of its number is in service, which stays.

        Args:
            name: of the model.
            path: the version directory.
        """
        version = Version(int(path.name))
        before = self._put(name, version, "LOADING")
        try:
            version.servable = Servable(path)
        except ServingError as error:
            version.error = ServingError(error.code, error.message)  # without the stack, which holds the session
        except Exception as error:  # whatever a broken SavedModel makes the loader raise
            version.error = ServingError("UNKNOWN", str(error))
        self._put(name, version, "END" if version.error else "AVAILABLE")
        if before and not version.error:
            self._retire(before)
        return version

    def _put(self, name: str, version: Version, state: str) -> Version | None:
        """Gives a version its state and, unless another of its number is in service, its place; returns that other."""
        with self._lock:
            version.state = state
            versions = self._models.setdefault(name, {})
            before = versions.get(version.number)
            in_service = before is not None and before is not version and before.state == "AVAILABLE"
            if not in_service or state == "AVAILABLE":
                versions[version.number] = version
            return before if in_service else None

    def unload(self, name: str, number: int) -> None:
        """Take a version out of service, and free it once its requests are done."""
        with self._lock:
            version = self._models.get(name, {}).get(number)
        if version is not None:
            self._retire(version)

    def close(self) -> None:
        """Unload every version, and switch XLA on again if it was switched off here."""
        for name in self.names():
            for number in self.in_service(name):
                self.unload(name, number)
        if self._disabled_xla:
            enable_xla()

    def _retire(self, version: Version) -> None:
        with self._lock:
            if version.state == "AVAILABLE":
                version.state = "UNLOADING"
        self._close_if_idle(version)

    def _close_if_idle(self, version: Version) -> None:
        with self._lock:
            if version.state != "UNLOADING" or version.requests or version.servable is None:
                return
            servable, version.servable = version.servable, None
        servable.close()
        with self._lock:
            version.state = "END"

    @contextlib.contextmanager
    def use(self, model: ModelSpec) -> Iterator[Servable]:
        """The version asked for, or the newest that is available; it is not freed before the block ends.

        Raises:
            ServingError: it is not available; or a label is given, which this server assigns to no version.
        """
        if model.label:
            raise invalid(f"Unrecognized servable version label: {model.label}")
        with self._lock:
            versions = self._models.get(model.name, {})
            available = {number: version for number, version in versions.items() if version.state == "AVAILABLE"}
            number = max(available, default=None) if model.version is None else model.version
            if number not in available:
                request = f"Latest({model.name})" if model.version is None else f"Specific({model.name}, {number})"
                raise ServingError("NOT_FOUND", f"Servable not found for request: {request}")
            version = available[number]
            version.requests += 1
        try:
            yield version.servable
        finally:
            with self._lock:
                version.requests -= 1
            self._close_if_idle(version)

    def names(self) -> list[str]:
        """The models of which a version has been loaded, or tried to."""
        with self._lock:
            return sorted(self._models)

    def in_service(self, name: str) -> dict[int, Servable]:
        """The available versions of a model, by their numbers."""
        with self._lock:
            versions = self._models.get(name, {}).values()
            return {version.number: version.servable for version in versions if version.state == "AVAILABLE"}

    def versions(self, model: ModelSpec) -> list[Version]:
        """What is known now of the version asked for, or of every one of the model, newest first.

        Raises:
            ServingError: there is none.
        """
        with self._lock:
            versions = {number: replace(version) for number, version in self._models.get(model.name, {}).items()}
        if model.version is None:
            if not versions:
                raise ServingError("NOT_FOUND", f"Could not find any versions of model {model.name}")
            return [versions[number] for number in sorted(versions, reverse=True)]
        if model.version not in versions:
            raise ServingError("NOT_FOUND", f"Could not find version {model.version} of model {model.name}")
        return [versions[model.version]]
