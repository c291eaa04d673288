"""The commands as processes of their own: once from a table to a server, and how they end when they are cut short."""

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from processes import Forked

from kerasformer.cli import COMMANDS, main
from kerasformer.serving.ops import SERVERS
from kerasformer.text.wordpiece import WordPiece

TEXTS = ["the cat sat on the mat .", "a dog ran", "dogs, cats;\u2028ünd 🐈", "the mat " * 30]
RECIPE = """
from kerasformer.config import Data, Recipe, Train
train = Train(epochs=2, learning_rate=1e-3, precision="float32", compile="none")
recipe = Recipe("animals", Data(max_length=16), train=train)
"""
MODEL = "/v1/models/animals"
TRAIN = "train recipe.py --data.train animals.csv --data.validation animals.csv --model.from_pretrained model"


def start(*arguments: str, **options) -> subprocess.Popen:
    """A Python process as a user starts one: without what the tests set to keep TensorFlow quiet."""
    set_by_tests = ("TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in set_by_tests}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "env": environment} | options
    return subprocess.Popen([sys.executable, *arguments], **options)


def without_progress(log: str) -> list[str]:
    """The lines of a log but for those that tell how far a training is, which a slow machine has more of."""
    return [line for line in log.splitlines() if not re.match(r"step \d+/\d+ ", line)]


@pytest.fixture(scope="module")
def project(tmp_path_factory, animals, bert_tiny) -> Path:
    """The working directory of all commands."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "animals.csv").symlink_to(animals)
    (folder / "model").symlink_to(bert_tiny)
    return folder


@pytest.fixture(scope="module")
def kerasformer(project):
    """Starts a command and returns how to wait for its end, and for what it wrote to stdout and to stderr.

    A fresh one is a process as a user starts it, and the others are forked to save the seconds of its imports.
    """

    def begin(command: str, stdin: str = "", code: int = 0, fresh: bool = False) -> Callable[[], tuple[str, str]]:
        words = shlex.split(command)
        if fresh:
            process = start("-m", "kerasformer", *words, cwd=project, stdin=subprocess.PIPE)
        else:
            process = Forked(words, cwd=project)

        def finish() -> tuple[str, str]:
            out, err = process.communicate(stdin)
            assert process.returncode == code, err
            return out, err

        return finish

    return begin


# From a table to a server


@pytest.fixture(scope="module")
def of_the_table(kerasformer) -> dict[str, tuple[str, str]]:
    """What a training writes, and one that is refused beside it."""
    commands = {
        "train": kerasformer(TRAIN, fresh=True),
        "refused": kerasformer(f"{TRAIN} --data.max_length 99 --name refused", code=2),
    }
    return {name: finish() for name, finish in commands.items()}


@pytest.fixture(scope="module")
def of_the_run(kerasformer, of_the_table) -> dict[str, tuple[str, str]]:
    """What the commands that take the run write; they run side by side."""
    commands = {
        "evaluate": kerasformer("evaluate runs/animals --data animals.csv"),
        "predict": kerasformer("predict runs/animals/model", stdin="\r\n".join(["", *TEXTS])),
        "export": kerasformer("export runs/animals saved_models/animals", fresh=True),
    }
    return {name: finish() for name, finish in commands.items()}


@pytest.fixture(scope="module")
def predictions(of_the_run) -> list[dict]:
    return [json.loads(line) for line in of_the_run["predict"][0].strip("\n").split("\n")]


@pytest.fixture(scope="module")
def client(project, of_the_run) -> Iterator[httpx.Client]:
    with start("-m", "kerasformer", "serve", "saved_models", "--rest-port", "0", cwd=project) as server:
        try:
            lines = iter(server.stderr.readline, "")
            url = next(found[1] for line in lines if (found := re.match(r"Serving at (\S+);", line)))
            with httpx.Client(base_url=url, timeout=120) as client:
                yield client
            server.send_signal(signal.SIGTERM)
            out, err = server.communicate(timeout=120)
            assert (server.returncode, out) == (0, "")
            assert "Traceback" not in err
        finally:
            server.kill()


def test_training_prints_a_line_of_figures_and_logs_the_rest(of_the_table, project):
    out, err = of_the_table["train"]
    assert out.count("\n") == 1
    assert json.loads(out).keys() == {"loss", "accuracy", "macro_f1", "train_seconds", "model"}
    logged = ["precision: float32", "training on ", "validating on ", "peak: ", "epoch 1 ", "epoch 2 "]
    lines = without_progress(err)
    [fresh] = [line for line in lines if line.endswith("a fresh classifier takes its place, so train before use")]
    assert "it has a classifier of the labels 'cat', 'dog', 'neither' and not 'cat', 'dog'" in fresh
    lines.remove(fresh)
    assert [line[: len(start)] for line, start in zip(lines, logged, strict=True)] == logged
    names = {"recipe.json", "metrics.jsonl", "metrics.csv", "tensorboard", "checkpoints", "model", "figures.json"}
    assert {path.name for path in (project / "runs/animals").iterdir()} == names


def test_evaluation_agrees_with_training(of_the_run, of_the_table):
    out, err = of_the_run["evaluate"]
    assert (out.count("\n"), err) == (1, "")
    figures, in_training = json.loads(out), json.loads(of_the_table["train"][0])
    assert figures.keys() == {"loss", "accuracy", "macro_f1"}
    assert figures == pytest.approx({name: in_training[name] for name in figures}, abs=1e-5)


def test_prediction_prints_a_line_for_each_text(predictions, of_the_run):
    assert of_the_run["predict"][1] == ""
    assert [prediction["text"] for prediction in predictions] == TEXTS
    for prediction in predictions:
        shares = prediction["probabilities"]
        assert shares.keys() == {"cat", "dog"}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert prediction["label"] == max(shares, key=shares.get)


def test_export_prints_the_version(of_the_run, project):
    assert of_the_run["export"] == (f"{project / 'saved_models/animals/1'}\n", "")
    assert [path.name for path in (project / "saved_models/animals").iterdir()] == ["1"]


def test_check_finds_that_it_will_be_served(kerasformer, of_the_run):
    out, err = kerasformer("check saved_models/animals/1 --json")()
    report = json.loads(out)
    assert (report["ok"], report["findings"], err) == (True, [], "")
    assert report["verdicts"] == dict.fromkeys(SERVERS, True)
    replays = [(replay["signature"], replay["output_shapes"]) for replay in report["session"]["replays"]]
    names = ("serving_default", "token_ids")
    assert replays == [(name, {"label": [n], "probabilities": [n, 2]}) for n in (1, 4) for name in names]


def as_rows(answer: dict) -> list[dict]:
    """The predictions of an answer to a request in rows or in columns."""
    if "predictions" in answer:
        return answer["predictions"]
    columns = answer["outputs"]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def with_token_ids(project: Path) -> dict:
    """The inputs of the model for the texts, padded."""
    encoded = WordPiece.from_folder(project / "runs/animals/model").encode(TEXTS, max_length=16)
    inputs = {name: np.zeros((len(TEXTS), 16), int) for name in ("token_ids", "segment_ids", "padding_mask")}
    for row, (begin, end) in enumerate(zip(encoded.offsets, encoded.offsets[1:], strict=False)):
        inputs["token_ids"][row, : end - begin] = encoded.token_ids[begin:end]
        inputs["padding_mask"][row, : end - begin] = 1
    return {name: value.tolist() for name, value in inputs.items()}


REQUESTS = {
    "rows": lambda project: {"instances": TEXTS},
    "rows of objects": lambda project: {"instances": [{"text": text} for text in TEXTS]},
    "columns": lambda project: {"inputs": TEXTS},
    "columns by name": lambda project: {"inputs": {"text": TEXTS}, "signature_name": "serving_default"},
    "bytes": lambda project: {"instances": [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXTS]},
    "token ids": lambda project: {"inputs": with_token_ids(project), "signature_name": "token_ids"},
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_the_server_answers_as_predict_does(client, project, predictions, request_of):
    response = client.post(f"{MODEL}:predict", json=request_of(project))
    assert response.status_code == 200, response.text
    rows = as_rows(response.json())
    assert [row["label"] for row in rows] == [prediction["label"] for prediction in predictions]
    shares = [list(prediction["probabilities"].values()) for prediction in predictions]
    np.testing.assert_allclose([row["probabilities"] for row in rows], shares, rtol=0, atol=1e-5)


def test_no_texts_have_no_predictions(client):
    response = client.post(f"{MODEL}:predict", json={"inputs": []})
    assert (response.status_code, response.json()) == (200, {"outputs": {"label": [], "probabilities": []}})


def test_the_server_tells_of_the_model(client):
    [status] = client.get(MODEL).json()["model_version_status"]
    assert (status["version"], status["state"]) == ("1", "AVAILABLE")
    signatures = client.get(f"{MODEL}/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"].keys() == {"text"}
    assert signatures["token_ids"]["inputs"].keys() == {"token_ids", "segment_ids", "padding_mask"}
    for name in ("serving_default", "token_ids"):
        assert signatures[name]["outputs"].keys() == {"label", "probabilities"}


# Cut short


def test_help_lists_every_command_and_loads_no_backend():
    process = start("-X", "importtime", "-m", "kerasformer", "--help")
    out, imported = process.communicate()
    assert process.returncode == 0
    lines = [name for name in COMMANDS if re.search(rf"^  {name} +[A-Z].+`kerasformer {name} ", out, re.M)]
    assert lines == list(COMMANDS)
    modules = {line.split("|")[2].strip().partition(".")[0] for line in imported.splitlines()}
    assert "tyro" in modules and not modules & {"tensorflow", "keras", "jax", "torch"}


def test_a_refusal_is_one_line_without_a_traceback_or_notes_of_tensorflow(of_the_table, project):
    said = "kerasformer: expected a max_length of at most 24, the model's, got 99; lower it\n"
    out, err = of_the_table["refused"]
    warning, *rest = err.splitlines(keepends=True)
    assert (out, rest) == ("", [said])
    assert "a fresh classifier takes its place" in warning
    assert not (project / "runs/refused").exists()


@pytest.mark.parametrize("command", ["--help", "train recipe.py --help"])
def test_a_reader_that_has_gone_is_no_error(project, command):
    reading, writing = os.pipe()
    os.close(reading)
    process = start("-m", "kerasformer", *shlex.split(command), stdout=writing, cwd=project)
    os.close(writing)
    assert process.communicate()[1] == ""
    assert process.returncode == 141


def interruptible(words: list[str]) -> int:
    """A shell may have started the tests with SIGINT ignored, and the process would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main(words)


def test_ctrl_c_ends_training_with_a_line(project):
    process = Forked(shlex.split(f"{TRAIN} --train.epochs 10000 --name interrupted"), interruptible, cwd=project)
    log = project / "runs/interrupted/metrics.jsonl"
    try:
        while not (log.exists() and "val_loss" in log.read_text()):
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate()
    finally:
        process.kill()
    assert (process.returncode, out) == (130, ""), err
    *lines, last = without_progress(err)
    assert re.fullmatch(
        r"kerasformer: stopped by SIGINT at step \d+, which is saved; the same command goes on from there", last
    )
    said = lines.index("SIGINT: stopping after this step; a second one stops at once")
    assert all(line.startswith("epoch ") for line in lines[said + 1 :])  # where it came as an epoch ended
