"""A trained model -> a SavedModel that takes strings: tokenizer, model and labels in one graph of core operations."""

import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.files import new_folder, write_json
from kerasformer.serving import warmup
from kerasformer.training.tasks import Classifier

MANIFEST_FILE = "kerasformer.json"
LABELS_FILE = "labels.txt"
# What the warm-up sends: one short text, and a batch of longer ones.
WARMUP_TEXTS = (["Warm-up."], ["A longer sentence, so that more than a few tokens go through the model. " * 8] * 4)


def export(model: Classifier, folder: str | os.PathLike) -> Path:
    """Writes the next version of a model for TF Serving and returns its folder, `<folder>/<version>`.

    `serving_default` takes `text` string [B] (and `text_pair` if the model was trained on pairs) and gives `label`
    string [B] and `probabilities` float32 [B, C]. `token_ids` takes the model's own inputs, int32 [B, T]. Both compute
    in float32. The version appears whole or not at all, so a server may watch the folder.

    Raises:
        InputError: the model has no tokenizer, or the folder cannot be one of versions.
    """
    if model.tokenizer is None:
        raise InputError("expected a model with a tokenizer, got one without; load it with Classifier.from_pretrained")
    folder = Path(folder).absolute()
    if files := [path for path in (folder, *folder.parents) if path.is_file()]:
        raise InputError(f"expected a folder for the versions of a model, got the file {files[0]}; name another")
    version = folder / str(next_version(folder))
    served = Served(model)
    with new_folder(version) as temporary:
        served.save(temporary)
        warmup.write(temporary, served.warmup_requests(), model_name=folder.name)
        write_json(temporary / MANIFEST_FILE, served.manifest())
    return version


def next_version(folder: Path) -> int:
    """One more than the highest version in a folder of versions; 1 in an empty or missing one."""
    versions = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return max(versions, default=0) + 1


class Served:
    """What is exported: a float32 copy of the classifier behind its tokenizer."""

    def __init__(self, model: Classifier):
        self.model = copy_in_float32(model)
        self.text_pair, self.max_length = model.text_pair, model.tokenizer.max_length
        self.tokenizer = model.tokenizer.in_graph()
        self.labels = tf.constant(model.labels)
        self.label_names = list(model.labels)
        # Of a Keras model, a SavedModel holds each weight in a copy that the server does not restore. So the state of
        # what is exported is TensorFlow's own variables, without the model that they belong to.
        self.state = tf.Module()
        self.state.weights = [weight.value for weight in self.model.weights]
        self.state.tokenizer = self.tokenizer

    def classify(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The model's inputs [B, T] -> label [B], probabilities [B, C]."""
        probabilities = tf.nn.softmax(self.model(inputs, training=False))
        return {"label": tf.gather(self.labels, tf.argmax(probabilities, axis=1)), "probabilities": probabilities}

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The concrete functions by the names that clients call them by."""

        def text(text, text_pair=None):
            inputs = self.tokenizer(text, text_pair, max_length=self.max_length)
            missing = tf.cast(tf.size(text) == 0, tf.int32)  # no texts make [0, 0]; the model looks at position 0
            return self.classify({name: tf.pad(ids, [[0, 0], [0, missing]]) for name, ids in inputs.items()})

        def token_ids(**inputs):
            return self.classify(inputs)

        names = ["text", "text_pair"] if self.text_pair else ["text"]
        strings = [tf.TensorSpec([None], tf.string, name=name) for name in names]
        ids = {n: tf.TensorSpec([None, None], tf.int32, name=n) for n in self.model.backbone.input_names}
        return {
            "serving_default": tf.function(text).get_concrete_function(*strings),
            "token_ids": tf.function(token_ids).get_concrete_function(**ids),
        }

    def save(self, folder: Path) -> None:
        """Writes the SavedModel, the labels' names among its assets."""
        labels = folder / LABELS_FILE
        labels.write_text("\n".join(self.label_names) + "\n", encoding="utf-8")
        self.state.labels = tf.saved_model.Asset(str(labels))
        tf.saved_model.save(self.state, str(folder), signatures=self.signatures())
        labels.unlink()  # its copy is in assets/

    def warmup_requests(self) -> list[tuple[str, dict[str, np.ndarray]]]:
        """Requests for each signature, of the kind that clients send."""
        requests = []
        for texts in WARMUP_TEXTS:
            strings = {"text": np.array(texts, object)} | (
                {"text_pair": np.array(texts, object)} if self.text_pair else {}
            )
            ids = self.tokenizer(*(tf.constant(texts) for _ in strings), max_length=self.max_length)
            requests.append(("serving_default", strings))
            requests.append(("token_ids", {name: value.numpy() for name, value in ids.items()}))
        return requests

    def manifest(self) -> dict:
        """What a reader of the folder wants to know of it."""
        backbone = self.model.backbone
        classes = f"one of {', '.join(self.label_names)}"
        outputs = {"label": f"string [B], {classes}", "probabilities": "float32 [B, C], in the order of `labels`"}
        strings = {"text": "string [B], UTF-8"} | ({"text_pair": "string [B], UTF-8"} if self.text_pair else {})
        return {
            "task": "classification",
            "labels": self.label_names,
            "max_length": self.max_length,
            "signatures": {
                "serving_default": {"inputs": strings, "outputs": outputs},
                "token_ids": {"inputs": dict.fromkeys(backbone.input_names, "int32 [B, T]"), "outputs": outputs},
            },
            "model": backbone.config.to_hf(),
            "num_parameters": self.model.count_params(),
            "made_with": {"tensorflow": tf.__version__, "keras": keras.__version__},
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def copy_in_float32(model: Classifier) -> Classifier:
    """The same weights in a model that computes in float32, without what training added to it."""
    backbone = type(model.backbone)(model.backbone.config, dtype="float32")
    copy = Classifier(backbone, model.labels, model.tokenizer, text_pair=model.text_pair)
    copy.set_weights(model.get_weights())
    return copy
