"""TF Serving's REST API, apart from HTTP: method, URL and body in, status and body out.

Source: https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md and
model_servers/http_rest_api_util.cc.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np
from google.protobuf.json_format import MessageToDict
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from kerasformer.serving import examples, json_tensor
from kerasformer.serving.servables import ModelSpec, Servables, Version
from kerasformer.serving.session import DEFAULT_SIGNATURE
from kerasformer.serving.status import HTTP_STATUS, ServingError, invalid

_FLAGS = re.ASCII | re.IGNORECASE
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>classify|regress|predict)", _FLAGS)
_MODEL = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<part>metadata))?", _FLAGS)
_MAX_VERSION = 2**63 - 1

_log = logging.getLogger(__name__)


class RestApi:
    """Answers the calls of the REST API.

    Args:
        servables: the models to serve.
    """

    def __init__(self, servables: Servables):
        self._servables = servables
        self._calls = {"predict": self._predict, "classify": self._classify, "regress": self._regress}

    def respond(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Answer one request.

        Args:
            method: the HTTP method.
            target: path and query of the URL, not decoded.
            body: of the request, not compressed.

        Returns:
            The HTTP status and a JSON body.
        """
        try:
            return 200, self._dispatch(method, target, body)
        except ServingError as error:
            return HTTP_STATUS[error.code], error_body(error.message)
        except Exception:
            _log.exception("%s %s failed", method, target)
            return 500, error_body("Internal error: the server's log has the details")

    def _dispatch(self, method: str, target: str, body: bytes) -> bytes:
        if not target.lower().startswith("/v1/"):
            raise ServingError("NOT_FOUND", f"Not found: {target} (models are under /v1/models/)")
        if method == "POST" and (url := _CALL.fullmatch(target)) and url["verb"] in self._calls:
            return self._calls[url["verb"]](_model_of(url), json_tensor.parse(body))
        if method == "GET" and (url := _MODEL.fullmatch(target)):
            model = _model_of(url)
            if not model.name:
                raise invalid("Missing model name in request.")
            return self._metadata(model) if url["part"] == "metadata" else self._status(model)
        raise invalid(f"Malformed request: {method} {target}")

    def _predict(self, model: ModelSpec, document: dict[str, Any]) -> bytes:
        signature_name = _signature_name(document)
        with self._servables.use(model) as servable:
            if signature_name not in servable.signatures:
                raise invalid(f'Serving signature name: "{signature_name}" not found in signature def')
            dtypes = _dtypes(servable.signatures[signature_name].inputs)
            if not dtypes:
                raise invalid(f"Failed to get input map for signature: {document.get('signature_name') or 'DEFAULT'}")
            if "instances" in document:
                tensors = json_tensor.from_rows(_instances(document), dtypes)
                return json_tensor.to_rows(servable.run(signature_name, tensors))
            if "inputs" in document:
                tensors = json_tensor.from_columns(document["inputs"], dtypes)
                return json_tensor.to_columns(servable.run(signature_name, tensors))
        raise invalid("Missing 'inputs' or 'instances' key")

    def _classify(self, model: ModelSpec, document: dict[str, Any]) -> bytes:
        outputs, batch_size = self._run_examples(model, document, examples.check_classify)
        return examples.to_classifications(outputs, batch_size)

    def _regress(self, model: ModelSpec, document: dict[str, Any]) -> bytes:
        outputs, batch_size = self._run_examples(model, document, examples.check_regress)
        return examples.to_regressions(outputs, batch_size)

    def _run_examples(
        self, model: ModelSpec, document: dict[str, Any], check: Callable[[SignatureDef], None]
    ) -> tuple[dict[str, np.ndarray], int]:
        signature_name = _signature_name(document)
        inputs = examples.from_examples(document)
        with self._servables.use(model) as servable:
            if signature_name not in servable.signatures:
                raise invalid(f"No signature was found with the name: {signature_name}")
            check(servable.signatures[signature_name])
            return servable.run(signature_name, inputs), len(inputs["inputs"])

    def _status(self, model: ModelSpec) -> bytes:
        versions = self._servables.versions(model)
        return _json({"model_version_status": [_version_status(version) for version in versions]})

    def _metadata(self, model: ModelSpec) -> bytes:
        with self._servables.use(model) as servable:
            version, definitions = servable.version, servable.signatures
        signatures = {
            name: MessageToDict(signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, signature in definitions.items()
        }
        return _json(
            {
                "model_spec": {"name": model.name, "signature_name": "", "version": str(version)},
                "metadata": {"signature_def": {"signature_def": signatures}},
            }
        )


def error_body(message: str) -> bytes:
    """The body of a response that is not 200."""
    return _json({"error": message})


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _model_of(url: re.Match) -> ModelSpec:
    name, version, label = (text and unquote(text) for text in url.group("name", "version", "label"))
    if version and (len(version) > len(str(_MAX_VERSION)) or int(version) > _MAX_VERSION):
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return ModelSpec(name, version and int(version), label)


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise json_tensor.malformed(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name or DEFAULT_SIGNATURE


def _instances(document: dict[str, Any]) -> list[Any]:
    instances = document["instances"]
    if "inputs" in document:
        fault = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise json_tensor.malformed(document, fault)
    if not isinstance(instances, list):
        raise json_tensor.malformed(document, "Expecting 'instances' to be an list/array")
    if not instances:
        raise json_tensor.malformed(document, "No values in 'instances' array")
    return instances


def _dtypes(inputs: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Input name -> tensor type as TF names it, in order of name."""
    return {name: types_pb2.DataType.Name(inputs[name].dtype).removeprefix("DT_").lower() for name in sorted(inputs)}


def _version_status(version: Version) -> dict[str, Any]:
    code, message = (version.error.code, version.error.message) if version.error else ("OK", "")
    return {
        "version": str(version.number),
        "state": version.state,
        "status": {"error_code": code, "error_message": message},
    }
