"""The server as its clients see it: a process of its own, called over HTTP, held to TF Serving's REST contract."""

import contextlib
import gzip
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.serving import server, warmup

# Each row is a call, what it sends, the HTTP status, and the answer or a part of the error's message. Those that call
# the models below can be held against TF Serving itself.
CONTRACT = [json.loads(row) for row in Path(__file__).with_name("rest_contract.jsonl").read_text("utf-8").splitlines()]
STRINGS = tf.TensorSpec([None], tf.string, name="text")
EXAMPLES = tf.TensorSpec([None], tf.string, name="inputs")
PAIRS = tf.TensorSpec([None, 2], tf.int64, name="pair")
SERVE = """
import signal, sys
from pathlib import Path
import tensorflow as tf
from kerasformer.serving import servables, server
servables.RUN_TIMEOUT_MS = 2000
server.BODY_LIMIT = 2**20
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
server.serve(Path(sys.argv[1]), rest_port=0)
# It gives back what it has changed of the process.
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
assert tf.function(lambda x: x * 2, jit_compile=True)(tf.ones(1)).numpy() == 2
"""


class Strings(tf.Module):
    """One signature for each row of the contract that takes strings."""

    @tf.function(input_signature=[STRINGS])
    def several(self, text):
        return {
            "length": tf.strings.length(text),
            "upper": tf.strings.upper(text),
            "third": tf.strings.length(text) / 3,
        }

    @tf.function(input_signature=[STRINGS])
    def one(self, text):
        return {"upper": tf.strings.upper(text)}

    @tf.function(input_signature=[STRINGS])
    def raw(self, text):
        return {"text": tf.identity(text), "text_bytes": tf.identity(text)}

    @tf.function(input_signature=[STRINGS])
    def uneven(self, text):
        return {"all": tf.identity(text), "rest": text[1:]}

    @tf.function(input_signature=[STRINGS])
    def count(self, text):
        return {"count": tf.size(text)}

    @tf.function(input_signature=[STRINGS])
    def assertion(self, text):
        with tf.control_dependencies([tf.debugging.Assert(tf.size(text) < 0, ["never"])]):
            return {"text": tf.identity(text)}

    @tf.function(input_signature=[STRINGS])
    def endless(self, text):
        return {"size": tf.while_loop(lambda size: size > 0, lambda size: [size * 1], [tf.size(text)])[0]}

    @tf.function(input_signature=[])
    def nothing(self):
        return {"one": tf.constant(1)}


class Numbers(tf.Module):
    """Signatures of every other type, of classify and of regress."""

    @tf.function(input_signature=[tf.TensorSpec([None], t, name=t.name) for t in (tf.int32, tf.float32, tf.bool)])
    def add(self, int32, float32, bool):
        return {"sum": tf.cast(int32, tf.float32) + float32 + tf.cast(bool, tf.float32)}

    @tf.function(input_signature=[PAIRS, tf.TensorSpec([], tf.int64, name="k")])
    def scaled(self, pair, k):
        return {"pair": pair * k, "sum": tf.reduce_sum(pair) * k}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def halved(self, x):
        return {"y": tf.cast(x / 2, tf.float16)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="x")])
    def half(self, x):
        return {"y": tf.cast(x, tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], jit_compile=True)
    def compiled(self, x):
        return {"y": x * 2}

    @tf.function(input_signature=[EXAMPLES])
    def classify(self, inputs):
        parsed = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})
        return {"classes": tf.strings.as_string(parsed["x"], precision=1), "scores": parsed["x"] * 2}

    @tf.function(input_signature=[EXAMPLES])
    def regress(self, inputs):
        features = {
            "n": tf.io.FixedLenFeature([], tf.int64),
            "s": tf.io.FixedLenFeature([], tf.string, default_value=""),
            "shared": tf.io.FixedLenFeature([], tf.float32, default_value=0.0),
        }
        parsed = tf.io.parse_example(inputs, features)
        length = tf.cast(tf.strings.length(parsed["s"]), tf.float32)
        return {"outputs": tf.cast(parsed["n"], tf.float32) + length + parsed["shared"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved_models")
    strings, numbers = Strings(), Numbers()
    names = ("one", "raw", "uneven", "count", "assertion", "endless", "nothing")
    signatures = {"serving_default": strings.several, **{name: getattr(strings, name) for name in names}}
    tf.saved_model.save(strings, folder / "strings/2", signatures)
    names = ("add", "scaled", "halved", "half", "compiled", "classify", "regress")
    tf.saved_model.save(numbers, folder / "numbers/1", {name: getattr(numbers, name) for name in names})
    for copy in ("strings/01", "two words/5", "warm/10", "cold/1"):
        shutil.copytree(folder / "strings/2", folder / copy)
    warmup.write(folder / "warm/10", [("one", {"text": np.array([b"x"], object)})], "warm")
    warmup.write(folder / "cold/1", [("one", {"words": np.array([b"x"], object)})], "cold")
    (folder / "broken/7").mkdir(parents=True)
    (folder / "notes/drafts").mkdir(parents=True)
    (folder / "README.md").touch()
    return folder


@contextlib.contextmanager
def running(folder: Path, log: Path):
    """A server process that is ready, and its address."""
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-W", "error", "-c", SERVE, str(folder)], stderr=stderr)
    try:
        while "curl" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process, log.read_text().split("Serving at ")[1].split(";")[0]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("logs") / "stderr"


@pytest.fixture(scope="module")
def client(folder, log):
    with running(folder, log) as (process, url), httpx.Client(base_url=url, timeout=120) as client:
        yield client
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(("call", "document", "code", "answer"), CONTRACT)
def test_the_contract(client, call, document, code, answer):
    method, target = call.split()
    response = client.request(method, target, content=json.dumps(document) if document is not None else b"")
    assert (response.status_code, response.headers["content-type"]) == (code, "application/json")
    if code == 200:
        assert response.json() == answer
    else:
        assert response.json().keys() == {"error"} and answer in response.json()["error"]


@pytest.mark.parametrize(
    "model, version, reason",
    [("broken", 7, "SavedModel file does not exist"), ("cold", 1, "Missing but required: {text}")],
)
def test_a_model_that_does_not_load_has_ended_and_says_why(client, model, version, reason):
    (ended,) = client.get(f"/v1/models/{model}").json()["model_version_status"]
    assert (ended["version"], ended["state"]) == (str(version), "END")
    assert ended["status"]["error_code"] != "OK"
    assert reason in ended["status"]["error_message"]
    response = client.post(f"/v1/models/{model}:predict", json={"inputs": ["a"]})
    assert response.status_code == 404
    assert response.json() == {"error": f"Servable not found for request: Latest({model})"}


@pytest.mark.parametrize("path", ["strings/metadata", "strings/versions/2/metadata"])
def test_metadata(client, path):
    metadata = client.get(f"/v1/models/{path}").json()
    assert metadata["model_spec"] == {"name": "strings", "signature_name": "", "version": "2"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert "__saved_model_init_op" in signatures
    signature = signatures["serving_default"]
    assert signature["inputs"]["text"] == {
        "name": "serving_default_text:0",
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }
    assert signature["outputs"].keys() == {"length", "upper", "third"}
    assert (signature["method_name"], signature["defaults"]) == ("tensorflow/serving/predict", {})


def test_numbers_are_written_as_tf_serving_writes_them(client):
    body = b'{"inputs": {"int32": [0, 0, 0], "float32": [NaN, -Infinity, 1e6], "bool": [false, false, true]},'
    body += b'"signature_name": "add"}'
    assert b"[NaN, -Infinity, 1000001.0]" in client.post("/v1/models/numbers:predict", content=body).content


def test_bytes_that_are_not_utf_8_pass_through(client):
    response = client.post("/v1/models/strings:predict", content=b'{"instances": ["\xff"], "signature_name": "raw"}')
    assert response.content == b'{"predictions": [{"text": "\xff", "text_bytes": {"b64": "/w=="}}]}\n'
    document = {"instances": [{"b64": "/w=="}], "signature_name": "raw"}
    assert client.post("/v1/models/strings:predict", json=document).content == response.content


@pytest.mark.parametrize(
    "body, message",
    [
        (b"instances = 1", "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b"[" * 9999, "JSON Parse error: "),
    ],
)
def test_body_errors(client, body, message):
    response = client.post("/v1/models/strings:predict", content=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(message)


def chunks():
    yield from [b" " * 2**16] * 17


@pytest.mark.parametrize(
    "body, encoding", [(b" " * 2**21, ""), (chunks(), ""), (gzip.compress(bytes(2**21), mtime=0), "gzip")]
)
def test_a_body_over_the_limit_is_refused(client, body, encoding):
    response = client.post("/v1/models/strings:predict", content=body, headers={"content-encoding": encoding})
    assert response.status_code == 413
    assert response.json() == {"error": f"Request body is larger than {2**20} bytes"}


def test_a_gzipped_body_is_read(client):
    body = gzip.compress(b'{"instances": ["a"], "signature_name": "one"}')
    headers = {"content-encoding": "gzip"}
    assert client.post("/v1/models/strings:predict", content=body, headers=headers).json() == {"predictions": ["A"]}
    for broken in (b"no gzip", body[:-9]):
        response = client.post("/v1/models/strings:predict", content=broken, headers=headers)
        assert (response.status_code, response.json()) == (400, {"error": "Failed to uncompress the gzipped body"})


def test_start_up_reports_each_model_and_a_call_that_works(client, log):
    lines = log.read_text().splitlines()
    for start in (
        "broken version 7: failed to load: ",
        "numbers version 1: add, ",
        "strings version 2: serving_default, ",
    ):
        assert any(line.startswith(start) for line in lines)
    (command,) = (line for line in lines if line.startswith("curl "))
    *_, body, url = shlex.split(command)
    assert client.post(url, content=body).status_code == 200


def test_a_stopped_server_finishes_its_requests(folder, tmp_path):
    shutil.copytree(folder / "warm", tmp_path / "models/warm")
    with running(tmp_path / "models", tmp_path / "stderr") as (process, url):
        host, port = httpx.URL(url).host, httpx.URL(url).port
        body = b'{"instances": ["a"], "signature_name": "one"}'
        with socket.create_connection((host, port), timeout=120) as connection:
            connection.sendall(
                b"POST /v1/models/warm:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            assert connection.recv(999).startswith(b"HTTP/1.1 100")
            process.terminate()
            with pytest.raises((ConnectionRefusedError, ConnectionResetError)):  # reset in the moment that it closes
                while True:
                    socket.create_connection((host, port), timeout=120).close()
            connection.sendall(body)
            answer = b"".join(iter(lambda: connection.recv(9999), b""))
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"predictions": ["A"]}\n')
        assert process.wait(timeout=120) == 0


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder of models, found none at .*: export a model there first"):
        server.serve(tmp_path / "none")
    (tmp_path / "model/not_a_number").mkdir(parents=True)
    with pytest.raises(InputError, match=r"expected .*/<model>/<integer version>/saved_model.pb, found no such model"):
        server.serve(tmp_path)


def test_an_address_that_cannot_be_had_is_refused_before_models_load(tmp_path):
    (tmp_path / "model/1").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = rf"got port {port} of 127.0.0.1 \(Address already in use\): stop what has it, or choose another"
        with pytest.raises(InputError, match=message):
            server.serve(tmp_path, rest_port=port)
    with pytest.raises(InputError, match=r"expected a port from 0 to 65535, got 65536: choose another rest_port \("):
        server.serve(tmp_path, rest_port=65536)
    with pytest.raises(InputError, match=r"of 192.0.2.1 \(.*\): stop what has it, or choose another"):
        server.serve(tmp_path, host="192.0.2.1")


def test_a_folder_where_no_model_loads_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kerasformer.serving.servables.disable_xla", lambda: True)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / "model/1").mkdir(parents=True)
    with pytest.raises(InputError, match="expected a model that loads, found none in .*: mend one of those above"):
        server.serve(tmp_path, rest_port=0)
    assert "model version 1: failed to load: SavedModel file does not exist" in capsys.readouterr().err
