"""A trained model -> a SavedModel that takes strings: tokenizer and model in one graph of core operations."""

import os
import time
from pathlib import Path

import keras
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.files import new_folder, path_of, write_json
from kerasformer.models.head import Head
from kerasformer.models.heads import CausalLM, Classifier
from kerasformer.serving import warmup
from kerasformer.serving.classifier import ServedClassifier
from kerasformer.serving.generator import ServedGenerator
from kerasformer.serving.served import Served
from kerasformer.serving.versions import next_version

MANIFEST_FILE = "kerasformer.json"
# What TensorFlow makes of a full disk, of a limit on the size of files, and of rights.
UNWRITTEN = (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError, tf.errors.PermissionDeniedError)
SERVED: dict[type[Head], type[Served]] = {Classifier: ServedClassifier, CausalLM: ServedGenerator}


def export(model: Head, folder: str | os.PathLike, **options) -> Path:
    """Writes the next version of a model for TF Serving and returns its folder, `<folder>/<version>`.

    The model's signatures are those of its task: see ServedClassifier and ServedGenerator. All compute in float32. The
    version appears whole or not at all, so a server may watch the folder.

    Args:
        options: of the task; a classifier has none.

    Raises:
        InputError: the task cannot be exported, has no such options or not of such values, the model has no tokenizer,
            or the folder cannot be one of versions.
        OSError: the version cannot be written.
    """
    folder = path_of(folder).absolute()
    if files := [path for path in (folder, *folder.parents) if path.is_file()]:
        raise InputError(f"expected a folder for the versions of a model, got the file {files[0]}; name another")
    kind = next((kind for head, kind in SERVED.items() if isinstance(model, head)), None)
    if kind is None:
        advice = "pass one of its heads" if hasattr(model, "heads") else "train one of those on it first"
        raise InputError(
            f"expected a model of {' or '.join(head.task for head in SERVED)} to export, "
            f"got one of {getattr(model, 'task', type(model).__name__)}; {advice}"
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
        # Such as: /models/1/variables/…; No space left on device [Op:SaveV2]
        reason = error.message.splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]
        raise OSError(f"{version}: {reason}") from error
    return version


def manifest(served: Served) -> dict:
    """The content of MANIFEST_FILE: task, signatures, the model's config, versions of libraries."""
    return {
        "task": served.task,
        **served.description(),
        "model": served.model.backbone.config.to_hf(),
        "num_parameters": served.model.count_params(),
        "made_with": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
