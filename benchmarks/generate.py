"""Greedy generation with a model of GPT-2's smallest shape, beside `transformers` and KerasHub: `make bench-generate`.

Each library draws random weights, reads 32 tokens in each row and makes 64 more, with 1 row and with 8. They run in
turn, each in a process of its own, so that a machine's drift meets all of them; what counts is the ratio. A time is
that of a whole call after one that warms up.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results/generate.json"
BATCHES = (1, 8)
OURS = [sys.executable, HERE / "generate_ours.py"]
TORCH = [".venv-peers/bin/python", HERE / "generate_torch.py"]
HUB = [".venv-keras-hub/bin/python", HERE / "generate_hub.py"]
CONTESTANTS = {
    "kerasformer, precision auto": [*OURS, "auto"],
    "kerasformer, float32": [*OURS, "float32"],
    "kerasformer, int8 weights": [*OURS, "int8"],
    "transformers + torch, float32": [*TORCH, "float32", "eager"],
    "transformers + torch, float32, compiled": [*TORCH, "float32", "compiled"],
    "transformers + torch, bfloat16": [*TORCH, "bfloat16", "eager"],
    "transformers + torch, bfloat16, compiled": [*TORCH, "bfloat16", "compiled"],
    "KerasHub, float32": [*HUB, "float32"],
    "KerasHub, bfloat16": [*HUB, "bfloat16"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1, help="rounds; each runs every contestant once (default: 1)")
    parser.add_argument("--calls", type=int, default=3, help="timed calls in a run (default: 3)")
    arguments = parser.parse_args()
    runs: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
    for _ in range(arguments.repeats):
        for name, command in CONTESTANTS.items():
            settings = [arguments.calls, *BATCHES]
            result = subprocess.run([str(a) for a in command + settings], stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(result.stdout.splitlines()[-1]))
            print(f"{name}: {runs[name][-1]}", file=sys.stderr)
    report(runs)


def report(runs: dict[str, list[dict]]) -> None:
    """Prints the table, tokens a second and how many times the best peer's that is, and writes the runs as JSON."""
    speeds = {
        name: [statistics.median(speed for run in results for speed in run[str(batch)]) for batch in BATCHES]
        for name, results in runs.items()
    }
    peers = [max(speeds[name][i] for name in speeds if "kerasformer" not in name) for i in range(len(BATCHES))]
    table = Table("tokens a second", *(f"batch {batch}" for batch in BATCHES))
    for name, values in speeds.items():
        cells = (f"{value:.1f} ({value / best:.2f})" for value, best in zip(values, peers, strict=True))
        table.add_row(name, *cells)
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
