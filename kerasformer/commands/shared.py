"""What several commands share: TensorFlow without its notes, standard input, a run's model, JSON lines."""

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from kerasformer.errors import InputError


def import_tensorflow() -> None:
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


def lines_of_stdin() -> list[str]:
    """The lines of standard input that hold something."""
    return [text for line in text_of_stdin().split("\n") if (text := line.rstrip("\r\n"))]


def text_of_stdin() -> str:
    """All of standard input."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"expected {error.encoding} on standard input, got byte 0x{byte:02x}; convert the texts"
        ) from error


def model_of(folder: Path) -> Path:
    """The model's folder of a run; any other folder is one itself."""
    return folder / "model" if (folder / "model").is_dir() else folder


def print_json(value: dict) -> None:
    """A result, as one line on standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)
