"""A trained model -> a SavedModel that takes strings: tokenizer and model in one graph of core operations."""

import os
import time
from pathlib import Path

import keras
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.files import new_folder, write_json
from kerasformer.models.heads import CausalLM, Classifier, Head
from kerasformer.serving import warmup
from kerasformer.serving.classifier import ServedClassifier
from kerasformer.serving.generator import ServedGenerator
from kerasformer.serving.served import Served

MANIFEST_FILE = "kerasformer.json"
# What TensorFlow makes of a full disk, of a limit on the size of files, and of rights.
UNWRITTEN = (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError, tf.errors.PermissionDeniedError)
SERVED: dict[type[Head], type[Served]] = {Classifier: ServedClassifier, CausalLM: ServedGenerator}


def export(model: Head, folder: str | os.PathLike, **options) -> Path:
    """Writes the next version of a model for TF Serving and returns its folder, `<folder>/<version>`.

    Its signatures are those of the task: see ServedClassifier and ServedGenerator. All compute in float32. The
    version appears whole or not at all, so a server may watch the folder.

    Args:
        options: of the task; a classifier has none.

    Raises:
        InputError: the model has no tokenizer, or the folder cannot be one of versions.
        OSError: the version cannot be written.
    """
    folder = Path(folder).absolute()
    if files := [path for path in (folder, *folder.parents) if path.is_file()]:
        raise InputError(f"expected a folder for the versions of a model, got the file {files[0]}; name another")
    kind = next((kind for head, kind in SERVED.items() if isinstance(model, head)), None)
    if kind is None:
        raise InputError(
            f"expected a model of {' or '.join(head.task for head in SERVED)} to export, got one of {model.task}; "
            "train one of those on it first"
        )
    if foreign := sorted(options.keys() - kind.options):
        raise InputError(
            f"expected options of {kind.task}, {' and '.join(sorted(kind.options)) or 'which has none'}, "
            f"got {', '.join(foreign)}; leave {'it' if len(foreign) == 1 else 'them'} out"
        )
    served = kind(model, **options)
    version = folder / str(next_version(folder))
    try:
        with new_folder(version) as temporary:
            served.save(temporary)
            warmup.write(temporary, served.warmup_requests(), model_name=folder.name)
            write_json(temporary / MANIFEST_FILE, manifest(served))
    except UNWRITTEN as error:
        reason = error.message.splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]
        raise OSError(f"{version}: {reason}") from error
    return version


def next_version(folder: Path) -> int:
    """One more than the highest version in a folder of versions; 1 in an empty or missing one."""
    versions = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return max(versions, default=0) + 1


def manifest(served: Served) -> dict:
    """What a reader of the folder wants to know of it."""
    return {
        "task": served.task,
        **served.description(),
        "model": served.model.backbone.config.to_hf(),
        "num_parameters": served.model.count_params(),
        "made_with": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
