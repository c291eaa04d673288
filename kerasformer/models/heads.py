"""The tasks: a head on a backbone of any family. Families contribute only data."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import keras
from keras import KerasTensor, ops

from kerasformer.errors import InputError
from kerasformer.files import path_of, write_json
from kerasformer.layers.activations import ACTIVATIONS
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.token_transform import TokenTransform
from kerasformer.models import generation_config
from kerasformer.models.base import Model, load
from kerasformer.models.checkpoint import Checkpoint, architectures_of, read_config
from kerasformer.models.config import CONFIG_FILE, checked_number
from kerasformer.models.families import backbone_class
from kerasformer.models.head import Head
from kerasformer.models.labels import MULTI_LABEL, SINGLE_LABEL, TrainedLabels, Unusable, check_labels
from kerasformer.text.tokenizer import Tokenizer


@keras.saving.register_keras_serializable("kerasformer.models")
class Classifier(Head):
    """Assigns one of `labels` to a text or a pair of texts: a dense layer on the backbone's pooled vector.

    Args:
        backbone: gives `pooled` [B, D].
        labels: names of the C classes, in the order of the logits.
        tokenizer: turns texts into the backbone's inputs; without it the model takes ids alone.
        text_pair: the model compares two texts.
        multi_label: any number of the labels may be true of a text, each with a probability of its own.
        dropout: fraction of the pooled vector dropped in training; the backbone's by default.
    """

    task = "Classifier"
    unused = {"tie_embeddings": True}

    def __init__(
        self,
        backbone: Model,
        labels: Sequence[str],
        tokenizer: Tokenizer | None = None,
        *,
        text_pair: bool = False,
        multi_label: bool = False,
        dropout: float | None = None,
        **kwargs,
    ):
        super().__init__(backbone, tokenizer, **kwargs)
        self.labels, self.text_pair = check_labels(labels, multi_label=multi_label), text_pair
        self.multi_label, self.classifier_dropout = multi_label, dropout
        self.dropout = Dropout(backbone.config.dropout if dropout is None else dropout, name="dropout")
        initializer = keras.initializers.TruncatedNormal(stddev=backbone.config.initializer_range)
        has_bias = any(row.path == "head/bias" for row in backbone.table.heads[self.task])
        # The logits are float32 whatever the policy: the loss and the served probabilities depend on them.
        self.head = Dense(
            len(self.labels), use_bias=has_bias, kernel_initializer=initializer, dtype="float32", name="head"
        )
        self.head.build((None, backbone.config.dim))
        self.built = True

    def score(self, outputs: dict[str, KerasTensor], training: bool = False) -> KerasTensor:
        """`pooled` [B, D] -> logits [B, C]."""
        return self.head(ops.cast(self.dropout(outputs["pooled"], training=training), "float32"))

    def probabilities(self, logits: KerasTensor) -> KerasTensor:
        """Logits [..., C] -> the probability of each label, which are 1 in all unless any number may be true."""
        return ops.sigmoid(logits) if self.multi_label else ops.softmax(logits)

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: str | keras.Loss | None = None,
        metrics: list | None = None,
        **kwargs,
    ) -> None:
        """Keras's `compile`; the loss is cross-entropy and the metric accuracy unless others are given.

        Raises:
            InputError: no loss for a model of which any number of labels may be true.
        """
        if loss is None:
            self.check_single_label()
        loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = ["accuracy"] if metrics is None else metrics  # which Keras takes by the shape of the labels
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def check_single_label(self) -> None:
        """Raises InputError where any number of labels may be true of a text, and not one as in the data."""
        if self.multi_label:
            raise InputError(
                f"expected a classifier of one label a text, as the data have, got one of problem_type {MULTI_LABEL}; "
                "call predict for its probabilities, or from_pretrained with labels and multi_label=False to train anew"
            )

    def get_config(self) -> dict[str, Any]:
        """See Keras."""
        own = {"labels": list(self.labels), "text_pair": self.text_pair, "multi_label": self.multi_label}
        return {**super().get_config(), **own, "dropout": self.classifier_dropout}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        labels: Sequence[str] | None = None,
        *,
        multi_label: bool | None = None,
        dropout: float | None = None,
        dtype: str | None = None,
    ) -> Self:
        """Reads a Hugging Face folder: backbone, tokenizer and, where its labels are the wanted ones, the head.

        Args:
            labels: the classes to tell apart, in any order; those of the checkpoint's own classifier by default.
            multi_label: whether any number of them may be true of a text; by default as of the checkpoint's classifier
                where that has these labels, and else one of them is.
            dropout: fraction of the pooled vector dropped in training; the checkpoint's by default.
            dtype: a Keras dtype policy, such as "float32" or "mixed_bfloat16"; the global one by default.

        Raises:
            InputError: a missing, truncated or foreign file, or no labels where the checkpoint has none or those of
                another kind of classifier.
        """
        checkpoint, backbone, tokenizer = cls._read(folder, dtype)
        try:
            trained = _trained_labels(checkpoint)
            order = trained.order_of(trained.labels if labels is None else labels, multi_label)
        except Unusable as reason:
            if labels is None:
                raise InputError(
                    f"expected a classifier, got {folder}, which {reason}; train one from it, or name the labels of a "
                    "new one, as in from_pretrained(folder, labels=[...])"
                ) from reason
            order, note = None, f"it {reason}: a fresh classifier takes its place, so train before use"
        else:
            labels, multi_label = [trained.labels[i] for i in order], trained.multi_label
        values = checkpoint.values
        if dropout is None and values.get("classifier_dropout") is not None:
            dropout = checked_number("classifier_dropout", values["classifier_dropout"], 1)
        options = {"text_pair": bool(values.get("text_pair")), "multi_label": bool(multi_label), "dropout": dropout}
        model = cls(backbone, labels, tokenizer, **options)
        tensors, left_out = checkpoint.divided(cls.task)
        own = checkpoint.table.head_tensors(cls.task) & tensors.keys()
        if order is None:
            tensors = {name: tensor for name, tensor in tensors.items() if name not in own}
            load(model.backbone, tensors, checkpoint.folder, left_out=left_out, notes=[note] if own else ())
        else:
            # A label has a row in each of the head's tensors; of another number of rows the shape is refused.
            tensors |= {name: tensors[name][order] for name in own if len(tensors[name]) == len(order)}
            load(model.backbone, tensors, checkpoint.folder, cls.task, model.head, left_out=left_out)
        return model

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load: weights, labels and tokenizer."""
        values = {
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": MULTI_LABEL if self.multi_label else SINGLE_LABEL,
            "classifier_dropout": self.classifier_dropout,
            "text_pair": self.text_pair,
        }
        self._write(folder, values, self.head)


@keras.saving.register_keras_serializable("kerasformer.models")
class CausalLM(Head):
    """Predicts the next token of a text: the product of each hidden state with the output embeddings of all tokens.

    Args:
        backbone: causal, with `extend`, `empty_caches` and `logits`.
        tokenizer: turns texts into ids and back; without it the model takes ids alone.
        generation_config: how `transformers` is to generate with a saved model; `generate` does not read it.
    """

    task = "CausalLM"
    scored_share = 1.0

    def __init__(
        self,
        backbone: Model,
        tokenizer: Tokenizer | None = None,
        generation_config: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        super().__init__(backbone, tokenizer, **kwargs)
        self.generation_config = dict(generation_config or {})
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """See Keras."""
        return {**super().get_config(), "generation_config": dict(self.generation_config)}

    def score(self, outputs: dict[str, KerasTensor], training: bool = False) -> KerasTensor:
        """`hidden_states` [B, T, D] -> logits [B, T, V]."""
        return self.backbone.logits(outputs["hidden_states"])

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, *, dtype: str | None = None) -> Self:
        """Reads a Hugging Face folder: backbone and tokenizer.

        Args:
            dtype: a Keras dtype policy, such as "float32" or "mixed_bfloat16"; the global one by default.

        Raises:
            InputError: a missing, truncated or foreign file, or a model that predicts no next token.
        """
        checkpoint, backbone, tokenizer = cls._read(folder, dtype)
        settings = generation_config.read(checkpoint.folder, checkpoint.values, tokenizer.eot_id)
        model = cls(backbone, tokenizer, settings)
        tensors, left_out = checkpoint.divided(cls.task)
        load(model.backbone, tensors, checkpoint.folder, cls.task, left_out=left_out)
        return model

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load: weights and tokenizer."""
        end = (
            {}
            if self.tokenizer is None
            else {"bos_token_id": self.tokenizer.eot_id, "eos_token_id": self.tokenizer.eot_id}
        )
        self._write(folder, end)
        if self.generation_config:
            write_json(Path(folder) / generation_config.FILE, self.generation_config)


@keras.saving.register_keras_serializable("kerasformer.models")
class MaskedLM(Head):
    """Predicts hidden tokens from those around them: a transform, and the product with the output embeddings.

    From Devlin et al. 2018, arXiv 1810.04805.

    Args:
        backbone: bidirectional, with `logits`. Its pooler, if it has one, is not trained.
        tokenizer: turns texts into the backbone's inputs; without it the model takes ids alone.
    """

    task = "MaskedLM"
    scored_share = 0.15  # as many as BERT hides
    unused = {"pooler": False}

    def __init__(self, backbone: Model, tokenizer: Tokenizer | None = None, **kwargs):
        super().__init__(backbone, tokenizer, **kwargs)
        config = backbone.config
        self.head = TokenTransform(
            config.vocab_size,
            activation=ACTIVATIONS[config.activation],
            epsilon=config.norm_epsilon,
            initializer=keras.initializers.TruncatedNormal(stddev=config.initializer_range),
            dtype=backbone.dtype_policy,
            name="head",
        )
        self.head.build((None, config.dim))
        self.built = True

    def score(self, outputs: dict[str, KerasTensor], training: bool = False) -> KerasTensor:
        """`hidden_states` [B, T, D] -> logits [B, T, V]."""
        states = self.head(outputs["hidden_states"])
        return ops.cast(self.backbone.logits(states), "float32") + self.head.bias

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, *, dtype: str | None = None) -> Self:
        """Reads a Hugging Face folder: backbone without pooler, tokenizer and, where it has one, the head.

        Args:
            dtype: a Keras dtype policy, such as "float32" or "mixed_bfloat16"; the global one by default.

        Raises:
            InputError: a missing, truncated or foreign file.
        """
        checkpoint, backbone, tokenizer = cls._read(folder, dtype)
        model = cls(backbone, tokenizer)
        tensors, left_out = checkpoint.divided(cls.task)
        if checkpoint.has_head(cls.task):
            load(model.backbone, tensors, checkpoint.folder, cls.task, model.head, left_out=left_out)
        else:
            notes = ["it has no head for masked tokens: it starts fresh, so train before use"]
            load(model.backbone, tensors, checkpoint.folder, left_out=left_out, notes=notes)
        return model

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load: weights and tokenizer."""
        self._write(folder, {}, self.head)


HEADS = (Classifier, CausalLM, MaskedLM)


def from_folder(folder: str | os.PathLike, *, dtype: str | None = None) -> Classifier | CausalLM | MaskedLM:
    """The model of a Hugging Face folder, with the head that its config.json names.

    Raises:
        InputError: as `from_pretrained`, or a folder that names no task of its family.
    """
    folder = path_of(folder)
    values = read_config(folder)
    family, named = backbone_class(values["model_type"]), architectures_of(values)
    for head in HEADS:
        if head.task in family.architectures and any(name.endswith(family.architectures[head.task]) for name in named):
            return head.from_pretrained(folder, dtype=dtype)
    known = [family.architectures[head.task] for head in HEADS if head.task in family.architectures]
    raise InputError(
        f"expected architectures with {' or '.join(known)} in {Path(folder) / CONFIG_FILE}, got {named}; "
        "train a task on it first"
    )


def _trained_labels(checkpoint: Checkpoint) -> TrainedLabels:
    """The labels of a folder's own classifier.

    Raises:
        Unusable: it has none, or one of another kind.
    """
    if not checkpoint.has_head(Classifier.task):
        raise Unusable("has no classifier that names them")
    if not checkpoint.is_of(Classifier.task):
        raise Unusable(f"has the classifier of {', '.join(checkpoint.classes)}, not of whole texts")
    return TrainedLabels.from_hf(checkpoint.values)
