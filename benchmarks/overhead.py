"""What `fit` costs over a bare loop, and what two replicas make of one machine: `python benchmarks/overhead.py`.

A bare loop is one tf.function with a tape, a clip and an update around the same model, loss, optimizer and batches.
Loop and `fit` take turns in one process; so do, in processes of their own, one device and two halves of the CPU with
the same batch. A step's time is from its end to the next one's, with everything that lies between, and the median is
told. Prints a table and writes JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results/overhead.json"
# Layers, heads, width, length, rows, vocabulary: of nanoGPT's recipe for a CPU, and of benchmarks/gpt.py.
SIZES = {"small": (4, 4, 128, 64, 12, 65), "medium": (4, 4, 256, 256, 8, 8192)}
WARM_UP = 5


def contestants(size: str, devices: int) -> dict[str, Callable[[int], float]]:
    """What runs so many steps and tells the median of their milliseconds."""
    import keras
    import numpy as np
    import tensorflow as tf

    import kerasformer as kf
    from kerasformer import backend

    layers, heads, dim, length, rows, vocab = SIZES[size]
    where = kf.strategy("mirrored" if devices > 1 else "one", devices=devices)
    keras.utils.set_random_seed(0)
    with where.scope():
        config = kf.GPTConfig(vocab, layers, heads, dim, 4 * dim, length, dropout=0.0, attention_dropout=0.0)
        model = kf.CausalLM(kf.GPT(config))
        model.compile(kf.optimizers.adamw(1e-3, steps=10_000))
    tokens = np.random.default_rng(0).integers(0, vocab, (64 * rows, length + 1)).astype(np.int32)
    columns = ({"token_ids": tokens[:, :-1]}, tokens[:, 1:])
    batches = tf.data.Dataset.from_tensor_slices(columns).batch(rows, drop_remainder=True).repeat()

    class Ends(keras.callbacks.Callback):
        """When each step ended."""

        def on_train_begin(self, logs=None):
            self.times = []

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            self.times.append(time.perf_counter())

    def fit(steps: int) -> float:
        ends = Ends()
        model.fit(batches, steps_per_epoch=steps + WARM_UP, verbose=0, shuffle=False, callbacks=[ends])
        return median(ends.times)

    if devices > 1:
        return {"fit": fit}
    optimizer = kf.optimizers.adamw(1e-3, steps=10_000, clip_norm=None)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs: dict, labels: tf.Tensor) -> tf.Tensor:
        with backend.fusing():  # loop and `fit` run the same kernels
            with tf.GradientTape() as tape:
                losses, _ = model.sum_losses(inputs, labels, tf.ones(labels.shape), training=True)
                loss = losses / labels.shape.num_elements()
            gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        gradients, _ = tf.clip_by_global_norm([tf.convert_to_tensor(gradient) for gradient in gradients], 1.0)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    def loop(steps: int) -> float:
        times = []
        for inputs, labels in batches.take(steps + WARM_UP):
            float(step(inputs, labels))
            times.append(time.perf_counter())
        return median(times)

    return {"loop": loop, "fit": fit}


def median(times: list[float]) -> float:
    """Of the milliseconds between ends of steps, after the first few."""
    times = times[WARM_UP - 1 :]
    return 1e3 * statistics.median(after - before for before, after in zip(times, times[1:], strict=False))


def measured(size: str, devices: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """The contestants of a process, in turn."""
    command = [
        sys.executable,
        __file__,
        "--measure",
        size,
        str(devices),
        "--steps",
        str(steps),
        "--rounds",
        str(rounds),
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of a turn (default: 40)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        size, devices = arguments.measure
        makers = contestants(size, int(devices))
        turns = [{name: make(arguments.steps) for name, make in makers.items()} for _ in range(arguments.rounds)]
        print(json.dumps({name: [turn[name] for turn in turns] for name in makers}))
        return
    table, results = Table("", "loop, ms", "fit, ms", "fit / loop", "two halves, ms", "tokens/s of one device's"), {}
    for size in arguments.sizes:
        one, two = (measured(size, devices, arguments.steps, arguments.rounds) for devices in (1, 2))
        loop, fit, halves = (min(turns) for turns in (one["loop"], one["fit"], two["fit"]))
        results[size] = {"one": one, "two": two, "overhead": fit / loop - 1, "share_of_one": fit / halves}
        table.add_row(
            size,
            *(f"{value:.1f}" for value in (loop, fit)),
            f"{fit / loop:.3f}",
            f"{halves:.1f}",
            f"{fit / halves:.2f}",
        )
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
