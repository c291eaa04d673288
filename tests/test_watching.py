"""What one sees of a run's speed: the meter, the feed that it reads, the table of steps, profiles."""

import csv
import functools
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.data.corpus import Corpus, Counts, Split
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.models.bert.config import BertConfig
from kerasformer.models.bert.model import Bert
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.training import flops
from kerasformer.training.callbacks import Meter, MetricsTable, Profile, ProgressBar
from kerasformer.training.feed import Feed
from kerasformer.training.flops import flops_per_token, peak_flops
from kerasformer.training.meter import host_memory
from kerasformer.training.tasks import CausalLM, Classifier

SIZES = {"num_layers": 2, "num_heads": 2, "dim": 8, "mlp_dim": 16, "max_length": 12}


class Recorder(keras.callbacks.Callback):
    """Keeps the logs of each execution."""

    def on_train_begin(self, logs=None):
        self.records = []

    def on_train_batch_end(self, batch, logs=None):
        self.records.append(dict(logs))


def gpt(**sizes) -> CausalLM:
    return CausalLM(GPT(GPTConfig(vocab_size=30, **SIZES | sizes)))


@pytest.fixture(scope="module")
def traced():
    """Gives the model of one layer that makes so many steps an execution, which is traced once, at its step 0."""

    @functools.cache
    def compiled(together):
        model = gpt(num_layers=1)
        model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=together, jit_compile=False)
        return model

    def begun(together=1):
        model = compiled(together)
        model.optimizer.iterations.assign(0)
        return model

    return begun


def growing() -> Windows:
    """Two steps of two rows of six tokens, then four of four."""
    tokens = np.zeros(200, np.uint32)
    split = Split([tokens], Counts(tokens=200, documents=1, characters=200, bytes=200))
    corpus = Corpus("corpus", {"train": split}, 30, lambda: "the tokenizer")
    return Windows(corpus, batch_size=4, max_length=6, batch_ramp=((2, 2),))


def slow(seconds: float, batches: int = 9, made: list | None = None) -> tf.data.Dataset:
    """Batches of which each takes so long to make; `made` gets the number of each."""

    def wait(i):
        time.sleep(seconds)
        if made is not None:
            made.append(int(i))
        return i

    def make(i):
        i = tf.ensure_shape(tf.numpy_function(wait, [i], tf.int64), [])
        mask = tf.constant([[1, 1, 1, 0], [1, 0, 0, 0]])
        return {
            "token_ids": tf.zeros([2, 4], tf.int32) + tf.cast(i % 2, tf.int32),
            "padding_mask": mask,
        }, tf.zeros_like(mask)

    return tf.data.Dataset.range(batches).map(make)


# The feed


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_the_feed_tells_how_long_each_batch_was_waited_for(seconds):
    feed = Feed()
    assert feed.read() is None
    iterator, waited = iter(feed.counted(slow(seconds))), []
    next(iterator)  # which also sets up the pipeline
    for _ in range(5):
        before = feed.read()
        time.sleep(0.1)  # a step, which is no waiting
        next(iterator)
        waited.append(feed.read()[0] - before[0])
        assert feed.read()[1] - before[1] == 4
    assert seconds <= min(waited) < seconds + 0.1


def test_the_feed_changes_no_batch_and_waits_for_no_prefetched_one():
    feed, made = Feed(), []
    dataset = slow(0.05)
    iterator, plain = iter(feed.counted(slow(0.05, made=made).prefetch(8))), iter(dataset)
    np.testing.assert_equal(
        tf.nest.map_structure(np.asarray, next(iterator)), tf.nest.map_structure(np.asarray, next(plain))
    )
    deadline = time.monotonic() + 120
    while len(made) < 9:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)  # the last one is made, and is put beside the others
    before = feed.read()[0]
    assert len(list(iterator)) == 8
    assert feed.read()[0] - before < 8 * 0.05
    assert feed.counted(dataset).cardinality() == 9


# The meter


def test_flops_are_those_of_the_rule():
    dense = 2 * (4 * 8 * 8 + 4 * 8 + 2 * 8 * 16 + 16 + 8 + 4 * 8)  # of two blocks: products, biases, normalisations
    assert flops_per_token(gpt(), 12) == 6 * (dense + 2 * 8 + 30 * 8) + 12 * 2 * 12 * 8
    bert = Classifier(Bert(BertConfig(vocab_size=30, **SIZES)), ["a", "b"])
    assert flops_per_token(bert, 5) == 6 * (dense + 2 * 8 + 8 * 8 + 8 + 2 * 8 + 2) + 12 * 2 * 5 * 8


def test_the_peak_is_told_or_measured_once(caplog):
    assert peak_flops(tf.distribute.get_strategy(), "float32", 2.5) == 2.5e12
    with caplog.at_level("INFO"):
        first, second = (
            peak_flops(tf.distribute.get_strategy(), "float32"),
            peak_flops(tf.distribute.get_strategy(), "float32"),
        )
    assert first == second
    assert 1e9 < first < 1e16
    assert sum("TFLOP/s a device, measured on" in message for message in caplog.messages) <= 1


def test_a_peak_that_is_exceeded_is_raised(traced, monkeypatch):
    monkeypatch.setattr(flops, "_measured", lambda dtype: 10.0)  # on a machine that was busy
    monkeypatch.setattr(flops, "_achieved", {})
    one = tf.distribute.get_strategy()
    achieved = (5.0, 40.0, 20.0)
    assert [peak_flops(one, "float32", achieved=value) for value in achieved] == [10.0, 40.0, 40.0]
    assert peak_flops(one, "bfloat16") == 10.0
    assert peak_flops(one, "float32", 1e-12, achieved=9.0) == 1.0  # what is told holds
    model, recorder = traced(), Recorder()
    model.fit(growing(), steps_per_epoch=6, callbacks=[Meter(), recorder], verbose=0)
    assert max(record["model_flops_utilization"] for record in recorder.records) == 1


@pytest.mark.parametrize("together", [1, 3])
def test_each_execution_has_its_figures(together, traced):
    model, recorder = traced(together), Recorder()
    model.feed = Feed()
    data = model.feed.counted(slow(0.03, 12))
    settings = {"steps_per_epoch": 12, "verbose": 0, "shuffle": False}
    keras.Model.fit(model, data, callbacks=[Meter(peak_tflops=1e-6), recorder], **settings)  # ours sets another feed
    assert len(recorder.records) == 12 // together
    for record in recorder.records[1:]:
        assert record["step_seconds"] > 0.03
        assert record["tokens_per_second"] * record["step_seconds"] == pytest.approx(4)
        utilization = flops_per_token(model, 4) * record["tokens_per_second"] / 1e6
        assert record["model_flops_utilization"] == pytest.approx(utilization)
        assert 0.03 / record["step_seconds"] <= record["data_wait_share"] <= 1
        assert record["host_memory_gb"] == pytest.approx(host_memory() / 1e9, rel=0.2)


def test_tokens_count_where_the_steps_of_an_execution_differ(classifier, animals):
    """The last step's alone would not do."""
    import kerasformer as kf

    model, recorder = classifier(), Recorder()
    batches, _ = kf.data.classification(
        animals, tokenizer=model.tokenizer, labels=model.labels, max_length=16, batch_size=8, split=0.0
    )
    model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=3, jit_compile=False)
    model.fit(batches, callbacks=[Meter(1.0), recorder], verbose=0)
    counted = sum(3 * record["step_seconds"] * record["tokens_per_second"] for record in recorder.records)
    real = sum(int(inputs["padding_mask"].sum()) for inputs, _ in batches.dataset().as_numpy_iterator())
    assert counted == pytest.approx(real)
    assert real != 3 * sum(record["tokens"] for record in recorder.records)


def test_utilization_is_of_the_batches_that_are_seen(traced):
    model, recorder = traced(), Recorder()
    model.fit(growing(), steps_per_epoch=6, callbacks=[Meter(peak_tflops=1e-6), recorder], verbose=0)
    assert [record["rows"] for record in recorder.records] == [2, 2, 4, 4, 4, 4]
    for record in recorder.records:
        utilization = flops_per_token(model, 6) * record["tokens_per_second"] / 1e6
        assert record["model_flops_utilization"] == pytest.approx(utilization)
    model.fit(slow(0.0, 2), callbacks=[Meter(peak_tflops=1e-6), recorder], verbose=0, shuffle=False)
    for record in recorder.records:  # what the first training was fed is no longer read
        assert record["tokens_per_second"] * record["step_seconds"] == pytest.approx(4)
        utilization = flops_per_token(model, 4) * record["tokens_per_second"] / 1e6
        assert record["model_flops_utilization"] == pytest.approx(utilization)


def test_a_size_of_the_ramp_that_cannot_be_divided_is_named():
    model = gpt()
    model.compile("sgd", accumulate=4, jit_compile=False)
    with pytest.raises(InputError, match="expected a batch_ramp size that 1 replicas of 4 .* divide, got 2; take 4"):
        model.fit(growing(), steps_per_epoch=6, verbose=0)


def test_memory_that_is_taken_shows():
    taken = np.ones(2**24)
    [most] = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert host_memory() == pytest.approx(1024 * int(most.split()[1]), rel=0.01)
    assert host_memory() > taken.nbytes


def test_the_bar_shows_rate_utilization_and_time_left(capsys):
    bar = ProgressBar(steps=4, every=0.0)
    bar.set_model(SimpleNamespace(optimizer=SimpleNamespace(iterations=0)))
    bar.on_train_begin()
    for i in range(2):
        bar.on_train_batch_begin(i)
        figures = {"step_seconds": 0.5, "tokens_per_second": 1234.0, "model_flops_utilization": 0.417}
        bar.on_train_batch_end(i, {"loss": 0.5, "tokens": 617, **figures})
    assert "step 2/4  loss 0.5000  1,234 tokens/s  MFU 42%  1 s left" in capsys.readouterr().err


# The table


def test_a_run_that_goes_on_appends_to_its_table(tmp_path):
    def log(step, **logs):
        table = MetricsTable(tmp_path / "metrics.csv")
        table.set_model(SimpleNamespace(optimizer=SimpleNamespace(iterations=np.int64(step))))
        table.on_train_batch_end(0, logs)

    log(1, loss=0.5, tokens=np.int32(9))
    log(2, tokens=8, loss=float("nan"), new=1.0)
    log(3, loss=0.25)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "1", "loss": "0.5", "tokens": "9"},
        {"step": "2", "loss": "", "tokens": "8"},
        {"step": "3", "loss": "0.25", "tokens": ""},
    ]


# Profiles


@pytest.mark.parametrize(("steps", "together"), [("2:3", 1), ("4:99", 3)])
def test_a_profile_shows_our_operations(steps, together, traced, tmp_path):
    model = traced(together)
    data = slow(0.0).repeat()
    model.fit(data, steps_per_epoch=6, callbacks=[Profile(tmp_path, steps)], verbose=0, shuffle=False)
    [profile] = (tmp_path / "tensorboard/train/plugins/profile").rglob("*.xplane.pb")
    events = profile.read_bytes()
    for name in (b"block_0", b"query_key_value", b"gradient_tape", b"step_num"):
        assert name in events


def test_a_profile_of_steps_that_are_not_made_is_told(traced, tmp_path, caplog):
    model = traced()
    model.optimizer.iterations.assign(4)
    length = {"steps_per_epoch": 4, "initial_epoch": 1, "epochs": 2, "verbose": 0, "shuffle": False}
    model.fit(slow(0.0), callbacks=[Profile(tmp_path, "2:4"), Profile(tmp_path, "9")], **length)
    assert caplog.messages == [
        f"steps {steps} are not profiled here: this training makes 5:8" for steps in ("2:4", "9:9")
    ]
    assert not [*tmp_path.iterdir()]
