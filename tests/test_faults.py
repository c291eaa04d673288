"""What ends a training early, and how it goes on: signals, losses that are no numbers, full disks."""

import dataclasses
import errno
import io
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from resumed import Logs, assert_the_same, learned, table, values_of

from kerasformer.config import Recipe
from kerasformer.errors import InputError, Stopped
from kerasformer.training import state
from kerasformer.training.callbacks import Checkpoints, Finite, MetricsLog
from kerasformer.training.checkpoints import newest
from kerasformer.training.optimizers import adamw, steps_made
from kerasformer.training.run import held
from kerasformer.training.stopping import Stopping
from kerasformer.training.tasks import Classifier
from kerasformer.training.train import train

STEPS = 7  # of an epoch


# Losses that are no numbers


class Faulty(Classifier):
    """Loses a NaN at the steps from the first to the last of `bad`."""

    def weights_of(self, labels, sample_weight):
        weights = super().weights_of(labels, sample_weight)
        step = tf.cast(self.optimizer.iterations, tf.int32) + 1
        return tf.where((step >= self.bad[0]) & (step <= self.bad[1]), np.nan, weights)


@pytest.fixture(scope="module")
def compiled(classifier, animals):
    """A faulty model that is traced once, its data, and the values that it begins with."""
    model, data = table(classifier, animals)
    model = Faulty(model.backbone, model.labels, model.tokenizer)
    model.bad = tf.Variable([0, 0])
    model.compile(adamw(1e-2, steps=20), jit_compile=False)
    return model, data, values_of(model)


@pytest.fixture
def faulty(compiled):
    """Begins anew with a model whose losses at some steps are no numbers, its data, and callbacks that watch it."""
    model, data, values = compiled

    def build(folder, bad, rewind):
        model.bad.assign(bad)
        state.assign(state.variables_of(model), values, "this file")
        checkpoints, logs = Checkpoints(folder, every=2), Logs()
        return model, data, logs, [logs, Finite(data.describe, checkpoints if rewind else None), checkpoints]

    return build


def test_a_loss_that_is_no_number_is_told_with_its_data(faulty, tmp_path):
    model, data, _, callbacks = faulty(tmp_path, (6, 6), rewind=False)
    with pytest.raises(InputError) as caught:
        model.fit(data, verbose=0, callbacks=callbacks)
    callbacks[-1].wait()
    rows = data.order()[5]
    listed = ", ".join(map(str, rows))
    begin = ", ".join(repr(" ".join(data.texts[i].split()[:4])) for i in rows[:4])
    assert str(caught.value) == (
        f"expected a finite loss, got nan at step 6 (examples {listed}, which begin with {begin}); "
        "lower the learning rate (--train.learning_rate), or leave such data out (--train.on_nan rewind)"
    )
    assert newest(tmp_path).step == 4


def test_a_rewind_goes_on_from_the_checkpoint_without_the_batch(faulty, tmp_path, caplog):
    model, data, logs, callbacks = faulty(tmp_path, (6, 6), rewind=True)
    model.fit(data, epochs=2, verbose=0, callbacks=callbacks)
    [message] = [message for message in caplog.messages if "back to" in message]
    assert message.startswith("expected a finite loss, got nan at step 6 (examples ")
    assert message.endswith("): back to the weights of step 4, and on with what follows")
    assert [step for step, found in logs.steps.items() if not np.isfinite(found["loss"])] == [6]
    assert logs.steps[7]["loss"] == logs.steps[7]["step_loss"]  # the running mean begins anew
    assert steps_made(model.optimizer) == 2 * STEPS
    values = values_of(model)

    # The same by hand: the weights of step 4, the data and the rate of step 7.
    other, data, _, _ = faulty(tmp_path, (0, 0), rewind=False)
    [*_, kept] = sorted(tmp_path.iterdir())
    assert kept.name == f"step-{2 * STEPS:08}"
    other.fit(data, steps_per_epoch=4, verbose=0)
    other.optimizer.iterations.assign(6)
    other.fit(data, epochs=2, initial_step=6, verbose=0)
    assert_the_same(values_of(other), values)


def test_three_rewinds_to_a_checkpoint_are_enough(faulty, tmp_path, caplog):
    model, data, _, callbacks = faulty(tmp_path, (5, 99), rewind=True)
    with pytest.raises(InputError, match=r"nan at step 8 \(.*\), 3 rewinds to step 4 before; lower the learning rate"):
        model.fit(data, epochs=3, verbose=0, callbacks=callbacks)
    assert len([message for message in caplog.messages if "back to the weights of step 4" in message]) == 3
    model, data, _, callbacks = faulty(tmp_path / "none", (1, 1), rewind=True)
    with pytest.raises(InputError, match=r"nan at step 1 \(.*\), before the first checkpoint; lower"):
        model.fit(data, verbose=0, callbacks=callbacks)


def test_an_infinite_gradient_is_no_number_either(tmp_path):
    callback = Finite()
    model = type("Model", (), {"optimizer": type("Optimizer", (), {"iterations": 7})()})()
    callback.set_model(model)
    callback.on_train_batch_begin(6)
    callback.on_train_batch_end(6, {"loss": 1e9, "gradient_norm": 1e9})
    with pytest.raises(InputError, match="expected a finite gradient, got inf at step 7; lower"):
        callback.on_train_batch_end(6, {"loss": 1.0, "gradient_norm": np.inf})
    model.optimizer.inner_optimizer = None  # a scaled loss
    callback.on_train_batch_end(6, {"loss": 1.0, "gradient_norm": np.inf})


# Runs


@pytest.fixture(autouse=True)
def interruptible():
    """A process that was started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stopped_run_goes_on_and_a_finished_one_for_longer(run, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "kerasformer")
    whole, _ = run
    run = dataclasses.replace(whole, runs=tmp_path / "runs")
    log = MetricsLog.on_train_batch_end

    def signalled(self, batch, logs=None):
        log(self, batch, logs)
        if steps_made(self.model.optimizer) == STEPS + 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "on_train_batch_end", signalled)
        with pytest.raises(Stopped, match=f"stopped by SIGINT at step {STEPS + 2}, which is saved"):
            train(run)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "loss": 1}\n{"ste')  # as a kill leaves it
    assert train(run).keys() == {"loss", "accuracy", "macro_f1", "train_seconds", "model"}
    assert f"going on from step {STEPS + 2} of {3 * STEPS}" in caplog.messages
    assert newest(run.folder / "checkpoints").callbacks == newest(whole.folder / "checkpoints").callbacks
    for name in ("model/model.safetensors", f"checkpoints/step-{3 * STEPS:08}/state.safetensors"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert learned(run.folder / "metrics.jsonl") == learned(whole.folder / "metrics.jsonl")
    rows = [line.partition(",")[0] for line in (run.folder / "metrics.csv").read_text().splitlines()]
    assert rows == ["step", *map(str, range(1, 3 * STEPS + 1))]

    (run.folder / "figures.json").unlink()  # killed after the training
    caplog.clear()
    train(run)
    assert not any(message.startswith("going on") for message in caplog.messages)
    train(dataclasses.replace(run, train=dataclasses.replace(run.train, epochs=4)))
    assert f"going on from step {3 * STEPS} of {4 * STEPS}" in caplog.messages
    steps = [json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 4 * STEPS + 1)) and len(steps) == 4 * STEPS + 4


def test_other_data_of_the_same_name_are_refused(run, animals, tmp_path):
    begun, _ = run
    table = tmp_path / "animals.csv"
    table.write_text(animals.read_text() + "a new cat,,cat\n")
    other = dataclasses.replace(begun, runs=tmp_path / "runs", data=dataclasses.replace(begun.data, train=table))
    shutil.copytree(begun.folder, other.folder)
    (other.folder / "figures.json").unlink()
    with pytest.raises(InputError, match="expected the data that .* was begun with, got others; bring them back"):
        train(other)


def test_a_run_goes_on_where_its_files_have_moved_and_not_where_they_are_others(recipe, animals, tmp_path, caplog):
    caplog.set_level(logging.INFO, "kerasformer")
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copy(animals, before / "animals.csv")
    shutil.copytree(recipe(tmp_path).model.from_pretrained, before / "bert")

    def files(folder: Path, epochs: int = 2) -> Recipe:
        table = folder / "animals.csv"
        places = {"data": {"train": table, "validation": table}, "model": {"from_pretrained": folder / "bert"}}
        return recipe(tmp_path / "runs", **places, train={"epochs": epochs})

    train(files(before, epochs=1))
    before.rename(after)
    figures = train(files(after))
    assert any(message.startswith("going on from step") for message in caplog.messages)
    shutil.copytree(after, before)  # of a run that is finished
    assert train(files(before)) | {"train_seconds": 0} == figures | {"train_seconds": 0}
    told = json.loads((tmp_path / "runs/animals/recipe.json").read_text())
    assert told["data"]["train"] == str(before / "animals.csv")
    weights = after / "bert/model.safetensors"
    shutil.copytree(after / "bert", tmp_path / "bert")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(
        InputError, match="expected the model.safetensors that .* was begun with, got another; bring it"
    ):
        train(files(after))
    shutil.rmtree(after / "bert")
    (tmp_path / "bert").rename(after / "bert")
    table = (after / "animals.csv").read_text()
    (after / "animals.csv").write_text(table + "a new cat,,cat\n")
    with pytest.raises(InputError, match="expected the data that .* was begun with, got others; bring them back"):
        train(files(after))
    (after / "animals.csv").write_text(table.replace(",dog", ",hound"))
    with pytest.raises(InputError, match="expected the labels that .* was begun with, got another"):
        train(files(after))
    with pytest.raises(InputError, match=r"got --data.validation None \(it was "):
        train(dataclasses.replace(files(after), data=dataclasses.replace(files(after).data, validation=None)))


def test_a_run_is_one_process_s_at_a_time(recipe, tmp_path):
    run = recipe(tmp_path / "runs")
    with held(run, 0), pytest.raises(InputError, match="expected a run that nobody trains, got .*another process does"):
        train(run)
    with held(run, 0):
        assert (run.folder / "recipe.json").exists()


def test_a_second_signal_stops_at_once(caplog):
    with pytest.raises(KeyboardInterrupt), Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.received == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert caplog.messages == ["SIGINT: stopping after this step; a second one stops at once"]


def test_a_signal_in_the_middle_of_a_line_is_told_after_it():
    class Interrupted(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: memoryview) -> int:
            if not self.written:
                signal.raise_signal(signal.SIGTERM)
            self.written += bytes(data)
            return len(data)

    raw = Interrupted()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)
    logger, handler = logging.getLogger("kerasformer"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        with Stopping() as stopping:
            stream.write("step 1\n")
    finally:
        logger.removeHandler(handler)
    assert stopping.received == signal.SIGTERM
    assert raw.written == b"step 1\nSIGTERM: stopping after this step; a second one stops at once\n"


# Disks that are full


def test_a_full_disk_ends_the_training_and_leaves_the_last_checkpoint(faulty, tmp_path, monkeypatch):
    write = state.write_arrays

    def full(file, arrays):
        write(file, arrays)
        if "step-00000004" in str(file):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "write_arrays", full)
    model, data, _, _ = faulty(tmp_path, (0, 0), rewind=False)
    with pytest.raises(InputError) as caught:
        model.fit(data, epochs=3, verbose=0, callbacks=[Checkpoints(tmp_path, every=2)])
    assert str(caught.value) == (
        f"expected room for a checkpoint in {tmp_path}, got [Errno 28] No space left on device: "
        f"'{tmp_path / 'step-00000004'}'; make room and train on from the last one, step-00000002"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_log_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.set_model(type("Model", (), {"optimizer": type("Optimizer", (), {"iterations": 7})()})())
    log.on_train_batch_end(0, {"loss": 1.0})
    log.on_train_batch_end(1, {"loss": 1.0})
    said = f"{log.path} cannot be written ([Errno 28] No space left on device): the training goes on without"
    assert caplog.messages == [said]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from kerasformer.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "code", "said"),
    [
        # Room for all but TensorBoard's events and the log; for the model too, but not its optimizer; for no model.
        (200_000, 0, "tensorboard cannot be written"),
        (60_000, 2, "expected room for a checkpoint in "),
        (20_000, 2, "expected files that can be read and written, got "),
    ],
)
def test_files_that_can_grow_no_further(recipe, tmp_path, limit, code, said):
    """A limit of the operating system on a file's size: real errors from every write beyond it."""
    made = recipe(tmp_path / "runs")
    (tmp_path / "recipe.py").write_text(f"from kerasformer.config import *\nfrom pathlib import *\nrecipe = {made!r}\n")
    command = [sys.executable, "-c", LIMITED, str(limit), "train", str(tmp_path / "recipe.py"), "--train.epochs", "40"]
    result = subprocess.run([*command, "--train.checkpoint_every", "9"], capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not [*tmp_path.rglob(".step-*")]
