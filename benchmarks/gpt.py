"""Training a GPT, beside KerasHub, `transformers` and a plain torch loop: `make bench-gpt`.

First steps of one size (4 layers, dim 256, 4 heads, 256 tokens, batch 8, a vocabulary of 8,192, AdamW) in each
library's modes. Then, with --text FILE, nanoGPT's recipe for a CPU on that file, from the first step to the last. All
run in turn, each in a process of its own, so that a machine's drift meets all of them; what counts is the ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results/gpt.json"
KERAS = HERE / "gpt_keras.py"
OURS = [sys.executable, KERAS, "ours"]
HUB = [".venv-keras-hub/bin/python", KERAS, "keras_hub"]
TORCH = [".venv-peers/bin/python", HERE / "gpt_torch.py"]
STEPS = {
    "kerasformer, bfloat16": [*OURS, "bfloat16", "auto"],
    "kerasformer, float32": [*OURS, "float32", "auto"],
    "kerasformer, float32, XLA": [*OURS, "float32", "xla"],
    "KerasHub, default (float32, XLA)": [*HUB, "float32", "auto"],
    "KerasHub, float32": [*HUB, "float32", "none"],
    "KerasHub, bfloat16": [*HUB, "bfloat16", "none"],
    "transformers, float32": [*TORCH, "step", "float32"],
    "transformers, bfloat16 autocast": [*TORCH, "step", "bfloat16"],
    "transformers, float32, torch.compile": [*TORCH, "step", "compiled-float32"],
    "transformers, bfloat16 autocast, torch.compile": [*TORCH, "step", "compiled-bfloat16"],
}
RECIPES = ("gpt_shakespeare_char", "gpt_shakespeare_fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of each contestant (default: 20)")
    parser.add_argument("--text", type=Path, help="a text to train nanoGPT's recipe on; without it that is left out")
    parser.add_argument("--only", default="", help="contestants whose names hold this")
    arguments = parser.parse_args()
    commands = {name: [*command, arguments.steps] for name, command in STEPS.items() if arguments.only in name}
    results = {"step": {name: run(name, command) for name, command in commands.items()}}
    show(results["step"], ("step_ms", "tokens_s"))
    if arguments.text:
        with tempfile.TemporaryDirectory() as folder:
            results["shakespeare"] = {name: trained(name, arguments.text, folder) for name in RECIPES}
        command = [*TORCH, "shakespeare", "float32", 2000, arguments.text]
        results["shakespeare"]["plain torch, float32"] = run("plain torch", command)
        show(results["shakespeare"], ("seconds", "step_ms", "val_loss"))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def run(name: str, command: list) -> dict[str, float]:
    """What the last line of a command's output says."""
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(result.stdout.splitlines()[-1])
    print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return figures


def trained(name: str, text: Path, folder: str) -> dict[str, float]:
    """The figures of a recipe's run: all seconds of `fit`, evaluations and saving too, and what a step alone takes."""
    command = [sys.executable, "-m", "kerasformer", "train", f"pipelines/{name}.py", "--name", name]
    figures = run(name, [*command, "--runs", folder, "--data.train", text])
    records = map(json.loads, (Path(folder) / name / "metrics.jsonl").read_text().splitlines())
    step = statistics.median(record["step_seconds"] for record in records if "step_seconds" in record)
    return {"seconds": figures["train_seconds"], "step_ms": 1e3 * step, "val_loss": figures["val_loss"]}


def show(results: dict[str, dict[str, float]], columns: tuple[str, ...]) -> None:
    table = Table("", *columns)
    for name, figures in results.items():
        table.add_row(
            name,
            *(f"{figures[column]:,.3g}" if column == "val_loss" else f"{figures[column]:,.1f}" for column in columns),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
