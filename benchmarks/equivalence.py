"""One training, however it is divided: `python benchmarks/equivalence.py`; `--settings "2 devices" "XLA"` for some.

Tiny models of every head, in float32, on the same padded batches: gradients of the first step and weights after 20
steps of SGD with momentum, and losses of 20 steps of AdamW, each against one device's. Beside it stands stock Keras on
the same model and data, with its own accumulation, XLA and steps per execution, against itself on one device: it
differs or fails. Prints a table and writes JSON.

AdamW divides a gradient by its own size. Where it is zero but for rounding, as of a key's bias, that makes full steps
of the rounding noise: so its weights are not compared, and its losses only to 1e-4.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kerasformer.training.launch import environments

STEPS, ROWS, LENGTH, VOCAB = 20, 8, 12, 40
# Relative to one device's. float32 sums in another order differ by about 1e-7, and 20 steps add to that.
BARS = {"gradients": 1e-5, "weights": 1e-5, "losses": 1e-4}
HEADS = ("classifier", "masked", "gpt")


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a training is divided."""

    devices: int = 1
    workers: int = 1
    accumulate: int = 1
    steps_per_execution: int = 1
    xla: bool = False


SETTINGS = {
    "accumulate 2": Setting(accumulate=2),
    "accumulate 4": Setting(accumulate=4),
    "5 steps per execution": Setting(steps_per_execution=5),
    "XLA": Setting(xla=True),
    "2 devices": Setting(devices=2),
    "2 devices, 5 steps": Setting(devices=2, steps_per_execution=5),
    "2 devices, accumulate 2, 5 steps": Setting(devices=2, accumulate=2, steps_per_execution=5),
    "2 devices, XLA": Setting(devices=2, xla=True),
    "2 devices, all of it": Setting(devices=2, accumulate=2, steps_per_execution=5, xla=True),
    "2 workers": Setting(workers=2),
    "2 workers, all of it": Setting(workers=2, accumulate=2, steps_per_execution=5, xla=True),
}


def batches() -> tuple[dict, dict, dict]:
    """Padded inputs, and by head labels and weights, [STEPS, ROWS, ...] each."""
    random = np.random.default_rng(0)
    shape = (STEPS, ROWS, LENGTH)
    real = np.arange(LENGTH) < random.integers(2, LENGTH + 1, (STEPS, ROWS, 1))
    ids = np.where(real, random.integers(5, VOCAB, shape), 0)
    inputs = {"token_ids": ids, "segment_ids": np.zeros(shape), "padding_mask": real}
    masked = real & (random.random(shape) < 0.3)
    following = np.roll(ids, -1, axis=-1)
    follows = real & np.roll(real, -1, axis=-1) & (np.arange(LENGTH) < LENGTH - 1)
    labels = {
        "classifier": random.integers(0, 3, shape[:2]),
        "masked": np.where(masked, ids, -1),
        "gpt": np.where(follows, following, -1),
    }
    weights = {"classifier": random.integers(0, 3, shape[:2]), "masked": masked, "gpt": follows}
    integers = [{name: array.astype(np.int32) for name, array in group.items()} for group in (inputs, labels)]
    return *integers, {name: array.astype(np.float32) for name, array in weights.items()}


def model_of(head: str, stock: bool):
    """A head with weights that are the same every time; a stock one has Keras's training step."""
    import keras

    from kerasformer.models import heads
    from kerasformer.models.bert.config import BertConfig
    from kerasformer.models.bert.model import Bert
    from kerasformer.models.gpt.config import GPTConfig
    from kerasformer.models.gpt.model import GPT
    from kerasformer.training import tasks

    sizes = {"vocab_size": VOCAB, "max_length": LENGTH, "num_layers": 2, "num_heads": 2, "dim": 32, "mlp_dim": 64}
    rates = {"dropout": 0.0, "attention_dropout": 0.0}
    keras.utils.set_random_seed(0)
    kinds = heads if stock else tasks
    match head:
        case "classifier":
            return kinds.Classifier(Bert(BertConfig(**sizes, **rates)), ["a", "b", "c"])
        case "masked":
            return kinds.MaskedLM(Bert(BertConfig(**sizes, **rates)))
        case "gpt":
            return kinds.CausalLM(GPT(GPTConfig(**sizes, **rates)))


def measure(
    setting: Setting, stock: bool, heads: Sequence[str], figures: Sequence[str] = tuple(BARS)
) -> dict[str, np.ndarray]:
    """The figures of these heads in this process, or of this worker; an error as text."""
    import keras
    import tensorflow as tf

    from kerasformer.training.losses import Crossentropy
    from kerasformer.training.strategies import strategy

    name = "multiworker" if setting.workers > 1 else "mirrored" if setting.devices > 1 else "one"
    where = strategy(name, devices=setting.devices)
    inputs, labels, weights = batches()
    parts = setting.accumulate if stock else 1  # Keras adds up over steps, we within one
    rows = ROWS // parts

    def trained(head: str, optimizer: keras.Optimizer, steps: int) -> tuple[keras.Model, list[float]]:
        names = ("token_ids",) if head == "gpt" else inputs
        flat = lambda array: array[:steps].reshape(-1, *array.shape[2:])  # noqa: E731
        # Stock Keras has no labels of nothing: what is not to be predicted has weight 0.
        target = np.maximum(labels[head], 0) if stock else labels[head]
        columns = ({name: flat(inputs[name]) for name in names}, flat(target), flat(weights[head]))
        data = tf.data.Dataset.from_tensor_slices(columns).batch(rows, drop_remainder=True)
        with where.scope():
            model = model_of(head, stock)
            settings = {"steps_per_execution": setting.steps_per_execution if steps > 1 else 1}
            settings["jit_compile"] = setting.xla
            if not stock:
                settings["accumulate"] = setting.accumulate
            model.compile(optimizer(), loss=Crossentropy(), **settings)
        history = Losses()
        model.fit(data, verbose=0, shuffle=False, callbacks=[history])
        return model, history.losses

    class Losses(keras.callbacks.Callback):
        """The running mean of the losses after each execution, as stock Keras tells no more."""

        def on_train_begin(self, logs=None):
            self.losses = []

        def on_train_batch_end(self, batch, logs=None):
            self.losses.append(float(logs["loss"]))

    accumulation = {"gradient_accumulation_steps": parts} if parts > 1 else {}
    sgd = lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0, **accumulation)  # noqa: E731
    adamw = lambda: keras.optimizers.AdamW(1e-3, global_clipnorm=1.0, **accumulation)  # noqa: E731
    read = lambda variables: np.concatenate([tf.convert_to_tensor(v).numpy().ravel() for v in variables])  # noqa: E731
    every = 5 * parts // setting.steps_per_execution  # executions that read five batches
    figure_of = {
        "gradients": lambda head: read(trained(head, sgd, 1)[0].optimizer.momentums),  # -0.1 times the clipped gradient
        "weights": lambda head: read(trained(head, sgd, STEPS)[0].trainable_variables),
        "losses": lambda head: np.array(trained(head, adamw, STEPS)[1][every - 1 :: every]),
    }
    found = {}
    for head in heads:
        try:
            found |= {f"{head}/{figure}": figure_of[figure](head) for figure in figures}
        except Exception as error:
            found[f"{head}/error"] = np.array(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return found


def run(
    setting: Setting,
    stock: bool,
    heads: Sequence[str] = HEADS,
    figures: Sequence[str] = tuple(BARS),
    timeout: float = 300,
) -> dict[str, np.ndarray]:
    """`measure` in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.npz"
        command = [sys.executable, __file__, "--measure", json.dumps(dataclasses.asdict(setting))]
        command += ["--heads", *heads, "--figures", *figures]
        own = environments(setting.workers) if setting.workers > 1 else [{}]
        processes = [
            subprocess.Popen(
                [*command, "--output", path if i == 0 else os.devnull, *(["--stock"] if stock else [])],
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
                stderr=subprocess.PIPE,
            )
            for i, environment in enumerate(own)
        ]
        try:
            said = [process.communicate(timeout=timeout)[1] for process in processes]
        except subprocess.TimeoutExpired:
            said = [b"no answer in time"]
        finally:
            for process in processes:
                process.kill()
        if not path.exists():
            last = said[0].decode(errors="replace").strip().splitlines()[-1:]
            return {f"{head}/error": np.array(" ".join(last)) for head in heads}
        with np.load(path) as file:
            return dict(file)


def distances(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> Iterator[tuple[str, str, float | str]]:
    """Head, figure, and its distance to the reference's, relative to that one's norm; or the error."""
    for head in dict.fromkeys(name.split("/")[0] for name in found):
        if f"{head}/error" in found:
            yield head, "error", str(found[f"{head}/error"])
            continue
        for figure in [figure for figure in BARS if f"{head}/{figure}" in found]:
            ours, theirs = (np.float64(values[f"{head}/{figure}"]) for values in (found, reference))
            yield head, figure, float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def compare(settings: list[str], makers: list[str], heads: Sequence[str]) -> list[dict]:
    """A record for each setting, maker, head and figure."""
    references = {maker: run(Setting(), maker == "keras", heads) for maker in makers}
    records = []
    for name in settings:
        for maker in makers:
            found = run(SETTINGS[name], maker == "keras", heads)
            for head, figure, value in distances(found, references[maker]):
                records.append({"setting": name, "maker": maker, "head": head, "figure": figure, "value": value})
                shown = f"{value:.1e}" if isinstance(value, float) else value[:90]
                print(f"{name:33} {maker:7} {head:11} {figure:10} {shown}", flush=True)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--makers", nargs="+", choices=["ours", "keras"], default=["ours", "keras"])
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    parser.add_argument("--figures", nargs="+", choices=list(BARS), default=list(BARS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/equivalence.json"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--stock", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        found = measure(Setting(**json.loads(arguments.measure)), arguments.stock, arguments.heads, arguments.figures)
        with arguments.output.open("wb") as file:
            np.savez(file, **found)
        return
    records = compare(arguments.settings, arguments.makers, arguments.heads)
    ours = [record for record in records if record["maker"] == "ours"]
    wrong = [r for r in ours if r["figure"] == "error" or not r["value"] <= BARS[r["figure"]]]
    if ours:
        print(f"{len(ours) - len(wrong)} of {len(ours)} figures of ours are within {BARS}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
