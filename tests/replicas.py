"""What Keras or ours makes of toys on two replicas: `replicas.py MAKER FOLDER`, a process that prints JSON by case.

On two parts of the CPU, or with TF_CONFIG on two workers, which share the folder. A toy has one weight
vector w of zeros and predicts w * x; its loss is linear in it, so that each step can be computed in one's head.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasformer.config import Data, Pretrained, Recipe, Train
from kerasformer.errors import InputError
from kerasformer.files import write_json
from kerasformer.training import run as run_module
from kerasformer.training import strategies
from kerasformer.training.checkpoints import Checkpoints
from kerasformer.training.resuming import Training
from kerasformer.training.run import begin, tell_if_not_shared
from kerasformer.training.step import TrainingStep
from kerasformer.training.strategies import distributed, strategy

WORKERS = "TF_CONFIG" in os.environ
OURS, FOLDER = sys.argv[1] == "ours", Path(sys.argv[2])
STRATEGY = strategy("multiworker") if WORKERS else strategy("mirrored", devices=2)


class Toy(keras.Model):
    """Keras's own step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.w = self.add_weight(shape=(1,), initializer="zeros", name="w")
        self.built = True

    def call(self, inputs, training=False):
        return self.w * keras.ops.cast(inputs["token_ids"], self.compute_dtype)


class Rows(NamedTuple):
    """Batches of so many rows of x, each of which is a number."""

    x: list
    batch_size: int

    @property
    def batch_sizes(self):
        return (self.batch_size,)

    @property
    def steps_per_epoch(self):
        return -(-len(self.x) // self.batch_size)


class OurToy(TrainingStep, Toy):
    """Our step."""

    batches_class = Rows

    def training_set(self, batches, first_step, steps):
        return data(batches.x, batches.batch_size).repeat().skip(first_step).take(steps)


class Linear(keras.losses.Loss):
    """The prediction itself is what is lost: the gradient is x."""

    def call(self, y_true, y_pred):
        return keras.ops.cast(y_pred[..., 0], "float32")


def make(ours: bool, optimizer: Callable = lambda: keras.optimizers.SGD(1.0), dtype="float32", **settings) -> Toy:
    with STRATEGY.scope():
        toy = (OurToy if ours else Toy)(dtype=dtype)
        toy.compile(optimizer(), Linear(), **settings)
    return toy


def data(x: list, rows: int, weights: list | None = None, **more: list) -> tf.data.Dataset:
    """Batches of so many rows of x, whose labels are zeros."""
    inputs = {"token_ids": np.array(x, np.float32).reshape(len(x), -1)} | {n: np.array(v) for n, v in more.items()}
    parts = (inputs, np.zeros(len(x), np.int32)) + (() if weights is None else (np.array(weights, np.float32),))
    return tf.data.Dataset.from_tensor_slices(parts).batch(rows)


def weight(toy: Toy) -> float:
    return float(tf.convert_to_tensor(toy.w)[0])


def trained(ours: bool, batches: tf.data.Dataset, fit: dict | None = None, **settings) -> dict:
    toy = make(ours, **settings)
    history = toy.fit(batches, verbose=0, **(fit or {})).history
    iterations = int(tf.convert_to_tensor(toy.optimizer.iterations))
    return {"w": weight(toy), "loss": history["loss"][-1], "iterations": iterations}


def clipping(ours: bool) -> dict:
    """A gradient of 10, cut to 1."""
    return trained(ours, data([10.0] * 4, 4), optimizer=lambda: keras.optimizers.SGD(1.0, global_clipnorm=1.0))


def infinity(ours: bool) -> dict:
    """In float16 the second replica's gradient overflows: the step must be left out on both."""
    batches = data([1.0, 1.0, 6e4, 6e4], 4)
    return trained(ours, batches, dtype="mixed_float16", optimizer=lambda: keras.optimizers.SGD(1.0))


def padding(ours: bool) -> dict:
    """Rows of weight 0 are no rows: the mean of 3, 3 and 9 is 5, though one replica has one of them alone."""
    return trained(ours, data([3.0, 3.0, 9.0, 7.0], 4, [1, 1, 1, 0]))


def accumulation(ours: bool) -> dict:
    """Two micro-batches of each replica: the mean of 1 to 4 is 2.5."""
    if ours:
        return trained(ours, data([1.0, 2.0, 3.0, 4.0], 4), accumulate=2)
    sgd = lambda: keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)  # noqa: E731
    return trained(ours, data([1.0, 3.0, 2.0, 4.0], 2), optimizer=sgd)


def schedule(ours: bool) -> dict:
    """The rate is 1 in the first optimizer step and 0 after it: two steps of two micro-batches end at -1."""
    rate = lambda: keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])  # noqa: E731
    if ours:
        return trained(ours, data([1.0] * 8, 4), accumulate=2, optimizer=lambda: keras.optimizers.SGD(rate()))
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():  # Keras accumulates on one replica alone
        toy = Toy()
        toy.compile(keras.optimizers.SGD(rate(), gradient_accumulation_steps=2), Linear())
    toy.fit(data([1.0] * 8, 2), verbose=0)
    return {"w": weight(toy)}


def executions(ours: bool) -> dict:
    """Four steps in one call."""
    return trained(ours, data([1.0] * 8, 2), steps_per_execution=4)


def rest(ours: bool) -> dict:
    """Five steps in calls of four, of data that tell how many they are, and of data that do not."""
    known = data([1.0] * 10, 2)
    told = [trained(ours, batches, steps_per_execution=4) for batches in (known, known.filter(lambda *_: True))]
    return told[0] | {"same": told[0] == told[1]}


def compiled(ours: bool) -> dict:
    """With XLA."""
    return trained(ours, data([1.0] * 8, 4), jit_compile=True)


def booleans(ours: bool) -> dict:
    """A feature that is true or false."""
    return trained(ours, data([1.0] * 4, 4, padding_mask=[[True], [True], [False], [True]]))


def uneven(ours: bool) -> dict:
    """A first batch of three rows: the mean of 1, 2 and 6 is 3."""
    return trained(ours, data([1.0, 2.0, 6.0], 3))


def interrupted(ours: bool) -> dict:
    """Forty steps that end at the thirteenth, with a backup of every fifth, and go on in another model."""
    rows = Rows([1.0] * 160, 4)

    def go(toy: Toy, **stops) -> None:
        backup = FOLDER / ("ours" if ours else "keras")
        if ours:
            checkpoints = Checkpoints(backup, every=5)
            first = checkpoints.restore(toy)
            toy.fit(rows, verbose=0, initial_step=first, callbacks=[Interruption(**stops), checkpoints])
        else:
            callbacks = [Interruption(**stops), keras.callbacks.BackupAndRestore(backup, save_freq=5)]
            toy.fit(data(*rows), verbose=0, callbacks=callbacks)

    with contextlib.suppress(KeyboardInterrupt):
        go(make(ours), step=13)
    toy = make(ours)
    go(toy)
    return {"w": weight(toy), "iterations": int(tf.convert_to_tensor(toy.optimizer.iterations))}


class Interruption(keras.callbacks.Callback):
    """Ends a training at a step."""

    def __init__(self, step: int = 0):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.step:
            raise KeyboardInterrupt


def position(ours: bool) -> dict:
    """Where the data are after two batches of an epoch: what comes third."""
    numbers = data([float(i) for i in range(16)], 4)
    if ours:
        third = next(iter(distributed(STRATEGY, numbers.skip(2))))
    else:
        iterator = iter(STRATEGY.experimental_distribute_dataset(numbers))
        tf.train.Checkpoint(iterator=iterator).write(str(FOLDER / "iterator"))
        third = None
    return {"third": rows_of(third)}


def once(ours: bool) -> dict:
    """Which of 21 rows this process sees in an epoch of 6 batches: the last has one row, for two replicas."""
    numbers = data([float(i) for i in range(21)], 4)
    shown = distributed(STRATEGY, numbers) if ours else STRATEGY.experimental_distribute_dataset(numbers)
    return {"rows": [rows_of(batch) for batch, _ in zip(shown, range(6), strict=False)]}


def rows_of(batch: tuple) -> list[list[float]]:
    """The rows of each replica of this process."""
    return [part.numpy().ravel().tolist() for part in STRATEGY.experimental_local_results(batch[0]["token_ids"])]


def several_workers(ours: bool) -> dict:
    """Two workers, two steps, and validation."""
    validation = {"validation_data": data([2.0, 2.0, 5.0, 5.0], 4), "epochs": 2}
    return trained(ours, data([1.0, 2.0, 3.0, 4.0], 4), fit=validation)


def hosts(ours: bool) -> dict:
    """What each worker says where the two have different recipes, data, or files of a run; Keras does not look."""
    if not ours:
        return {}
    index = STRATEGY.cluster_resolver.task_id
    strategies.strategy = lambda *_: STRATEGY
    recipe = Recipe("run", Data(Path("a.csv")), Pretrained(Path("bert")), Train(), runs=FOLDER / str(index))

    def said(begun: Callable) -> str | None:
        try:
            begun()
        except InputError as error:
            return str(error).replace(str(FOLDER / str(index)), "RUNS")

    train = dataclasses.replace(recipe.train, epochs=2 + index)
    texts = SimpleNamespace(fingerprint=f"{index}" * 64)
    found = {
        "alike": said(lambda: begin(recipe)),
        "recipe": said(lambda: begin(dataclasses.replace(recipe, train=train))),
        "data": said(lambda: Training(recipe, texts, None, 1, 1).fit(make(True), [], False)),
    }
    if index == 1:
        write_json(new(recipe.folder / "checkpoints" / "step-00000040") / "checkpoint.json", {"step": 40})
    found["checkpoint"] = said(lambda: begin(recipe))
    if index == 0:
        shutil.copytree(FOLDER / "1", FOLDER / "0")
        write_json(recipe.folder / "figures.json", {})
    found |= {"figures": said(lambda: begin(recipe))}
    warned = []
    run_module.logger.addFilter(lambda record: warned.append(record.msg))
    tell_if_not_shared(recipe, STRATEGY)
    if index == 1:
        shutil.rmtree(recipe.folder)
    tell_if_not_shared(recipe, STRATEGY)
    return found | {"warned": warned}


def new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


MIRRORED = {
    "A1": clipping,
    "A2": infinity,
    "A3": padding,
    "A4": accumulation,
    "A5": schedule,
    "A6": executions,
    "rest": rest,
    "A7": compiled,
    "A8": booleans,
    "A10": uneven,
}
MIRRORED |= {"A13": interrupted, "A14": position, "once": once}
CASES = {"hosts": hosts, "A11": several_workers, "A12": interrupted, "once": once} if WORKERS else MIRRORED


def results() -> Iterator[tuple[str, dict]]:
    for name, case in CASES.items():
        try:
            yield name, case(OURS)
        except Exception as error:
            yield name, {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    print(json.dumps(dict(results())))
