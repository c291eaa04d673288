"""Checkpoints and exact resume in one process: what is saved, restored, refused and survived."""

import contextlib
import functools
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from resumed import Logs, assert_the_same, table, values_of

from kerasformer.data.language import language_modelling
from kerasformer.errors import InputError
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.text.vocabulary import train_char
from kerasformer.training import checkpoints as module
from kerasformer.training import state
from kerasformer.training.callbacks import Checkpoints
from kerasformer.training.checkpoints import newest
from kerasformer.training.optimizers import adamw, muon, steps_made
from kerasformer.training.tasks import CausalLM

STEPS = 7  # of an epoch of the table: 54 texts in batches of 8


class Killed(BaseException):
    """Stands for the end of a process."""


class Kill(keras.callbacks.Callback):
    """Ends a training after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if steps_made(self.model.optimizer) == self.step:
            raise Killed


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the cat sat on the mat . a dog ran . " * 60)
    return path


@pytest.fixture(scope="module")
def make(classifier, animals, text):
    """Makes a compiled model and its data: `make("gpt", policy, optimizer, accumulate)`."""

    def gpt(policy):
        tokenizer = train_char([text.read_text()])
        windows, _ = language_modelling(text, tokenizer=tokenizer, max_length=16, batch_size=8, validation=0.0)
        rates = {"dropout": 0.1, "attention_dropout": 0.1}
        sizes = {"num_layers": 1, "num_heads": 2, "dim": 16, "mlp_dim": 32, "max_length": 16}
        return CausalLM(GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **sizes, **rates), dtype=policy)), windows

    def build(kind="table", policy="float32", optimizer=adamw, accumulate=1):
        keras.utils.set_random_seed(0)
        model, data = gpt(policy) if kind == "gpt" else table(classifier, animals, policy)
        model.compile(optimizer(1e-2, steps=3 * STEPS), accumulate=accumulate, jit_compile=False)
        return model, data

    return build


@pytest.fixture(scope="module")
def begun(make):
    """Makes what `make` does, traced once in this file: a model with the values that it began with."""
    made = {}

    def build(**settings):
        key = tuple(settings.items())
        if key not in made:
            model, data = make(**settings)
            made[key] = model, data, values_of(model)
        model, data, values = made[key]
        state.assign(state.variables_of(model), values, "this file")
        return model, data

    return build


def overflowing(rate, steps, **settings):
    """Of float16: it leaves out the first steps, and some later on."""
    optimizer = adamw(rate, steps=steps, **settings)
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**20, dynamic_growth_steps=3)


OVERFLOWING = {"kind": "gpt", "policy": "mixed_float16", "optimizer": overflowing}


# Exact resume


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "table"},
        OVERFLOWING,
        pytest.param({"kind": "table", "optimizer": muon, "accumulate": 2}, marks=pytest.mark.slow),
        pytest.param({"kind": "gpt"}, marks=pytest.mark.slow),
        pytest.param({"kind": "gpt", "policy": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"kind": "table", "policy": "mixed_bfloat16", "accumulate": 2}, marks=pytest.mark.slow),
        pytest.param({"kind": "gpt", "accumulate": 2}, marks=pytest.mark.slow),
        pytest.param({"kind": "gpt", "policy": "mixed_bfloat16", "optimizer": muon}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: " ".join(getattr(value, "__name__", str(value)) for value in settings.values()),
)
def test_a_training_goes_on_as_if_it_had_not_been_killed(make, begun, settings, tmp_path):
    """Killed within the second epoch, after the checkpoint of its third step."""
    length = {"epochs": 2, "steps_per_epoch": STEPS, "verbose": 0}
    whole, data = begun(**settings)
    expected = Logs()
    whole.fit(data, callbacks=[expected], **length)
    values = values_of(whole)
    found = Logs()
    for killed_at, restored, build in ((STEPS + 5, 0, begun), (None, STEPS + 3, make)):
        model, data = build(**settings)
        checkpoints = Checkpoints(tmp_path / "checkpoints", every=5)
        step = checkpoints.restore(model)
        assert step == restored
        callbacks = [found, checkpoints, *([Kill(killed_at)] if killed_at else [])]
        try:
            model.fit(data, initial_step=step, callbacks=callbacks, **length)
        except Killed:
            checkpoints.wait()
    assert_the_same(values_of(model), values)
    np.testing.assert_equal(found.steps, expected.steps)  # the running means as well; NaN is the norm of what overflows
    np.testing.assert_equal(found.epochs, expected.epochs)


def test_a_step_that_is_left_out_is_one_all_the_same(begun):
    model, data = begun(**OVERFLOWING)
    before = model.get_weights()
    model.fit(data, steps_per_epoch=3, verbose=0)
    assert steps_made(model.optimizer) == 3
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_no_averages_where_first_steps_may_be_left_out(make):
    with pytest.raises(InputError, match="expected no moving averages with scaled losses"):
        make("gpt", "mixed_float16", functools.partial(overflowing, ema=0.9))


def test_moving_averages_go_on_and_take_the_weights_place_at_the_end_alone(make, begun, tmp_path):
    """Killed within the first epoch, whose rest ends a `fit` of Keras's."""
    length = {"epochs": 2, "steps_per_epoch": STEPS, "verbose": 0}
    averaging = functools.partial(adamw, ema=0.9)
    whole, data = begun(optimizer=averaging)
    whole.fit(data, **length)
    values = values_of(whole)
    for restored, build in ((0, begun), (3, make)):
        model, data = build(optimizer=averaging)
        checkpoints = Checkpoints(tmp_path / "checkpoints", every=3)
        assert checkpoints.restore(model) == restored
        with contextlib.suppress(Killed):
            kill = [] if restored else [Kill(5)]
            model.fit(data, initial_step=restored, callbacks=[checkpoints, *kill], **length)
        checkpoints.wait()
    assert_the_same(values_of(model), values)


def test_names_are_those_of_any_process(make):
    first, _ = make()
    second, _ = make()
    names = state.variables_of(first).keys()
    assert names == state.variables_of(second).keys()
    assert {"model/bert/embedding/token/embeddings", "model/head/kernel", "optimizer/iteration"} <= names
    assert {"optimizer/bert/pooler/kernel/momentum", "optimizer/head/kernel/velocity"} <= names
    assert "model/seed_generator/seed_generator_state#2" in names
    assert len(names) == len(first.variables) + len(first.optimizer.variables)


# Files


@pytest.fixture(scope="module")
def trained(begun, tmp_path_factory):
    """A folder with the checkpoints of steps 2, 4 and 6, and the values that the model had then."""
    model, data = begun(kind="table")
    folder = tmp_path_factory.mktemp("trained") / "checkpoints"
    model.fit(data, steps_per_epoch=6, verbose=0, callbacks=[Checkpoints(folder, every=2, keep=3)])
    return folder, values_of(model)


@pytest.fixture
def saved(trained, tmp_path):
    """The same in a folder of its own."""
    return shutil.copytree(trained[0], tmp_path / "checkpoints"), trained[1]


def test_a_checkpoint_is_a_safetensors_file_and_what_is_told_of_it(saved):
    folder, expected = saved
    found = newest(folder)
    assert (found.step, found.finished, found.callbacks) == (6, True, [])
    assert {path.name for path in found.folder.iterdir()} == {"state.safetensors", "checkpoint.json"}
    arrays, metrics = found.arrays()
    assert_the_same(arrays, expected)
    assert metrics.keys() == {f"metrics/{name}" for name in ("loss/total", "loss/count")} | {
        "metrics/accuracy/total",
        "metrics/accuracy/count",
    }
    told = json.loads((found.folder / "checkpoint.json").read_text())
    assert told["versions"]["keras"] == keras.__version__


BREAKAGES = {
    "cut": lambda path: os.truncate(path / "state.safetensors", 1000),
    "bit": lambda path: flip(path / "state.safetensors"),
    "no state": lambda path: (path / "state.safetensors").unlink(),
    "no details": lambda path: (path / "checkpoint.json").unlink(),
    "half of the details": lambda path: (path / "checkpoint.json").write_text('{"step": 6, "sha'),
    "other details": lambda path: (path / "checkpoint.json").write_text('{"step": 6}'),
    "empty": lambda path: [file.unlink() for file in path.iterdir()],
}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, breakage, caplog, make):
    folder, _ = saved
    BREAKAGES[breakage](folder / "step-00000006")
    (folder / ".step-00000007-abc").mkdir()  # as a kill leaves it
    model, _ = make()
    assert Checkpoints(folder).restore(model) == steps_made(model.optimizer) == 4
    [record] = caplog.records
    assert record.message.startswith("checkpoint step-00000006 is damaged (")
    assert record.message.endswith("): going back to the one before") and "\n" not in record.message
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004"]


def test_arrays_of_each_type_come_back_bit_for_bit(tmp_path):
    arrays = {name: np.frombuffer(bytes(range(64)), tf.as_dtype(name).as_numpy_dtype) for name in state.TYPES}
    arrays |= {"bool": np.array([[True], [False]]), "empty": np.zeros([3, 0], np.int32), "one": np.array(2.5)}
    state.write_arrays(tmp_path / "state.safetensors", arrays)
    assert_the_same(state.read_arrays(tmp_path / "state.safetensors"), arrays)


def test_nothing_is_left_of_a_training_that_is_over(saved, make):
    folder, expected = saved
    model, data = make()
    checkpoints = Checkpoints(folder)
    step = checkpoints.restore(model)
    model.fit(data, steps_per_epoch=6, initial_step=step, verbose=0, callbacks=[checkpoints])
    assert_the_same(values_of(model), expected)


def test_damaged_checkpoints_alone_are_an_error(saved, make):
    folder, _ = saved
    for path in folder.iterdir():
        flip(path / "state.safetensors")
    model, _ = make()
    before = values_of(model)
    with pytest.raises(InputError, match="expected a whole checkpoint in .*, got 3 damaged ones; bring one back"):
        Checkpoints(folder).restore(model)
    assert_the_same(values_of(model), before)
    assert len([*folder.iterdir()]) == 3


def test_other_versions_are_told_and_no_hindrance(saved, make, caplog):
    folder, expected = saved
    path = folder / "step-00000006/checkpoint.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"versions": told["versions"] | {"keras": "3.9.2", "numpy": "1.26"}}))
    model, _ = make()
    assert Checkpoints(folder).restore(model) == 6
    assert_the_same(values_of(model), expected)
    assert caplog.messages == [
        "checkpoint step-00000006 was written with keras 3.9.2, numpy 1.26, which are others now: the training goes "
        "on, but maybe not bit for bit as it would have there"
    ]


def test_the_checkpoint_of_another_model_is_refused(saved, make):
    folder, _ = saved
    model, _ = make("gpt")
    before = values_of(model)
    message = r"expected model/\S+ as no variable, got \(.*\) in .*step-00000006; restore it into the model and"
    with pytest.raises(InputError, match=message):
        Checkpoints(folder).restore(model)
    assert_the_same(values_of(model), before)


def test_a_folder_of_later_steps_is_not_written_into(saved, make):
    folder, _ = saved
    model, data = make()
    with pytest.raises(InputError, match="without checkpoints of later steps, got step-00000006; restore it or"):
        model.fit(data, verbose=0, callbacks=[Checkpoints(folder)])
    assert len([*folder.iterdir()]) == 3


@pytest.mark.parametrize("settings", [{"every": -1}, {"keep": 0}])
def test_settings_out_of_range(settings, tmp_path):
    [(name, _)] = settings.items()
    with pytest.raises(InputError, match=f"expected {name} of at least"):
        Checkpoints(tmp_path, **settings)


def test_time_decides_where_nobody_says_how_many_steps(begun, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MINUTES", 0)
    model, data = begun(kind="table")
    model.fit(data, steps_per_epoch=5, verbose=0, callbacks=[Checkpoints(tmp_path / "checkpoints")])
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000004", "step-00000005"]


def test_nothing_that_is_no_number_is_saved(make, tmp_path, caplog):
    model, _ = make()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    model.optimizer.iterations.assign(1)
    checkpoints.save()
    model.optimizer.iterations.assign(2)
    model.trainable_variables[0].assign(model.trainable_variables[0] * np.nan)
    checkpoints.save()
    checkpoints.wait()
    assert newest(tmp_path).step == 1
    assert "step 2 is not saved: model/bert/embedding/token/embeddings is no longer finite" in caplog.messages
