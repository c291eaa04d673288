"""Tasks: a backbone of any family and a head on it. Families contribute only data."""

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import keras
from keras import KerasTensor, ops

from kerasformer.errors import InputError, listed
from kerasformer.layers.activations import ACTIVATIONS
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.token_transform import TokenTransform
from kerasformer.models import weights
from kerasformer.models.base import CONFIG_FILE, Model, load, read_config, without_head, write_checkpoint
from kerasformer.models.families import backbone_class
from kerasformer.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Head(keras.Model):
    """What the tasks share: a backbone, the tokenizer that it was trained with, and a folder to read or write.

    Args:
        backbone: of any family that has the task.
        tokenizer: turns texts into the backbone's inputs; without it the model takes ids alone.
    """

    task: ClassVar[str]  # names the head in the families' tables
    scored_share: ClassVar[float] = 0.0  # of positions whose logits are computed in training

    def __init__(self, backbone: Model, tokenizer: Tokenizer | None = None, **kwargs):
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        _check_task(self.task, type(backbone))
        if tokenizer is not None and not isinstance(tokenizer, kind := backbone.tokenizer_class):
            raise InputError(
                f"expected a {kind.__name__} tokenizer for a {type(backbone).__name__}, got a "
                f"{type(tokenizer).__name__}; pass one of that kind"
            )
        self.backbone, self.tokenizer = backbone, tokenizer
        if tokenizer is not None:
            tokenizer.max_positions = backbone.config.max_length
            tokenizer.max_length = min(tokenizer.max_length or tokenizer.max_positions, tokenizer.max_positions)

    def call(self, inputs: dict[str, KerasTensor], training: bool = False) -> KerasTensor:
        """Token ids, and what else the backbone takes, [B, T] -> what `score` gives."""
        return self.score(self.backbone(inputs, training=training), training=training)

    def score(self, outputs: dict[str, KerasTensor], training: bool = False) -> KerasTensor:
        """The logits by what the backbone gives."""
        raise NotImplementedError

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the model takes, each [B, T]."""
        return self.backbone.input_names

    def _write(self, folder: str | os.PathLike, values: dict, head: keras.layers.Layer | None = None) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load; `values` are the task's in config.json."""
        folder, backbone = Path(folder), self.backbone
        folder.mkdir(parents=True, exist_ok=True)
        if self.tokenizer is not None:
            self.tokenizer.save(folder)
            values = {"pad_token_id": self.tokenizer.pad_id, **values}
        values = backbone.config.to_hf() | {"architectures": [backbone.architectures[self.task]]} | values
        write_checkpoint(folder, weights.collect(weights.by_path(backbone, head), backbone.rows(self.task)), values)


class Classifier(Head):
    """Assigns one of `labels` to a text or a pair of texts: a dense layer on the backbone's pooled vector.

    Args:
        backbone: gives `pooled` [B, D].
        labels: names of the C classes, in the order of the logits.
        tokenizer: turns texts into the backbone's inputs; without it the model takes ids alone.
        text_pair: the model compares two texts.
        dropout: share of the pooled vector dropped in training; the backbone's by default.
    """

    task = "Classifier"

    def __init__(
        self,
        backbone: Model,
        labels: Sequence[str],
        tokenizer: Tokenizer | None = None,
        *,
        text_pair: bool = False,
        dropout: float | None = None,
        **kwargs,
    ):
        super().__init__(backbone, tokenizer, **kwargs)
        self.labels, self.text_pair = check_labels(labels), text_pair
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

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: str | keras.Loss | None = None,
        metrics: list | None = None,
        **kwargs,
    ) -> None:
        """Keras's `compile`; the loss is cross-entropy and the metric accuracy unless others are given."""
        loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] if metrics is None else metrics
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        labels: Sequence[str] | None = None,
        *,
        dropout: float | None = None,
        dtype: str | None = None,
    ) -> Self:
        """Reads a Hugging Face folder: backbone, tokenizer and, where its labels are the wanted ones, the head.

        Args:
            labels: the classes to tell apart; those of the checkpoint's own classifier by default.
            dtype: a Keras dtype policy, such as "float32" or "mixed_bfloat16"; the global one by default.

        Raises:
            InputError: a missing, truncated or foreign file, or no labels where the checkpoint has none.
        """
        folder, values, tensors, backbone, tokenizer = _read(cls.task, folder, dtype)
        bare, whole = without_head(backbone.table, tensors), without_head(backbone.table, tensors, but=cls.task)
        trained = _labels_of(values) if len(bare) < len(whole) else None
        if labels is None and trained is None:
            raise InputError(
                f"expected a classifier, got {folder}, whose config.json names no labels; "
                "train one from it, or name the labels of a new one, as in from_pretrained(folder, labels=[...])"
            )
        text_pair = bool(values.get("text_pair"))
        model = cls(backbone, labels or trained, tokenizer, text_pair=text_pair, dropout=dropout)
        if model.labels == trained:
            load(model.backbone, whole, folder, cls.task, model.head)
        else:
            load(model.backbone, bare, folder)
        return model

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load: weights, labels and tokenizer."""
        values = {
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": "single_label_classification",
            "text_pair": self.text_pair,
        }
        self._write(folder, values, self.head)


class CausalLM(Head):
    """Predicts the next token of a text: the product of each hidden state with the embeddings of all tokens.

    Args:
        backbone: causal, with `extend`, `empty_caches` and `logits`.
        tokenizer: turns texts into ids and back; without it the model takes ids alone.
    """

    task = "CausalLM"
    scored_share = 1.0

    def __init__(self, backbone: Model, tokenizer: Tokenizer | None = None, **kwargs):
        super().__init__(backbone, tokenizer, **kwargs)
        self.built = True

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
        folder, _, tensors, backbone, tokenizer = _read(cls.task, folder, dtype)
        model = cls(backbone, tokenizer)
        load(model.backbone, without_head(backbone.table, tensors), folder)
        return model

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load: weights and tokenizer."""
        end = (
            {}
            if self.tokenizer is None
            else {"bos_token_id": self.tokenizer.eot_id, "eos_token_id": self.tokenizer.eot_id}
        )
        self._write(folder, end)


class MaskedLM(Head):
    """Predicts hidden tokens from those around them: a transform, and the product with the embeddings of all tokens.

    From Devlin et al. 2018, arXiv 1810.04805.

    Args:
        backbone: bidirectional, with `logits`. Its pooler, if it has one, is not trained.
        tokenizer: turns texts into the backbone's inputs; without it the model takes ids alone.
    """

    task = "MaskedLM"
    scored_share = 0.15  # as many as BERT hides

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
            InputError: a missing, truncated or foreign file, or a head that is not tied to the embeddings.
        """
        folder, _, tensors, backbone, tokenizer = _read(cls.task, folder, dtype, pooler=False)
        model = cls(backbone, tokenizer)
        bare, whole = without_head(backbone.table, tensors), without_head(backbone.table, tensors, but=cls.task)
        if len(bare) < len(whole):
            weights.check_copies(tensors, backbone.table, str(folder))
            load(model.backbone, whole, folder, cls.task, model.head)
        else:
            logger.warning("%s has no head for masked tokens: it starts fresh, so train before use", folder)
            load(model.backbone, bare, folder)
        return model

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load: weights and tokenizer."""
        self._write(folder, {"tie_word_embeddings": True}, self.head)


HEADS = (Classifier, CausalLM, MaskedLM)


def _check_task(task: str, family: type[Model]) -> None:
    if task not in family.architectures:
        raise InputError(
            f"expected a model with the task {task}, got a {family.__name__}, which has "
            f"{', '.join(family.architectures)}; use a model of another family"
        )


def _read(
    task: str, folder: str | os.PathLike, dtype: str | None, **changes
) -> tuple[Path, dict, dict, Model, Tokenizer]:
    """The folder, its config.json and tensors, and a backbone with fresh weights and the tokenizer to go with them.

    Args:
        changes: to what config.json says.
    """
    folder = Path(folder)
    values = read_config(folder)
    backbone_type = backbone_class(values["model_type"])
    _check_task(task, backbone_type)
    tensors = weights.read_tensors(folder, backbone_type.table)
    tokenizer = backbone_type.tokenizer_class.from_folder(folder)
    config = dataclasses.replace(backbone_type.config_class.from_hf(values), **changes)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"expected a tokenizer of at most {config.vocab_size} tokens, as {folder / CONFIG_FILE} says, "
            f"got {tokenizer.vocab_size}; use the tokenizer that the model was trained with"
        )
    return folder, values, tensors, backbone_type(config, dtype=dtype), tokenizer


def from_folder(folder: str | os.PathLike, *, dtype: str | None = None) -> Classifier | CausalLM | MaskedLM:
    """The model of a Hugging Face folder, with the head that its config.json names.

    Raises:
        InputError: as `from_pretrained`, or a folder that names no task of its family.
    """
    values = read_config(Path(folder))
    family, named = backbone_class(values["model_type"]), values.get("architectures") or []
    for head in HEADS:
        if family.architectures.get(head.task) in named:
            return head.from_pretrained(folder, dtype=dtype)
    known = [family.architectures[head.task] for head in HEADS if head.task in family.architectures]
    raise InputError(
        f"expected architectures with {' or '.join(known)} in {Path(folder) / CONFIG_FILE}, got {named}; "
        "train a task on it first"
    )


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels as a list.

    Raises:
        InputError: fewer than two, one given twice, or one that is not a line.
    """
    labels = [str(label) for label in labels]
    if len(labels) < 2:
        raise InputError(f"expected at least two labels, got {labels}; a classifier tells classes apart")
    if broken := [label for label in labels if label.splitlines() != [label]]:
        raise InputError(f"expected labels of one line, got {broken[0]!r}; rename it")
    if twice := sorted(label for label, count in Counter(labels).items() if count > 1):
        known = listed([repr(label) for label in twice])
        raise InputError(f"expected each label once, got [{known}] more than once; remove the repetition")
    return labels


def _labels_of(values: dict) -> list[str]:
    """The labels of a `config.json`, named as `transformers` does where it gives only their number."""
    names = values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(values.get("num_labels", 2))}
    return [names[key] for key in sorted(names, key=int)]
