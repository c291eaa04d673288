"""What TensorBoard shows of a run, read back from TensorBoard itself, and the picture of a confusion matrix."""

import io
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorflow.python.summary.summary_iterator import summary_iterator

from kerasformer.training.evaluation import Report
from kerasformer.training.schedules import WarmupLinear
from kerasformer.training.tensorboard import DARK, PALE, TensorBoard, confusion_image, mistakes_table

STEPS, EPOCHS = 7, 3
TRAIN, VALIDATION = "animals/tensorboard/train", "animals/tensorboard/validation"


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """The address of a TensorBoard that shows the run."""
    recipe, _ = run
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", recipe.runs, "--host", "127.0.0.1", "--port", "0"]
    log = tmp_path_factory.mktemp("tensorboard") / "log.txt"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 300
            while not (found := re.search(r"at (http://\S+?/) ", log.read_text())):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield found.group(1)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def get(server):
    """Asks a plugin until it has loaded the run's events."""

    def ask(plugin, route, body=None, **query):
        address = f"{server}data/plugin/{plugin}/{route}?{urlencode(query)}"
        body = body and json.dumps(body).encode()
        with direct.open(Request(address, body, {"Content-Type": "application/json"}), timeout=120) as response:
            return response.read()

    def loaded():
        if not {TRAIN, VALIDATION} <= json.loads(ask("scalars", "tags")).keys():
            return False
        return len(scalars(ask, TRAIN, "loss")) == EPOCHS * STEPS and len(scalars(ask, VALIDATION, "loss")) == EPOCHS

    direct, deadline = build_opener(ProxyHandler({})), time.monotonic() + 300
    while not loaded():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return ask


def scalars(get, run, tag) -> dict[int, float]:
    """Value by step."""
    return {step: value for _, step, value in json.loads(get("scalars", "scalars", run=run, tag=tag))}


def test_every_step_has_its_scalars(get, run):
    recipe, _ = run
    lines = (recipe.folder / "metrics.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if "epoch" not in record]
    tags = json.loads(get("scalars", "tags"))[TRAIN].keys()
    found = {tag: scalars(get, TRAIN, tag) for tag in tags}
    expected = {
        "loss": [record["step_loss"] for record in steps],
        "accuracy": [record["accuracy"] for record in steps],
        "gradient_norm": [record["gradient_norm"] for record in steps],
        "padding_share": [1 - record["tokens"] / record["positions"] for record in steps],
        "data_wait_share": [record["data_wait_share"] for record in steps],
        "host_memory_gb": [record["host_memory_gb"] for record in steps],
        "model_flops_utilization": [record["model_flops_utilization"] for record in steps],
        "step_seconds": [record["step_seconds"] for record in steps],
        "tokens_per_second": [record["tokens"] / record["step_seconds"] for record in steps],
        "learning_rate": [float(WarmupLinear(2e-3, EPOCHS * STEPS, 2)(i)) for i in range(EPOCHS * STEPS)],
    }
    assert found.keys() == expected.keys()
    for tag, values in expected.items():
        assert list(found[tag].values()) == pytest.approx(values, rel=1e-4, abs=1e-6), tag
    for values in found.values():
        assert list(values) == list(range(1, EPOCHS * STEPS + 1))


def test_every_epoch_has_its_validation_figures(get, run):
    recipe, figures = run
    lines = (recipe.folder / "metrics.jsonl").read_text().splitlines()
    epochs = [record for record in map(json.loads, lines) if "epoch" in record]
    assert json.loads(get("scalars", "tags"))[VALIDATION].keys() == {"loss", "accuracy", "macro_f1"}
    for name in ("loss", "accuracy", "macro_f1"):
        found = scalars(get, VALIDATION, name)
        assert found == {r["step"]: pytest.approx(r[f"val_{name}"], rel=1e-5) for r in epochs}
    assert max(scalars(get, VALIDATION, "accuracy").values()) == pytest.approx(figures["accuracy"])


def test_every_epoch_has_its_confusion_matrix(get):
    shown = json.loads(get("images", "images", run=VALIDATION, tag="confusion", sample=0))
    assert [image["step"] for image in shown] == [STEPS, 2 * STEPS, 3 * STEPS]
    picture = Image.open(io.BytesIO(get("images", "individualImage", **dict(parse_qsl(shown[-1]["query"])))))
    height, width, _ = confusion_image(Report(["cat", "dog"], np.array([0]), np.eye(2)[:1])).shape
    assert (picture.format, picture.size) == ("PNG", (width, height))


def test_every_epoch_has_its_mistakes(get, run):
    shown = json.loads(get("text", "text", run=VALIDATION, tag="mistakes"))
    assert [record["step"] for record in shown] == [STEPS, 2 * STEPS, 3 * STEPS]
    wrong = [round(18 * (1 - accuracy)) for accuracy in scalars(get, VALIDATION, "accuracy").values()]
    assert [record["text"].count("<tr>") - 1 for record in shown if "<table>" in record["text"]] == [
        n for n in wrong if n
    ]
    assert wrong[0] and "<th>true</th>" in shown[0]["text"]


def test_the_recipe_is_shown_as_hyperparameters(get):
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"]
    body = {"allowedStatuses": statuses, "startIndex": 0, "sliceSize": 10, "includeMetrics": True}
    [group] = json.loads(get("hparams", "session_groups", body))["sessionGroups"]
    shown = group["hparams"]
    assert {name: shown[name] for name in ("train.epochs", "data.max_length", "train.learning_rate")} == {
        "train.epochs": 3.0,
        "data.max_length": 16.0,
        "train.learning_rate": 2e-3,
    }
    assert (shown["train.class_weights"], shown["name"]) == ("balanced", "animals")
    assert {metric["name"]["tag"] for metric in group["metricValues"]} >= {"accuracy", "macro_f1", "loss"}


def test_a_plain_keras_model_is_shown_too(tmp_path):
    """Without an evaluation, hyperparameters, or what our own step logs."""
    callback = TensorBoard(tmp_path)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(iterations=1, learning_rate=0.1)))
    callback.on_train_begin()
    callback.on_train_batch_begin(0)
    callback.on_train_batch_end(0, {"loss": 0.5, "mae": 0.25, "step_seconds": 2.0})
    callback.on_epoch_end(0, {"loss": 0.5, "mae": 0.25, "val_mae": 0.75})
    callback.on_train_end()
    found = {}
    for path in tmp_path.rglob("*tfevents*"):
        for event in summary_iterator(str(path)):
            found |= {(path.parent.name, v.tag): float(tf.make_ndarray(v.tensor)) for v in event.summary.value}
    train = {"loss": 0.5, "mae": 0.25, "step_seconds": 2.0, "learning_rate": pytest.approx(0.1)}
    assert found == {("validation", "mae"): 0.75} | {("train", tag): value for tag, value in train.items()}


@pytest.mark.parametrize("begun", [0, 3])
def test_a_step_stands_once_where_a_run_goes_on_from_one_before(begun, tmp_path):
    optimizer = SimpleNamespace(iterations=0, learning_rate=0.1)
    for first, last in ((0, 5), (begun, 6)):
        callback, optimizer.iterations = TensorBoard(tmp_path, hyperparameters={"a": 1}), first
        callback.set_model(SimpleNamespace(optimizer=optimizer))
        callback.on_train_begin()
        for optimizer.iterations in range(first + 1, last + 1):
            callback.on_train_batch_begin(0)
            callback.on_train_batch_end(0, {"loss": last, "step_seconds": 2.0})
            if optimizer.iterations % 3 == 0:
                callback.on_epoch_end(0, {"val_loss": last})
        callback.on_train_end()
        # TensorBoard orders files by the second in their names; of one second, writer 10 comes before writer 9.
        time.sleep(1)
    found = {}
    for part in ("train", "validation"):
        events = EventAccumulator(str(tmp_path / "tensorboard" / part)).Reload()
        found[part] = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")]
    assert found["train"] == [(step, 5 if step <= begun else 6) for step in range(1, 7)]
    assert found["validation"] == [(3, 5 if begun else 6), (6, 6)]


# The picture


def report(classes, names="c{}", size=2000, noise=1.0) -> Report:
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, size)
    probabilities = np.eye(classes)[truth] + noise * random.random((size, classes))
    return Report([names.format(i) for i in range(classes)], truth, probabilities / probabilities.sum(1, keepdims=True))


def near(pixels, colour):
    return np.abs(pixels.astype(int) - colour).max(axis=-1) < 8


def test_a_perfect_classifier_has_a_dark_diagonal():
    picture = confusion_image(report(4, noise=0.0))
    cells = picture[-8 - 4 * 56 : -8, -8 - 4 * 56 : -8]
    corners = cells[4::56, 4::56]  # near the corner of each cell, where no number stands
    np.testing.assert_array_equal(near(corners, DARK), np.eye(4, dtype=bool))
    np.testing.assert_array_equal(near(corners, PALE), ~np.eye(4, dtype=bool))


def test_shade_is_the_share_of_the_true_class():
    truth, predicted = np.array([0] * 4 + [1] * 100), np.array([0, 0, 0, 1] + [1] * 50 + [0] * 50)
    picture = confusion_image(Report(["a", "b", "c", "d"], truth, np.eye(4)[predicted]))
    corners = picture[-8 - 4 * 56 + 4 : -8 : 56, -8 - 4 * 56 + 4 : -8 : 56]
    shares = np.zeros((4, 4, 1))
    shares[:2, :2, 0] = [[0.75, 0.25], [0.5, 0.5]]
    assert near(corners, PALE + shares * (DARK - PALE)).all()


LABELS = ["label {}", "a label that is far longer than any label ought to be {}", "Überraschung {}", "標籤", "спорт {}"]


@pytest.mark.parametrize("names", LABELS)
@pytest.mark.parametrize("classes", [4, 30])
def test_labels_stay_outside_of_the_cells(classes, names):
    named, bare = (confusion_image(report(classes, label)) for label in (names, "i"))
    size = classes * min(56, 1200 // classes) + 8
    np.testing.assert_array_equal(named[-size:, -size:], bare[-size:, -size:])
    margin = named[-size:, 8:-size]
    assert (margin < 100).any()  # ink
    assert (named[:, :6] == 255).all() and (named[-size:, -size - 6 : -size] == 255).all()
    assert named.shape[1] < size + 250


@pytest.mark.parametrize("classes", [60, 150, 700])
def test_many_classes_fit_a_picture(classes):
    picture = confusion_image(report(classes, noise=0.0))
    assert max(picture.shape) < 1700
    assert near(picture, DARK).sum() >= classes


def test_of_many_classes_those_of_most_mistakes_are_shown():
    """The picture does not grow with them, and shares are of all examples of a class."""
    classes = 5000
    truth = np.repeat(np.arange(classes), 2)
    probabilities = np.zeros((2 * classes, classes), np.float32)
    predicted = truth.copy()
    predicted[[14, 15]] = 4999  # both examples of class 7
    predicted[8000] = 7  # and one of class 4000
    probabilities[np.arange(2 * classes), predicted] = 1
    many = Report([f"class {i}" for i in range(classes)], truth, probabilities)
    assert set(many.most_mistaken(3)) == {7, 4000, 4999}
    assert many.confusion_of(np.array([7, 4000, 4999])).tolist() == [[0, 0, 2], [1, 1, 0], [0, 0, 2]]
    picture = confusion_image(many)
    assert picture.shape == confusion_image(report(100, "class {}00")).shape
    assert max(picture.shape) < 2000
    assert (picture == PALE).all(axis=-1).any() and (picture == DARK).all(axis=-1).any()


def test_large_counts_stay_in_their_cell():
    def picture(size):
        truth = np.zeros(size, int)
        return confusion_image(Report(["a", "b", "c", "d"], truth, np.eye(4)[truth]))

    changed = (picture(1) != picture(123_456)).any(axis=-1)
    assert changed.any()
    changed[-8 - 4 * 56 : -8 - 3 * 56, -8 - 4 * 56 : -8 - 3 * 56][2:52, 2:52] = False
    assert not changed.any()


# The table


def test_mistakes_are_a_markdown_table_the_surest_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    table = mistakes_table(Report(["a|b", "c"], np.array([0, 0, 0, 1]), probabilities), ["one", "two\n2", "3|3", "4"])
    assert table.splitlines() == [
        "| true | predicted | probability | text |",
        "|---|---|---|---|",
        r"| a\|b | c | 0.800 | 3\|3 |",
        r"| c | a\|b | 0.700 | 4 |",
        r"| a\|b | c | 0.600 | two 2 |",
    ]


def test_a_long_list_of_long_texts_is_cut():
    wrong = Report(["a", "b"], np.zeros(50, int), np.tile([0.1, 0.9], (50, 1)))
    lines = mistakes_table(wrong, ["word " * 999] * 50).splitlines()
    assert len(lines) == 2 + 20
    assert max(map(len, lines)) < 240


def test_no_mistakes():
    assert mistakes_table(report(3, noise=0.0), ["x"] * 2000) == "no mistakes"
