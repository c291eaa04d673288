"""What going on from a checkpoint costs, and what writing one costs: python benchmarks/restart.py.

A GPT (4 layers, dim 256, a vocabulary of 8,192) on a synthetic text whose epoch has more than a million steps. First
how long a process takes from a compiled model to the end of its first step: from the start, from step 10 and from step
1,000,000, the fastest of three tries. Then the time of a step with and without checkpoints being written. Each in a
process of its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results/restart.json"
STEPS = (10, 1_000_000)
BATCH, LENGTH, MEASURED, TRIES = 8, 64, 60, 3


def main() -> None:
    if sys.argv[1:]:
        mode, folder, step = sys.argv[1:]
        print(json.dumps({"save": save, "go_on": go_on, "write": write}[mode](Path(folder), int(step))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            run("save", f"{folder}/{step}", step)
        tries = {"from the start": []} | {f"from step {step:,}": [] for step in STEPS}
        for _ in range(TRIES):  # in turn, so that a machine's drift meets all
            for name, step in zip(tries, (0, *STEPS), strict=True):
                tries[name].append(run("go_on", f"{folder}/{step}", step))
        results = {name: min(found, key=lambda figures: figures["seconds"]) for name, found in tries.items()}
        for step in STEPS:
            found = results[f"from step {step:,}"]
            found["restart_seconds"] = found["seconds"] - results["from the start"]["seconds"]
        results["writing"] = run("write", f"{folder}/write", 0)
    for name, figures in results.items():
        print(f"{name:20}", "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def run(mode: str, folder: str, step: int) -> dict[str, float]:
    """What the last line of a child's output says."""
    command = [sys.executable, __file__, mode, folder, str(step)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def compiled() -> tuple:
    """A model and its data; NumPy gives zeros that take no memory until they are read."""
    import keras
    import numpy as np

    import kerasformer as kf
    from kerasformer.data.corpus import Corpus, Counts, Split
    from kerasformer.data.windows import Windows

    keras.utils.set_random_seed(0)
    tokens = (STEPS[-1] + 1000) * BATCH * LENGTH
    stream = Split([np.zeros(tokens, np.uint16)], Counts(documents=1, tokens=tokens, bytes=tokens))
    data = Windows(
        Corpus("zeros", {"train": stream}, 8192, lambda: None), batch_size=BATCH, max_length=LENGTH, order="consecutive"
    )
    config = kf.GPTConfig(vocab_size=8192, num_layers=4, num_heads=4, dim=256, mlp_dim=1024, max_length=LENGTH)
    model = kf.CausalLM(kf.GPT(config))
    model.compile(kf.optimizers.adamw(1e-3, steps=2 * STEPS[-1]))
    return model, data


def save(folder: Path, step: int) -> dict[str, float]:
    """Writes a checkpoint of that step."""
    import kerasformer as kf

    model, _ = compiled()
    checkpoints = kf.callbacks.Checkpoints(folder)
    checkpoints.set_model(model)
    model.optimizer.iterations.assign(step)
    checkpoints.save()
    checkpoints.wait()
    return {}


def go_on(folder: Path, step: int) -> dict[str, float]:
    """Seconds from a compiled model to the end of its first step, and those of restoring."""
    import keras

    import kerasformer as kf

    model, data = compiled()
    seconds = {}

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seconds["seconds"] = time.perf_counter() - begun
            self.model.stop_training = True

    begun = time.perf_counter()
    first = kf.callbacks.Checkpoints(folder).restore(model)
    seconds["restore_seconds"] = time.perf_counter() - begun
    assert first == step
    model.fit(data, epochs=1, initial_step=first, callbacks=[Stop()], verbose=0)
    return seconds


def write(folder: Path, step: int) -> dict[str, float]:
    """Milliseconds of a step on average without checkpoints and with six, and of the copy that steps wait for."""
    import keras

    import kerasformer as kf

    model, data = compiled()
    copies, found = [], {}

    class Timed(kf.callbacks.Checkpoints):
        def save(self, finished: bool = False) -> None:
            begun = time.perf_counter()
            super().save(finished)
            copies.append(time.perf_counter() - begun)

    class Time(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                self.begun = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.mean = 1e3 * (time.perf_counter() - self.begun) / (batch - 1) if batch >= 2 else 0

    for name, callbacks in {
        "without": [],
        "with": [Timed(folder, MEASURED // 6)],
    }.items():
        timer = Time()
        model.optimizer.iterations.assign(step)
        model.fit(data, steps_per_epoch=MEASURED, callbacks=[*callbacks, timer], verbose=0)
        found[f"step_ms_{name}"] = timer.mean
    size = next(folder.rglob("*.safetensors")).stat().st_size
    return {**found, "copy_ms": 1e3 * statistics.median(copies), "megabytes": size / 1e6}


if __name__ == "__main__":
    main()
