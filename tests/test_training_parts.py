"""Losses, metrics, schedules, optimizer, precision and callbacks, each on its own."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from kerasformer import backend
from kerasformer.errors import InputError
from kerasformer.models.bert.config import BertConfig
from kerasformer.models.bert.model import Bert
from kerasformer.training import precision
from kerasformer.training.callbacks import BestModel, MetricsLog, ProgressBar
from kerasformer.training.evaluation import Report
from kerasformer.training.losses import Crossentropy
from kerasformer.training.optimizers import AdamW, adamw
from kerasformer.training.schedules import WarmupCosine, WarmupLinear, WarmupStableDecay

# Loss


@st.composite
def logits_and_ids(draw):
    """Logits [..., C], float32, and class ids [...]."""
    shape = draw(st.sampled_from([(1,), (7,), (2, 3)]))
    classes = draw(st.integers(2, 5))
    logits = draw(arrays(np.float32, (*shape, classes), elements=st.floats(-200, 200, width=32)))
    return logits, draw(arrays(np.int32, shape, elements=st.integers(0, classes - 1)))


@settings(max_examples=50)
@given(logits_and_ids(), st.sampled_from([0.0, 0.1, 0.9]))
def test_crossentropy_equals_float64(values, smoothing):
    logits, ids = values
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    classes = logits.shape[-1]
    target = np.eye(classes)[ids] * (1 - smoothing) + smoothing / classes
    loss = np.asarray(Crossentropy(smoothing).call(ids, logits))
    assert loss.shape == ids.shape
    np.testing.assert_allclose(loss, -(target * exact).sum(axis=-1), rtol=1e-5, atol=1e-5)


def test_crossentropy_of_bfloat16_logits_is_computed_in_float32():
    logits = tf.constant([[10.0, 0.0]], tf.bfloat16)
    loss = Crossentropy().call(tf.constant([0]), logits)
    assert loss.dtype == tf.float32
    assert float(loss[0]) == pytest.approx(np.log1p(np.exp(-10.0)), rel=1e-2)  # in bfloat16 it would be zero


def test_crossentropy_averages_and_has_a_config():
    loss = Crossentropy.from_config(Crossentropy(0.1).get_config())
    assert loss.label_smoothing == 0.1
    assert float(loss(np.array([0, 1]), np.zeros((2, 4), np.float32))) == pytest.approx(np.log(4))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match=r"expected label_smoothing in \[0, 1\), got"):
        Crossentropy(smoothing)


# Metrics


@st.composite
def reports(draw):
    classes, size = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    truth = random.integers(0, draw(st.integers(1, classes)), size)  # some classes may never occur
    return Report([f"c{i}" for i in range(classes)], truth, random.dirichlet(np.full(classes, 0.5) + 1e-3, size))


@given(reports())
def test_figures_equal_those_of_scikit_learn(report):
    classes = range(len(report.labels))
    predicted = report.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(report.confusion, confusion_matrix(report.truth, predicted, labels=classes))
    expected = {
        "loss": log_loss(report.truth, report.probabilities, labels=classes),
        "accuracy": accuracy_score(report.truth, predicted),
        "macro_f1": f1_score(report.truth, predicted, average="macro", zero_division=0),
    }
    likely = report.probabilities[np.arange(len(report.truth)), report.truth] > 1e-11  # else each clips elsewhere
    if not likely.all():
        del expected["loss"]
    assert {name: report.figures()[name] for name in expected} == pytest.approx(expected)


@given(reports())
def test_mistakes_come_surest_first(report):
    wrong = report.mistakes
    assert set(wrong) == {
        i for i, probabilities in enumerate(report.probabilities) if report.truth[i] != probabilities.argmax()
    }
    assert all(np.diff(report.probabilities[wrong].max(axis=1)) <= 0)


def test_a_probability_of_zero_gives_a_finite_loss():
    assert Report(["a", "b"], np.array([0]), np.array([[0.0, 1.0]])).loss == pytest.approx(-np.log(1e-12))


# Schedule and optimizer


@pytest.mark.parametrize(
    ("warmup", "step", "share"),
    [(4, 0, 1 / 4), (4, 1, 2 / 4), (4, 3, 1), (4, 4, 6 / 7), (4, 9, 1 / 7), (4, 10, 0), (4, 99, 0)]
    + [(0, 0, 10 / 11), (0, 9, 1 / 11), (10, 9, 1), (10, 10, 0)],
)
def test_warmup_linear(warmup, step, share):
    assert float(WarmupLinear(0.5, 10, warmup)(step)) == pytest.approx(0.5 * share, abs=1e-7)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize(
    ("schedule", "height"),
    [(WarmupCosine, lambda way: (1 + np.cos(np.pi * way)) / 2), (WarmupStableDecay, lambda way: min(5 - 5 * way, 1))],
)
def test_warmup_cosine_and_stable_decay(schedule, height, warmup):
    peak, steps, floor = 0.5, 60, 0.05
    for step in (0, 4, 9, 10, 30, 49, 50, 55, 59, 60, 99):
        way = np.clip((step + 1 - warmup) / (steps + 1 - warmup), 0, 1)
        rate = floor + (peak - floor) * height(way) if step >= warmup else peak * (step + 1) / warmup
        assert float(schedule(peak, steps, warmup, floor)(step)) == pytest.approx(rate, abs=1e-6)


@settings(max_examples=25)
@given(st.integers(1, 20), st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_falls_and_is_never_zero_in_a_run(steps, warmup):
    schedule = WarmupLinear(1.0, steps, round(warmup * steps))
    rates = [float(schedule(step)) for step in range(steps)]
    top = int(np.argmax(rates))
    assert min(rates) > 0 and max(rates) <= 1
    assert all(np.diff(rates[: top + 1]) > 0) and all(np.diff(rates[top:]) < 0)


def test_a_schedule_has_a_config():
    schedule = WarmupLinear(0.5, 10, 4)
    assert float(WarmupLinear.from_config(schedule.get_config())(2)) == float(schedule(2))


@pytest.fixture(scope="module")
def variables() -> list[keras.Variable]:
    """Those of a one-layer BERT."""
    config = BertConfig(vocab_size=9, num_layers=1, num_heads=1, dim=4, mlp_dim=4, max_length=4)
    return Bert(config).trainable_variables


def test_adamw_decays_matrices_alone(variables):
    for variable in variables:
        variable.assign(np.full(variable.shape, 2.0))
    optimizer = adamw(0.5, steps=10, warmup=0.1, weight_decay=0.02)  # the first step has the peak rate
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
    decayed = {v.path for v in variables if np.all(v.numpy() != 2.0)}
    assert decayed == {v.path for v in variables if v.name in ("kernel", "embeddings")}
    assert {v.name for v in variables if v.path not in decayed} == {"bias", "gamma", "beta"}
    for variable in variables:
        expected = 2.0 * (1 - 0.5 * 0.02) if variable.path in decayed else 2.0
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("clip_norm", "norm"), [(1.5, 1.5), (50.0, 10.0), (None, 10.0), (0.0, 10.0)])
def test_gradients_are_cut_to_the_global_norm(clip_norm, norm):
    variables = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(2))]
    optimizer = adamw(0.1, steps=10, clip_norm=clip_norm)
    optimizer.apply([tf.constant([6.0, 0.0]), tf.constant([0.0, 8.0])], variables)
    first_moments = np.concatenate([m.numpy() for m in optimizer._momentums])
    np.testing.assert_allclose(first_moments, 0.1 * norm / 10 * np.array([6, 0, 0, 8]), rtol=1e-5)


# Precision

CPUS = {"old": "flags : fpu avx2 avx512f", "new": "flags : fpu avx512_bf16", "amx": "flags : amx_bf16 amx_tile"}


@pytest.mark.parametrize(
    ("devices", "capability", "cpu", "expected"),
    [
        (["TPU"], None, None, "mixed_bfloat16"),
        (["GPU"], (9, 0), "old", "mixed_bfloat16"),
        (["GPU"], (8, 0), "old", "mixed_bfloat16"),
        (["GPU"], (7, 5), "new", "float32"),
        (["GPU"], None, "new", "float32"),
        ([], None, "new", "mixed_bfloat16"),
        ([], None, "amx", "mixed_bfloat16"),
        ([], None, "old", "float32"),
        ([], None, None, "float32"),
    ],
)
def test_auto_takes_what_the_machine_computes_fast(devices, capability, cpu, expected, monkeypatch, tmp_path):
    for limit in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.delenv(limit, raising=False)
    if cpu:
        (tmp_path / "cpuinfo").write_text(CPUS[cpu])
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(backend, "Path", lambda name: tmp_path / name.rpartition("/")[2])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * (kind in devices))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    assert precision.dtype_policy("auto") == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("DNNL_MAX_CPU_ISA", "AVX2"), ("TF_ENABLE_ONEDNN_OPTS", "0")],
)
def test_auto_heeds_what_tensorflow_is_told(variable, value, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUS["new"])
    monkeypatch.setattr(backend, "Path", lambda name: tmp_path / name.rpartition("/")[2])
    monkeypatch.setenv(variable, value)
    assert precision.dtype_policy("auto") == "float32"


@pytest.mark.parametrize(("name", "policy"), [("float32", "float32"), ("bfloat16", "mixed_bfloat16")])
def test_a_named_precision_is_taken(name, policy):
    assert precision.dtype_policy(name) == policy


def test_an_unknown_precision():
    message = "expected a precision of auto, float32, bfloat16, got 'half'; choose one of them"
    with pytest.raises(InputError, match=message):
        precision.dtype_policy("half")


# Callbacks


class Recorder:
    """Stands in for a model in training."""

    def __init__(self, iterations=0):
        self.saved, self.epoch, self.stop_training = [], 0, False
        self.optimizer = SimpleNamespace(iterations=iterations)

    def save_pretrained(self, folder):
        self.saved.append(self.epoch)


def run_epochs(callback, values) -> Recorder:
    """Ends epochs with these values of what the callback monitors, until it stops the training."""
    callback.set_model(model := Recorder())
    for model.epoch, value in enumerate(values):
        callback.on_epoch_end(model.epoch, {} if value is None else {callback.monitor: value})
        if model.stop_training:
            break
    return model


@pytest.mark.parametrize(
    ("monitor", "patience", "values", "saved", "last"),
    [
        ("val_accuracy", 0, [0.5, 0.4, 0.5, 0.6, 0.1], [0, 3], 4),
        ("val_loss", 0, [0.5, 0.6, 0.5, 0.4, 0.9], [0, 3], 4),
        ("val_accuracy", 2, [0.5, 0.6, 0.6, 0.5, 0.9], [0, 1], 3),
        ("val_loss", 2, [0.5, 0.4, 0.4, 0.5, 0.1], [0, 1], 3),
        ("val_macro_f1", 2, [0.5, 0.4, 0.6, 0.5, 0.7], [0, 2, 4], 4),
        ("val_loss", 0, [float("nan"), 0.5, float("nan"), 0.1], [1, 3], 3),
        ("val_accuracy", 1, [None, None, None], [0, 1, 2], 2),
        ("val_accuracy", 0, [None, float("nan"), 0.5, 0.4, None, 0.1], [0, 2, 4, 5], 5),
    ],
)
def test_best_model_saves_what_is_better_and_stops_after_patience(monitor, patience, values, saved, last, tmp_path):
    model = run_epochs(BestModel(tmp_path, monitor, patience), values)
    assert (model.saved, model.epoch) == (saved, last)


def test_of_equally_accurate_models_the_one_of_lower_loss_is_better(tmp_path):
    callback = BestModel(tmp_path, "val_accuracy", patience=2)
    callback.set_model(model := Recorder())
    for model.epoch, (accuracy, loss) in enumerate([(0.5, 0.9), (0.5, 0.8), (0.5, 0.9), (0.4, 0.1)]):
        callback.on_epoch_end(model.epoch, {"val_accuracy": accuracy, "val_loss": loss})
    assert model.saved == [0, 1]
    assert model.stop_training


def test_metrics_log_is_json_lines(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.set_model(Recorder(iterations=np.int64(7)))
    step = {"loss": 0.5, "step_loss": np.float32(0.25), "gradient_norm": float("nan"), "tokens": 9}
    log.on_train_batch_end(0, step)
    log.on_epoch_end(0, {**step, "accuracy": 1.0, "val_loss": float("inf")})

    def refuse(name):
        pytest.fail(f"{name} is no JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    assert records == [
        {"step": 7, "loss": 0.5, "step_loss": 0.25, "gradient_norm": None, "tokens": 9},
        {"epoch": 1, "step": 7, "loss": 0.5, "accuracy": 1.0, "val_loss": None},  # nothing of the last step alone
    ]
    assert '"step": 7,' in lines[0] and '"epoch": 1,' in lines[1]


def show(bar: ProgressBar, steps: int) -> None:
    bar.set_model(Recorder(iterations=0))
    bar.on_train_begin()
    for step in range(steps):
        bar.on_train_batch_begin(step)
        bar.on_train_batch_end(step, {"loss": 0.5, "accuracy": 0.75, "tokens": 100})
    figures = {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 0.8, "val_macro_f1": 0.7}
    bar.on_epoch_end(10, {**figures, "gradient_norm": 1.0})
    bar.on_train_end()


def test_progress_on_no_terminal_is_whole_lines_on_stderr(capsys):
    show(ProgressBar(3, every=0.0), 3)
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third, epoch = err.splitlines()
    assert first == "step 1/3  loss 0.5000  accuracy 0.7500  0 s left"
    assert second.startswith("step 2/3  loss 0.5000  accuracy 0.7500  ") and "tokens/s" in second
    assert third.endswith("  0 s left")
    assert epoch == "epoch 11  loss 0.5000  accuracy 0.7500  val_loss 0.2500  val_accuracy 0.8000  val_macro_f1 0.7000"


def test_progress_speaks_seldom(capsys):
    show(ProgressBar(50), 50)
    assert len(capsys.readouterr().err.splitlines()) == 1  # that of the epoch


def test_progress_on_a_terminal_is_a_bar_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    show(ProgressBar(3), 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b[" in err and "3/3" in err and "val_macro_f1" in err


@pytest.mark.parametrize(("dtype", "amsgrad"), [("float32", False), ("float64", False), ("float32", True)])
def test_our_adamw_is_keras_s(dtype, amsgrad):
    """Five steps, decay and clipping too. Tolerance 1e-6: the same arithmetic in another order."""
    values = []
    for optimizer_class in (AdamW, keras.optimizers.AdamW):
        kernel, bias = np.linspace(-1, 1, 6).reshape(2, 3), np.ones(3)
        variables = [keras.Variable(kernel, dtype=dtype), keras.Variable(bias, dtype=dtype, name="bias")]
        optimizer = optimizer_class(1e-2, 0.1, 0.9, 0.5, global_clipnorm=1.0, epsilon=1e-8, amsgrad=amsgrad)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        numbers = np.random.default_rng(0)
        for i in range(5):
            # Ever smaller: the largest second moment is not the last one.
            optimizer.apply([tf.constant(numbers.normal(size=v.shape) / 2**i, dtype) for v in variables], variables)
        values.append([v.numpy() for v in variables])
    for ours, theirs in zip(*values, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
