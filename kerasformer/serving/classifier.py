"""A classifier as it is served: strings in, labels and probabilities out."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasformer.errors import listed
from kerasformer.models.heads import Classifier
from kerasformer.serving.served import Requests, Served, backbone_in_float32, check_range, check_shapes
from kerasformer.serving.session import DEFAULT_SIGNATURE

LABELS_FILE = "labels.txt"
# What the warm-up sends: one short text, and a batch of longer ones.
WARMUP_TEXTS = (["Warm-up."], ["A longer sentence, so that more than a few tokens go through the model. " * 8] * 4)


class ServedClassifier(Served):
    """`serving_default` takes `text` string [B] (and `text_pair` if the model was trained on pairs) and gives `label`
    string [B], the likeliest, and `probabilities` float32 [B, C], which are 1 in all unless any number of labels may be
    true. `token_ids` takes the model's own inputs, int32 [B, T].
    """

    task = "classification"

    def __init__(self, model: Classifier):
        options = {"text_pair": model.text_pair, "multi_label": model.multi_label}
        copy = Classifier(backbone_in_float32(model), model.labels, model.tokenizer, **options)
        super().__init__(model, copy)
        self.labels, self.label_names = tf.constant(model.labels), list(model.labels)
        self.max_length = model.tokenizer.max_length
        self.text_names = ["text", "text_pair"] if model.text_pair else ["text"]

    def classify(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The model's inputs [B, T] -> label [B], probabilities [B, C]."""
        probabilities = self.model.probabilities(self.model(inputs, training=False))
        return {"label": tf.gather(self.labels, tf.argmax(probabilities, axis=1)), "probabilities": probabilities}

    def check_ids(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The model's inputs [B, T]; a request fails for whose values the model has no token, segment or position."""
        config = self.model.backbone.config
        inputs = check_shapes(2, inputs)
        sizes = {"token_ids": config.vocab_size, "padding_mask": 2}
        if "segment_ids" in inputs:
            sizes["segment_ids"] = config.num_segments
        length = check_range("the length of rows", tf.shape(inputs["token_ids"])[1], 1, config.max_length)
        with tf.control_dependencies([length]):
            return {name: check_range(name, values, 0, sizes[name] - 1) for name, values in inputs.items()}

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        def text(**texts):
            texts = check_shapes(1, texts)
            inputs = self.tokenizer(*(texts[name] for name in self.text_names), max_length=self.max_length)
            # No texts make [0, 0], and the model looks at position 0.
            missing = tf.cast(tf.size(texts["text"]) == 0, tf.int32)
            return self.classify({name: tf.pad(ids, [[0, 0], [0, missing]]) for name, ids in inputs.items()})

        def token_ids(**inputs):
            return self.classify(self.check_ids(inputs))

        strings = {name: tf.TensorSpec([None], tf.string, name=name) for name in self.text_names}
        ids = {n: tf.TensorSpec([None, None], tf.int32, name=n) for n in self.model.input_names}
        return {
            DEFAULT_SIGNATURE: tf.function(text, autograph=False).get_concrete_function(**strings),
            "token_ids": tf.function(token_ids, autograph=False).get_concrete_function(**ids),
        }

    def save(self, folder: Path) -> None:
        """Writes the SavedModel, the labels' names among its assets."""
        labels = folder / LABELS_FILE
        labels.write_text("\n".join(self.label_names) + "\n", encoding="utf-8")
        self.state.labels = tf.saved_model.Asset(str(labels))
        super().save(folder)
        labels.unlink()  # its copy is in assets/

    def warmup_requests(self) -> Requests:
        requests = []
        for texts in WARMUP_TEXTS:
            strings = dict.fromkeys(self.text_names, np.array(texts, object))
            ids = self.tokenizer(*(tf.constant(texts) for _ in strings), max_length=self.max_length)
            requests.append((DEFAULT_SIGNATURE, strings))
            requests.append(("token_ids", {name: value.numpy() for name, value in ids.items()}))
        return requests

    def description(self) -> dict:
        classes = f"the likeliest of {listed(self.label_names)}"
        each = ", each label's own" if self.model.multi_label else ""
        outputs = {
            "label": f"string [B], {classes}",
            "probabilities": f"float32 [B, C], in the order of `labels`{each}",
        }
        return {
            "labels": self.label_names,
            "multi_label": self.model.multi_label,
            "max_length": self.max_length,
            "signatures": {
                DEFAULT_SIGNATURE: {"inputs": dict.fromkeys(self.text_names, "string [B], UTF-8"), "outputs": outputs},
                "token_ids": {"inputs": dict.fromkeys(self.model.input_names, "int32 [B, T]"), "outputs": outputs},
            },
        }
