"""Byte-level BPE on plain text, beside `tokenizers` (Rust) and KerasHub: `make bench-tokenizers`.

Each tokenizes the same documents in one call: cold, which is the first time that it sees this text, with its function
traced and warmed up on other text; and warm, the same text again. `--text` and `--tokenizer` name another text and
a GPT-2 folder; without them it is BBC News, and a vocabulary that is trained on it. The in-graph tokenizer is a
tf.function, as in an exported model; KerasHub's is too.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results/tokenizing.json"
KERAS_HUB = Path(".venv-keras-hub/bin/python")
WARM_UP = ["Words to warm up with.", "They're few, and 12 numbers!"]
PROMPT = "What do you think of the weather in the north of the country today?"
DOCUMENT = 4096  # characters
VOCAB_SIZE = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="a UTF-8 text file (default: the articles of the demo)")
    parser.add_argument("--tokenizer", type=Path, help="a GPT-2 folder (default: a vocabulary trained on the text)")
    parser.add_argument("--repeats", type=int, default=5, help="warm calls, of which the median counts (default: 5)")
    arguments = parser.parse_args()

    from kerasformer.text.bpe import BPE
    from kerasformer.text.vocabulary import train_bpe

    with tempfile.TemporaryDirectory() as folder:
        text = (arguments.text or articles(Path(folder) / "text.txt")).read_text("utf-8")
        bpe = BPE.from_folder(arguments.tokenizer) if arguments.tokenizer else train_bpe([text], vocab_size=VOCAB_SIZE)
        documents = cut(text)
        bpe.save(folder)
        runs = {"kerasformer, in the graph": ours(bpe, documents, arguments.repeats)}
        runs["tokenizers (Rust)"] = measure(bpe.tokenize, documents, arguments.repeats)
        if KERAS_HUB.exists():
            task = Path(folder) / "task.json"
            task.write_text(json.dumps({"documents": documents, "repeats": arguments.repeats, "folder": folder}))
            command = [KERAS_HUB, HERE / "tokenizing_hub.py", task]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            runs["KerasHub, in the graph"] = json.loads(said.splitlines()[-1])
        else:
            print(f"KerasHub is left out: {KERAS_HUB} is not there", file=sys.stderr)
    report(runs, documents)


def articles(path: Path) -> Path:
    """Writes the demo's articles as one text."""
    sys.path.insert(0, "pipelines")
    from demo import DATA, write_tables

    write_tables()
    with (DATA / "train.csv").open(newline="", encoding="utf-8") as table:
        path.write_text("\n\n".join(row["text"] for row in csv.DictReader(table)), encoding="utf-8")
    return path


def cut(text: str) -> list[str]:
    """Documents of about one size, cut at line ends."""
    documents = [""]
    for line in text.splitlines(keepends=True):
        if len(documents[-1]) >= DOCUMENT:
            documents.append("")
        documents[-1] += line
    return documents


def ours(bpe, documents: list[str], repeats: int) -> dict:
    import tensorflow as tf

    graph = bpe.in_graph()
    return measure(lambda texts: graph.tokenize(tf.constant(texts)), documents, repeats)


def measure(tokenize: Callable, documents: list[str], repeats: int) -> dict:
    """Times a tokenizer and gives the ids that it made."""

    def seconds(texts: list[str]) -> float:
        begun = time.perf_counter()
        tokenize(texts)
        return time.perf_counter() - begun

    for _ in range(3):
        tokenize(WARM_UP)
    cold = seconds(documents)
    warm = statistics.median(seconds(documents) for _ in range(repeats))
    prompt = statistics.median(seconds([PROMPT]) for _ in range(20))
    ids = tokenize(documents)
    ids = ids if isinstance(ids, list) else ids.to_list()
    return {"cold_s": cold, "warm_s": warm, "prompt_s": prompt, "ids": ids}


def report(runs: dict[str, dict], documents: list[str]) -> None:
    """Prints the table and writes the figures as JSON."""
    from rich.console import Console
    from rich.table import Table

    size = sum(len(document.encode()) for document in documents) / 1e6
    reference = runs["tokenizers (Rust)"]["ids"]
    table = Table("", "cold MB/s", "warm MB/s", "one prompt, ms", "documents that differ")
    for name, run in runs.items():
        run["differ"] = sum(a != b for a, b in zip(run.pop("ids"), reference, strict=True))
        speeds = (f"{size / run[key]:.2f}" for key in ("cold_s", "warm_s"))
        table.add_row(name, *speeds, f"{1e3 * run['prompt_s']:.2f}", f"{run['differ']} of {len(documents)}")
    Console().print(f"{size:.2f} MB in {len(documents)} documents", table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"megabytes": size, "documents": len(documents), "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
