"""The command line: a dict of functions. TensorFlow is imported inside them, so that `--help` is instant."""

import contextlib
import difflib
import importlib.util
import io
import itertools
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import tyro

from kerasformer.config import Recipe
from kerasformer.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 2 after a line on what is wrong with the input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview())
            return 0
        name, *rest = arguments
        if name not in COMMANDS:
            raise InputError(f"expected a command among {', '.join(COMMANDS)}, got {name!r}{_nearest(name, COMMANDS)}")
        return COMMANDS[name](rest) or 0
    except InputError as error:
        print(f"kerasformer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def train(arguments: list[str]) -> None:
    """Train a model as a recipe says: `kerasformer train pipelines/bert_classify.py --data.train FILE ...`."""
    if not arguments or arguments[0].startswith("-"):
        raise InputError(
            "expected a recipe first, got none; for example kerasformer train pipelines/bert_classify.py --help"
        )
    module = load_recipe(Path(arguments[0]))
    recipe = parse(Recipe, arguments[1:], f"train {arguments[0]}", module.__doc__, default=module.recipe)
    _import_tensorflow()
    from kerasformer.training.train import train

    source = module.examples() if recipe.data.train is None and hasattr(module, "examples") else None
    _print_json(train(recipe, source))


def evaluate(arguments: list[str]) -> None:
    """Measure a run's best model on labelled texts: `kerasformer evaluate runs/news --data FILE`."""

    def options(run: tyro.conf.Positional[Path], data: Path) -> tuple[Path, Path]:
        return run, data

    run, data = parse(options, arguments, "evaluate", evaluate.__doc__)
    _import_tensorflow()
    from kerasformer.training.train import evaluate_run

    _print_json(evaluate_run(run, data))


def predict(arguments: list[str]) -> None:
    """Label texts, or the lines of standard input: `kerasformer predict runs/news/model "a text" ...`."""

    def options(
        model: tyro.conf.Positional[Path],
        texts: tyro.conf.Positional[tuple[str, ...]] = (),
        text_pair: tuple[str, ...] = (),
    ) -> tuple:
        return model, texts, text_pair

    model_folder, texts, pairs = parse(options, arguments, "predict", predict.__doc__)
    texts = list(texts) or [line for line in sys.stdin.read().splitlines() if line]
    if pairs and len(pairs) != len(texts):
        raise InputError(f"expected as many --text-pair as texts, {len(texts)}, got {len(pairs)}; pair them up")
    _import_tensorflow()
    from kerasformer.training.tasks import Classifier

    model = Classifier.from_pretrained(model_folder, dtype="float32")
    probabilities = model.predict(list(zip(texts, pairs, strict=True)) if pairs else texts)
    for text, row in zip(texts, probabilities, strict=True):
        shares = {label: round(float(share), 6) for label, share in zip(model.labels, row, strict=True)}
        _print_json({"text": text, "label": model.labels[row.argmax()], "probabilities": shares})


def export(arguments: list[str]) -> None:
    """Write the next version of a model for TF Serving: `kerasformer export runs/news saved_models/news`."""

    def options(run: tyro.conf.Positional[Path], folder: tyro.conf.Positional[Path]) -> tuple[Path, Path]:
        return run, folder

    run, folder = parse(options, arguments, "export", export.__doc__)
    _import_tensorflow()
    from kerasformer.serving.export import export as write
    from kerasformer.training.tasks import Classifier

    model_folder = run / "model" if (run / "model").is_dir() else run
    print(write(Classifier.from_pretrained(model_folder, dtype="float32"), folder))


def check(arguments: list[str]) -> int:
    """Tell whether TF Serving will serve a SavedModel: `kerasformer check saved_models/news/1`."""

    def options(version: tyro.conf.Positional[Path], json: bool = False) -> tuple[Path, bool]:
        return version, json

    version, as_json = parse(options, arguments, "check", check.__doc__)
    _import_tensorflow()
    import rich

    from kerasformer.serving.check import check as inspect

    report = inspect(version)
    print(report.to_json()) if as_json else rich.print(report.render())
    return 0 if report.ok else 1


def serve(arguments: list[str]) -> None:
    """Serve every model of a folder over TF Serving's REST API: `kerasformer serve saved_models`."""

    def options(folder: tyro.conf.Positional[Path], host: str = "127.0.0.1", rest_port: int = 8501) -> tuple:
        return folder, host, rest_port

    folder, host, port = parse(options, arguments, "serve", serve.__doc__)
    _import_tensorflow()
    from kerasformer.serving.server import serve as run

    run(folder, host=host, rest_port=port)


def tokenizer(arguments: list[str]) -> None:
    """Train a vocabulary: `kerasformer tokenizer wordpiece --vocab-size 8000 --output DIR FILES...`."""

    def options(
        kind: tyro.conf.Positional[Literal["wordpiece"]],
        files: tyro.conf.Positional[tuple[Path, ...]],
        output: Path,
        vocab_size: int = 8000,
        lowercase: bool = True,
    ) -> tuple:
        return kind, files, output, vocab_size, lowercase

    _, files, output, vocab_size, lowercase = parse(options, arguments, "tokenizer", tokenizer.__doc__)
    from kerasformer.files import new_folder
    from kerasformer.text.vocabulary import train_wordpiece

    with new_folder(output) as folder:
        train_wordpiece(files, vocab_size=vocab_size, lowercase=lowercase, progress=True).save(folder)
    print(output)


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "tokenizer": tokenizer,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "check": check,
    "serve": serve,
}


def _import_tensorflow() -> None:
    """Imports TensorFlow without its start-up notes, which would bury what a user wants to read."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)  # they are written by C++, past sys.stderr
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def parse(options: Callable, arguments: list[str], command: str, description: str | None, default: Any = None) -> Any:
    """Reads a command's flags; for a recipe they are its fields, over the values of `default`.

    Raises:
        InputError: an unknown flag, a value of another type, or a missing one.
    """
    settings = {"prog": f"kerasformer {command}", "description": description, "use_underscores": default is not None}
    if default is not None:
        settings["default"] = default
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            values, unknown = tyro.cli(options, args=arguments, return_unknown_args=True, **settings)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_first_paragraph(complaint.getvalue())}; see kerasformer {command} --help") from None
    if unknown:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            tyro.cli(options, args=["--help"], **settings)
        flags = re.findall(r"--[a-z][\w.-]*", text.getvalue())
        what = "a flag" if unknown[0].startswith("-") else "nothing more"
        raise InputError(
            f"expected {what} of kerasformer {command}, got {unknown[0]!r}{_nearest(unknown[0], flags)}; "
            f"kerasformer {command} --help lists them"
        )
    return values


def load_recipe(path: Path) -> ModuleType:
    """Runs a recipe's file, which sets `recipe`.

    Raises:
        InputError: no such file, or no recipe in it.
    """
    if not path.is_file():
        raise InputError(f"expected a recipe's file, got {path}, which is none; see pipelines/ for examples")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"expected a recipe as a Python file, got {path}; see pipelines/ for examples")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, "recipe", None), Recipe):
        raise InputError(f"expected `recipe = Recipe(...)` in {path}, got none; see pipelines/ for examples")
    return module


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {function.__doc__}" for name, function in COMMANDS.items()]
    return "\n".join(
        [
            "usage: kerasformer COMMAND ...",
            "",
            "From text files to a served transformer, in Keras.",
            "",
            *lines,
            "",
            "kerasformer COMMAND --help tells a command's flags.",
        ]
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that was probably meant."""
    near = difflib.get_close_matches(name.replace("_", "-"), [k.replace("_", "-") for k in known], n=1, cutoff=0.5)
    return f"; did you mean {next(k for k in known if k.replace('_', '-') == near[0])}?" if near else ""


def _first_paragraph(box: str) -> str:
    """What a framed complaint says before its help, on one line."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    said = itertools.takewhile(lambda line: line and not line.startswith(("─", "╰")), lines)
    return " ".join(said).rstrip(".")


def _print_json(value: dict) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)
