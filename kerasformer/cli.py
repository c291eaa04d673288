"""The command line: a dict of functions. TensorFlow is imported inside them, so that `--help` is instant."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro

from kerasformer.config import LanguageRecipe, Recipe, load_recipe
from kerasformer.errors import InputError
from kerasformer.flags import nearest, parse, plain

HELP = ("-h", "--help")
# Packages that only some commands need: the extra that brings each.
EXTRAS = {"starlette": "serve", "uvicorn": "serve", "sklearn": "eval"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 2 after a line on what is wrong with the input."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            print(end="", flush=True)  # so that a reader that has gone is noticed here
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the end
        return 141  # as where SIGPIPE ends a process
    except KeyboardInterrupt:
        code, complaint = 130, "interrupted"
    except InputError as error:
        code, complaint = 2, str(error)
    except OSError as error:
        code, complaint = 2, f"expected files that can be read and written, got {error}; check path, rights and space"
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        code, complaint = 2, f"expected {package}, which is not installed; pip install 'kerasformer[{EXTRAS[package]}]'"
    print(f"kerasformer: {complaint}", file=sys.stderr)
    return code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        print(_overview())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise InputError(
            f"expected a command among {', '.join(COMMANDS)}, got {name!r}{nearest(name, COMMANDS)}; "
            "kerasformer --help tells what each does"
        )
    return COMMANDS[name](rest) or 0


def train(arguments: list[str]) -> None:
    """Train a model as a recipe says: `kerasformer train pipelines/bert_classify.py --data.train FILE ...`."""
    if arguments and arguments[0] in HELP:
        parse(Recipe, ["--help"], "train RECIPE", train.__doc__, default=Recipe(name="RECIPE"))
    if not arguments or arguments[0].startswith("-"):
        raise InputError(
            f"expected a recipe first, got {arguments[0] if arguments else 'none'}; "
            "for example kerasformer train pipelines/bert_classify.py --help"
        )
    module = load_recipe(Path(arguments[0]))
    kind = type(module.recipe)
    recipe = parse(kind, arguments[1:], f"train {arguments[0]}", module.__doc__, default=module.recipe)
    if kind is LanguageRecipe:
        return _train_language_model(recipe)
    examples = getattr(module, "examples", None) if recipe.data.train is None else None
    recipe.check(has_source=bool(recipe.data.train or examples))
    _import_tensorflow()
    from kerasformer.training.train import train as run

    _print_json(run(recipe, examples() if examples else None))


def _train_language_model(recipe: LanguageRecipe) -> None:
    recipe.check(has_source=bool(recipe.data.train))
    _import_tensorflow()
    from kerasformer.training.language import train as run

    _print_json(run(recipe))


def evaluate(arguments: list[str]) -> None:
    """Measure a run's best model on held-out data: `kerasformer evaluate runs/news --data FILE`."""

    def options(run: tyro.conf.Positional[Path], data: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
        return run, data

    run, data = parse(options, arguments, "evaluate", evaluate.__doc__)
    if not data:
        raise InputError("expected a value for --data, got none; name the files")
    _import_tensorflow()
    from kerasformer.training import language, train
    from kerasformer.training.run import kind_of

    if kind_of(run) is LanguageRecipe:
        return _print_json(language.evaluate_run(run, data))
    if len(data) != 1:
        raise InputError(f"expected one file of labelled texts, got {len(data)}; evaluate them in turn")
    _print_json(train.evaluate_run(run, data[0]))


def predict(arguments: list[str]) -> None:
    """Label texts, or the lines of standard input: `kerasformer predict runs/news "a text" ...`."""

    def options(
        model: tyro.conf.Positional[Path],
        texts: tyro.conf.Positional[tuple[str, ...]] = (),
        text_pair: tuple[str, ...] = (),
    ) -> tuple:
        return model, texts, text_pair

    model_folder, texts, pairs = parse(options, arguments, "predict", predict.__doc__)
    texts = list(texts) or _lines_of_stdin()
    if not texts:
        raise InputError("expected texts, got none; pass them after the model, or as lines of standard input")
    if pairs and len(pairs) != len(texts):
        raise InputError(f"expected as many --text-pair as texts, {len(texts)}, got {len(pairs)}; pair them up")
    _import_tensorflow()
    from kerasformer.training.tasks import Classifier

    model = Classifier.from_pretrained(_model_of(model_folder), dtype="float32")
    probabilities = model.predict(list(zip(texts, pairs, strict=True)) if pairs else texts)
    for text, row in zip(texts, probabilities, strict=True):
        shares = {label: round(float(share), 6) for label, share in zip(model.labels, row, strict=True)}
        _print_json({"text": text, "label": model.labels[row.argmax()], "probabilities": shares})


def generate(arguments: list[str]) -> None:
    """Continue a text, or standard input, as it is made: `kerasformer generate runs/stories --prompt "Once upon"`."""

    def options(
        model: tyro.conf.Positional[Path],
        prompt: str | None = None,
        max_new_tokens: int = 100,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
        precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
        truncate_prompt: bool = False,
    ) -> dict:
        """Continue a text.

        Args:
            prompt: The text to continue; standard input by default.
            max_new_tokens: The most tokens that come; an end of text ends it before.
            temperature: 0 takes the best token each time; above it tokens are drawn, the higher the wilder.
            top_k: Draw among the k best tokens; 0 for all.
            top_p: Draw among the best tokens that have this probability together.
            repetition_penalty: Above 1, tokens that have come become less likely.
            stop: The text ends before the first of these strings.
            seed: Of the draws: the same one gives the same text.
            precision: Of the weights; auto: the float that this machine computes fast.
            truncate_prompt: Read the end of a prompt that is too long, instead of refusing it.
        """
        return locals()

    settings = parse(options, arguments, "generate", generate.__doc__)
    model_folder, prompt = settings.pop("model"), settings.pop("prompt")
    prompt = _text_of_stdin().removesuffix("\n") if prompt is None else prompt
    _import_tensorflow()
    from kerasformer.training.tasks import CausalLM

    model = CausalLM.from_pretrained(_model_of(model_folder), dtype="float32")
    # XLA would compile for longer than one text takes.
    for piece in model.stream(prompt, xla=False, **settings):
        print(piece, end="", flush=True)
    print()


def export(arguments: list[str]) -> None:
    """Write the next version of a model for TF Serving: `kerasformer export runs/news saved_models/news`."""

    def options(
        run: tyro.conf.Positional[Path],
        folder: tyro.conf.Positional[Path],
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
    ) -> dict:
        """Write the next version of a model for TF Serving: `kerasformer export runs/news saved_models/news`.

        Args:
            max_new_tokens: Of a language model: the most that a request can get (128, or half of its positions).
            temperature: Of a language model: what serving_default draws with (0, the best token each time).
            top_k: Of a language model: serving_default draws among the k best tokens (0, among all).
            top_p: Of a language model: serving_default draws among the best that have this probability (1, all).
            repetition_penalty: Of a language model: above 1 it repeats less (1).
            seed: Of a language model: of serving_default's draws (0).
        """
        return {name: value for name, value in locals().items() if value is not None}

    settings = parse(options, arguments, "export", export.__doc__)
    run, folder = settings.pop("run"), settings.pop("folder")
    _import_tensorflow()
    from kerasformer.models.heads import from_folder
    from kerasformer.serving.export import export as write

    print(write(from_folder(_model_of(run), dtype="float32"), folder, **settings))


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
    """Train a vocabulary: `kerasformer tokenizer wordpiece|bpe|char --vocab-size 8000 --output DIR FILES...`."""

    def options(
        kind: tyro.conf.Positional[Literal["wordpiece", "bpe", "char"]],
        files: tyro.conf.Positional[tuple[Path, ...]],
        output: Path,
        vocab_size: int = 8000,
        lowercase: bool = True,
        text_column: str = "text",
        encoding: str = "utf-8",
    ) -> tuple:
        return kind, files, output, vocab_size, lowercase, {"text_column": text_column, "encoding": encoding}

    kind, files, output, vocab_size, lowercase, reading = parse(options, arguments, "tokenizer", tokenizer.__doc__)
    given = {plain(word).removeprefix("no-") for word in arguments}
    of_kinds = {"vocab-size": ("wordpiece", "bpe"), "lowercase": ("wordpiece",)}
    of_kinds |= dict.fromkeys(("text-column", "encoding"), ("bpe", "char"))
    for flag, kinds in of_kinds.items():
        if flag in given and kind not in kinds:
            raise InputError(f"expected no --{flag} for {kind}, got one; it is for {' and '.join(kinds)}: leave it out")
    from kerasformer.data.documents import Texts
    from kerasformer.files import new_folder
    from kerasformer.text import vocabulary

    texts = (piece.text for piece in Texts(files, validation=0.0, **reading).pieces())
    progress = sys.stderr.isatty()
    with new_folder(output) as folder:
        if kind == "wordpiece":
            trained = vocabulary.train_wordpiece(files, vocab_size=vocab_size, lowercase=lowercase, progress=progress)
        elif kind == "bpe":
            trained = vocabulary.bpe_of(texts, vocab_size=vocab_size, progress=progress)
        else:
            trained = vocabulary.char_of(texts)
        trained.save(folder)
    print(output)


def prepare(arguments: list[str]) -> None:
    """Tokenize texts to train a language model on: `kerasformer prepare --tokenizer DIR --output DIR FILES...`."""

    def options(
        files: tyro.conf.Positional[tuple[Path, ...]],
        tokenizer: Path,
        output: Path,
        documents: Literal["files", "lines"] = "files",
        validation: float = 0.1,
        validation_files: tuple[Path, ...] = (),
        text_column: str = "text",
        encoding: str = "utf-8",
        seed: int = 0,
    ) -> tuple[Path, Path, tuple]:
        """Tells of the flags.

        Args:
            files: .txt, .jsonl (each also as .gz), .parquet, or folders of them
            documents: what a document of a .txt file is: the file or each line of it
            validation: share to hold out: of one .txt file its last characters, else one document of every 1 / share
            validation_files: files to hold out instead
            seed: of the draw of documents
        """
        return tokenizer, output, (files, validation, validation_files, documents, text_column, encoding, seed)

    tokenizer, output, texts = parse(options, arguments, "prepare", prepare.__doc__)
    from kerasformer.data.documents import Texts
    from kerasformer.data.prepare import prepare as write
    from kerasformer.text.bpe import BPE

    write(Texts(*texts), output, tokenizer=BPE.from_folder(tokenizer))
    print(output)


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "tokenizer": tokenizer,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "generate": generate,
    "export": export,
    "check": check,
    "serve": serve,
}


def _import_tensorflow() -> None:
    """Imports TensorFlow without its notes, which would bury what a user wants to read."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what stops a command is raised, not logged
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)  # they are written by C++, past sys.stderr
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            for name in ("tensorflow", "absl"):
                logging.getLogger(name).setLevel(logging.ERROR)
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


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


def _lines_of_stdin() -> list[str]:
    """The lines of standard input that hold something."""
    return [text for line in _text_of_stdin().split("\n") if (text := line.rstrip("\r\n"))]


def _text_of_stdin() -> str:
    """All of standard input."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"expected {error.encoding} on standard input, got byte 0x{byte:02x}; convert the texts"
        ) from error


def _model_of(folder: Path) -> Path:
    """The model's folder of a run; any other folder is one itself."""
    return folder / "model" if (folder / "model").is_dir() else folder


def _print_json(value: dict) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)
