"""Warm-up files: what is written is read back, and what a server would choke on is refused."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from kerasformer.errors import InputError
from kerasformer.serving import warmup

NUMBERS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.bool_]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
)
STRINGS = st.lists(st.binary(), max_size=4).map(lambda values: np.array(values, dtype=object))
REQUESTS = st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), NUMBERS | STRINGS)), max_size=3)


@settings(deadline=None, max_examples=50)
@given(requests=REQUESTS)
def test_what_is_written_is_read_back(tmp_path_factory, requests):
    folder = tmp_path_factory.mktemp("version")
    warmup.write(folder, requests, "news")
    replayed = warmup.read(folder)
    assert [signature for signature, _ in replayed] == [signature for signature, _ in requests]
    for (_, got), (_, want) in zip(replayed, requests, strict=True):
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert got[name].dtype == value.dtype
            np.testing.assert_array_equal(got[name], value)


def test_the_file_is_where_and_what_the_server_reads(tmp_path):
    warmup.write(tmp_path, [("serving_default", {"text": np.array(["héllo"])})], "news")
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    request = PredictionLog.FromString(record).predict_log.request
    assert request.model_spec.name == "news"
    assert request.model_spec.signature_name == "serving_default"
    assert request.inputs["text"].dtype == tf.string.as_datatype_enum
    assert list(request.inputs["text"].string_val) == ["héllo".encode()]


def test_no_file_is_no_request(tmp_path):
    assert warmup.read(tmp_path) == []


def test_other_apis_are_left_out(tmp_path):
    log = PredictionLog()
    log.classify_log.request.model_spec.name = "news"
    write_records(tmp_path, [log.SerializeToString()])
    assert warmup.read(tmp_path) == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([b"\xff\xff"], "corrupt data"),
        ([b""], "no request"),
        ([PredictionLog(session_run_log={}).SerializeToString()], "session_run_log"),
        ([PredictionLog(predict_log={}).SerializeToString()] * 1001, "at most 1000"),
    ],
)
def test_records_that_fail_the_load_are_refused(tmp_path, records, message):
    write_records(tmp_path, records)
    with pytest.raises(InputError, match=message):
        warmup.read(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:20] + b"?" + data[21:]])
def test_damaged_files_are_refused(tmp_path, damage):
    warmup.write(tmp_path, [("serving_default", {"x": np.ones(4)})], "news")
    path = tmp_path / warmup.FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="corrupt data"):
        warmup.read(tmp_path)


@pytest.mark.parametrize(
    ("folder", "requests", "message"),
    [
        ("missing", [], "expected a SavedModel's folder"),
        (".", [("serving_default", {})] * 1001, "at most 1000"),
        (".", [("serving_default", {"x": np.array([object()])})], "'x'"),
    ],
)
def test_bad_requests_write_nothing(tmp_path, folder, requests, message):
    with pytest.raises(InputError, match=message):
        warmup.write(tmp_path / folder, requests, "news")
    assert not list(tmp_path.iterdir())


def write_records(folder, records):
    path = folder / warmup.FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
