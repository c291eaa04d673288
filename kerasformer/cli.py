"""The command line: a dict of functions."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

from kerasformer.commands.serving import check, export, serve
from kerasformer.commands.text import prepare, tokenizer
from kerasformer.commands.training import evaluate, launch, plan, train
from kerasformer.commands.using import generate, predict
from kerasformer.errors import InputError, Stopped
from kerasformer.flags import HELP, nearest

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
    except Stopped as error:
        code, complaint = error.code, str(error)
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


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "tokenizer": tokenizer,
    "prepare": prepare,
    "train": train,
    "plan": plan,
    "launch": launch,
    "evaluate": evaluate,
    "predict": predict,
    "generate": generate,
    "export": export,
    "check": check,
    "serve": serve,
}


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
