"""Warm-up requests: what TF Serving runs before it takes a version into service, so that no user meets a cold model.

A TFRecord file of PredictionLog in the version folder (https://www.tensorflow.org/tfx/serving/saved_model_warmup). A
request that fails makes the load fail, so the file also turns a broken export into an error at the start.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from kerasformer.errors import InputError
from kerasformer.files import whole_file
from kerasformer.serving.session import DEFAULT_SIGNATURE

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000  # with one more, the server fails the load
_KINDS = {"predict_log", "classify_log", "regress_log", "multi_inference_log"}  # those that the server replays


def write(version_dir: Path, requests: Sequence[tuple[str, Mapping[str, np.ndarray]]], model_name: str) -> None:
    """Writes a version's warm-up file.

    Args:
        version_dir: the SavedModel's folder.
        requests: (signature name, {input name: value}) pairs, at most 1000.
        model_name: the name that the requests carry; a server replays them under any name.

    Raises:
        InputError: no such folder, too many requests, or a value that is no tensor.
    """
    version_dir = Path(version_dir)
    if not version_dir.is_dir():
        raise InputError(f"expected a SavedModel's folder to warm up, got {version_dir}: export the model first")
    if len(requests) > MAX_RECORDS:
        raise InputError(f"expected at most {MAX_RECORDS} warm-up requests, got {len(requests)}: keep the typical ones")
    records = [_record(signature, inputs, model_name) for signature, inputs in requests]
    path = version_dir / FILE
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for record in records:
            writer.write(record)


def read(version_dir: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The predict requests of a version's warm-up file; none when it has no file.

    Records for the classify, regress and multi-inference APIs, which a server replays as well, are left out.

    Raises:
        InputError: not a warm-up file, or one that makes the server fail the load.
    """
    path = Path(version_dir) / FILE
    if not path.is_file():
        return []
    try:
        records = list(tf.data.TFRecordDataset(str(path)).take(MAX_RECORDS + 1).as_numpy_iterator())
        logs = [PredictionLog.FromString(record) for record in records]
        requests = [_request(log.predict_log.request) for log in logs if log.HasField("predict_log")]
    except (tf.errors.DataLossError, DecodeError, TypeError, ValueError) as error:
        raise InputError(f"expected TFRecords of PredictionLog in {path}, got corrupt data: write it again") from error
    if len(logs) > MAX_RECORDS:
        raise InputError(f"expected at most {MAX_RECORDS} records in {path}, got more: keep the typical ones")
    unknown = {log.WhichOneof("log_type") for log in logs} - _KINDS
    if unknown:
        raise InputError(f"expected predict requests in {path}, got {unknown.pop() or 'no request'}: write it again")
    return requests


def _record(signature: str, inputs: Mapping[str, np.ndarray], model_name: str) -> bytes:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        try:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        except (TypeError, ValueError) as error:
            raise InputError(f"expected an array for warm-up input {name!r}, got {value!r}: pass numpy") from error
    return log.SerializeToString()


def _request(request: PredictRequest) -> tuple[str, dict[str, np.ndarray]]:
    inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
    return request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs
