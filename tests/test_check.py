"""The check of a SavedModel: each defect is named, a clean model has none, and the fresh process really runs."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Forked, run_python
from rich.console import Console
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kerasformer.errors import InputError
from kerasformer.serving import warmup
from kerasformer.serving.check import check, inspect
from kerasformer.serving.ops import SERVERS

X = tf.TensorSpec([None], tf.float32, name="x")
REQUEST = ("serving_default", {"x": np.array([1.0, 2.0], np.float32)})


def export(folder, serve, spec=X, requests=(REQUEST,), **tracked):
    """Saves a function as a version with warm-up requests."""
    module = tf.Module()
    for name, value in tracked.items():
        setattr(module, name, value)
    module.serve = tf.function(serve, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
    if requests:
        warmup.write(folder, requests, "model")
    return folder


def rewrite(folder, change):
    """Changes the first graph of a SavedModel in place."""
    path = folder / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    change(saved.meta_graphs[0])
    path.write_bytes(saved.SerializeToString())


def with_op(folder, op):
    """Puts an op in the place of a multiplication, so that no library has to be installed for it."""

    def rename(graph):
        nodes = [node for function in graph.graph_def.library.function for node in function.node_def]
        next(node for node in nodes if node.op == "Mul").op = op

    rewrite(folder, rename)
    return folder


def double(x):
    return {"y": 2.0 * x}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return export(tmp_path_factory.mktemp("news") / "1", double)


# What the graph refuses

compiled = tf.function(lambda x: x * x, jit_compile=True)

REFUSED = {
    "jit_compile=True needs XLA": (lambda x: {"y": compiled(x)}, SERVERS),
    "XlaDynamicUpdateSlice needs XLA": (lambda x: {"y": keras.ops.slice_update(x, [0], x[:1])}, SERVERS),
    "PyFunc calls Python": (lambda x: {"y": tf.numpy_function(np.sin, [x], tf.float32)}, SERVERS),
    "EagerPyFunc calls Python": (lambda x: {"y": tf.py_function(tf.sin, [x], tf.float32)}, SERVERS),
    "WorkerHeartbeat has no kernel": (lambda x: {"y": tf.raw_ops.WorkerHeartbeat(request="")}, SERVERS),
    "ragged or sparse": (lambda x: {"y": tf.RaggedTensor.from_row_lengths(x, [2])}, SERVERS),
    "Range.Tidx=bfloat16 is new in 2.18": (lambda x: {"y": x[:2] + wide_range()}, SERVERS[:2]),
    "GatherNd.bad_indices_policy is new in 2.17": (lambda x: {"y": gather(x, "IGNORE")}, SERVERS[:1]),
}


def wide_range():
    return tf.cast(tf.range(tf.constant(2, tf.bfloat16), dtype=tf.bfloat16), tf.float32)


def gather(x, policy):
    return tf.gather_nd(x, tf.zeros([tf.size(x), 1], tf.int32), bad_indices_policy=policy)


@pytest.mark.parametrize("what", REFUSED)
def test_a_server_refuses(tmp_path, what):
    serve, servers = REFUSED[what]
    report = inspect(export(tmp_path / "1", serve))
    (error,) = [finding for finding in report.findings if finding.refused_by]
    assert what in error.what
    assert error.where and all(error.where)
    assert error.refused_by == servers
    assert [server for server, served in report.verdicts.items() if not served] == list(servers)
    assert report.ok == (SERVERS[-1] not in servers)


@pytest.mark.parametrize(
    ("op", "what", "servers"),
    [
        ("IO>DecodeParquet", "IO>DecodeParquet is no op of TensorFlow or TF Text", SERVERS),
        ("TFText>RoundRobinTrim", "TFText>RoundRobinTrim is new in 2.20", SERVERS[:4]),
    ],
)
def test_an_op_of_a_library_is_known_by_its_name(tmp_path, op, what, servers):
    (finding,) = inspect(with_op(export(tmp_path / "1", double), op)).findings
    assert (finding.what, finding.refused_by) == (what, servers)


def test_a_keras_variable_that_only_its_copy_is_restored_for_is_refused(tmp_path):
    dense = keras.layers.Dense(1, name="dense")
    dense.build([None, 1])

    def serve(x):
        return {"y": dense(x[:, None])}

    (error,) = inspect(export(tmp_path / "1", serve, layer=dense)).findings
    assert error.what == "a variable that the load does not restore"
    assert sorted(error.where) == ["serving_default: dense/bias", "serving_default: dense/kernel"]
    assert inspect(export(tmp_path / "2", serve, values=[v.value for v in dense.variables])).findings == ()


@pytest.mark.parametrize(
    "serve",
    [lambda x: {"y": gather(x, "")}, lambda x: {"y": tf.math.accumulate_n([x, x])}],
    ids=["an attribute at its default", "an op that TensorFlow rewrites"],
)
def test_what_old_servers_can_run_is_not_refused(tmp_path, serve):
    assert inspect(export(tmp_path / "1", serve)).findings == ()


def test_a_function_that_no_signature_calls_is_not_refused(tmp_path):
    train = tf.function(lambda x: tf.numpy_function(np.sin, [x], tf.float32), input_signature=[X])
    assert inspect(export(tmp_path / "1", double, train=train)).findings == ()


# What users trip over

table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
seed = tf.Variable(1.0)


def remember(x):
    keys = tf.cast(x, tf.int64)
    with tf.control_dependencies([table.insert(keys, x)]):
        return {"y": table.lookup(keys)}


WARNED = {
    "no warm-up request": ((double, X, ()), {}),
    "REST has no bfloat16": ((lambda x: {"y": tf.cast(x, tf.bfloat16)}, X), {}),
    "a scalar": ((double, tf.TensorSpec([], tf.float32, name="x")), {}),
    "first dimension is always 1": ((lambda x: {"y": x[:1]}, tf.TensorSpec([1], tf.float32, name="x")), {}),
    "write to a hash table": ((remember,), {"table": table}),
    "write a variable": ((lambda x: {"y": x * seed.assign_add(1.0)},), {"seed": seed}),
}


@pytest.mark.parametrize("what", WARNED)
def test_users_are_warned(tmp_path, what):
    arguments, tracked = WARNED[what]
    report = inspect(export(tmp_path / "1", *arguments, **tracked))
    (warning,) = report.findings
    assert what in warning.what
    assert warning.severity == "warning"
    assert all(place.startswith("serving_default") for place in warning.where)
    assert report.ok


def test_a_folder_that_is_no_version_number_is_named(tmp_path):
    (finding,) = inspect(export(tmp_path / "model", double)).findings
    assert (finding.severity, finding.where) == ("warning", ("model",))


@pytest.mark.parametrize(
    ("change", "what", "served"),
    [
        (lambda graph: graph.meta_info_def.tags.append("tpu"), 'tagged "serve"', False),
        (lambda graph: graph.signature_def.pop("serving_default"), "no signature to call", False),
        (lambda graph: rename_signature(graph.signature_def), "no signature 'serving_default'", True),
    ],
)
def test_a_graph_that_clients_cannot_find_is_named(tmp_path, change, what, served):
    folder = export(tmp_path / "1", double, requests=())
    rewrite(folder, change)
    report = inspect(folder)
    assert what in " ".join(finding.what for finding in report.findings)
    assert report.ok == served


def rename_signature(signatures):
    signatures["embed"].CopyFrom(signatures.pop("serving_default"))


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (("classify", {"x": np.ones(2, np.float32)}), "names a signature"),
        (("serving_default", {"z": np.ones(2, np.float32)}), "has inputs ['z'], the signature ['x']"),
        (("serving_default", {"x": np.ones(2)}), "has float64 for 'x', the signature float32"),
    ],
)
def test_warm_up_requests_that_fail_the_load_are_refused(tmp_path, request_, what):
    report = inspect(export(tmp_path / "1", double, requests=[REQUEST, request_]))
    (error,) = report.findings
    assert what in error.what
    assert error.where == ("request 2",)
    assert not report.ok


def test_a_corrupt_warm_up_file_is_refused(tmp_path):
    folder = export(tmp_path / "1", double)
    (folder / warmup.FILE).write_bytes(b"these are no records")
    error = inspect(folder).findings[0]
    assert "corrupt data" in error.what
    assert error.refused_by == SERVERS


# What cannot be read


def test_the_newest_of_a_folder_of_versions_is_taken(tmp_path):
    for version in ("9", "10", "draft"):
        export(tmp_path / version, double)
    assert inspect(tmp_path).version_dir == tmp_path / "10"
    (tmp_path / "12").symlink_to(tmp_path / "draft")
    assert inspect(tmp_path).version_dir == tmp_path / "12"
    assert not [finding for finding in inspect(tmp_path).findings if "version number" in finding.what]
    (tmp_path / "12").unlink()
    (tmp_path / "11").mkdir()
    with pytest.raises(InputError, match="11/saved_model.pb, as a server loads the newest version, got none; remove"):
        inspect(tmp_path)


@pytest.mark.parametrize("path", ["missing", "."])
def test_no_saved_model_is_refused(tmp_path, path):
    with pytest.raises(InputError, match="expected .*missing|expected .*saved_model.pb"):
        check(tmp_path / path)


@settings(deadline=None, max_examples=30)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_cut_graph_is_refused(clean, tmp_path_factory, kept):
    folder = tmp_path_factory.mktemp("cut")
    data = (clean / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(InputError, match="export it again"):
        inspect(folder)


# The run in a fresh process


def test_a_clean_model_runs(clean, tmp_path):
    assert inspect(clean).findings == ()
    report = check(clean)
    assert report.ok and report.findings == ()
    assert report.session.xla_disabled
    assert report.session.peak_memory > report.session.base_memory > 0
    (replay,) = report.session.replays
    assert (replay.signature, replay.input_shapes, replay.output_shapes) == ("serving_default", {"x": [2]}, {"y": [2]})
    assert json.loads(report.to_json())["signatures"]["serving_default"]["outputs"] == {
        "y": {"dtype": "float32", "shape": [None]}
    }


@pytest.fixture
def forked(monkeypatch):
    """The process is a fork of one that has loaded no model either, which saves the seconds of its imports."""

    def run(command, *, env, timeout, **_):
        process = Forked(command[1:], run_python, environment=env)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.usefixtures("forked")
def test_the_run_finds_what_the_graph_leaves_open(tmp_path):
    report = check(export(tmp_path / "1", lambda x: {"y": tf.repeat(x, 2)}))
    (finding,) = report.findings
    assert finding.where == ("serving_default: y",)
    assert "not as many rows" in finding.what


@pytest.mark.usefixtures("forked")
def test_the_run_fails_where_the_server_does(tmp_path):
    report = check(export(tmp_path / "1", REFUSED["jit_compile=True needs XLA"][0]))
    assert [finding.where[0] for finding in report.findings if finding.refused_by][-1] == "warm-up request 1"
    assert "XLA compilation disabled" in report.session.error
    shown = rendered(report)
    assert "refused by TensorFlow Serving 2.16 to 2.20" in shown
    assert "export with jit_compile=False" in shown


@pytest.mark.usefixtures("forked")
def test_lost_variables_fail_the_load(tmp_path):
    folder = export(tmp_path / "1", lambda x: {"y": x * seed}, seed=seed)
    for part in (folder / "variables").glob("*.data*"):
        part.unlink()
    report = check(folder)
    assert report.findings[-1].where == ("load",)
    assert not report.ok and report.session.replays == []


@pytest.mark.usefixtures("forked")
def test_tf_text_is_not_held_against_a_model_where_it_is_missing(tmp_path, monkeypatch):
    (tmp_path / "tensorflow_text.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    report = check(with_op(export(tmp_path / "1", double), "CaseFoldUTF8"))
    (finding,) = report.findings
    assert "CaseFoldUTF8 of TF Text" in finding.what
    assert report.ok and report.session.replays == []


def test_the_verdict_is_shown_by_release(tmp_path):
    report = inspect(with_op(export(tmp_path / "1", double), "TFText>RoundRobinTrim"))
    assert "served by TensorFlow Serving 2.20, refused by 2.16 to 2.19" in rendered(report)


def test_a_process_that_hangs_or_dies_is_an_error(clean, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="within 0.01 s"):
        check(clean, timeout=0.01)
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(InputError, match="ended by SIGSEGV"):
        check(clean)


def rendered(report):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report.render())
    return capture.get()
