"""What the tasks share: a backbone of any family, its tokenizer, a folder to read or write, and Keras's own files."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
from keras import KerasTensor

from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.models import weights
from kerasformer.models.base import Model
from kerasformer.models.checkpoint import Checkpoint, read_config, write_checkpoint
from kerasformer.models.config import CONFIG_FILE, Config
from kerasformer.models.families import backbone_class
from kerasformer.text.tokenizer import Tokenizer


class Head(keras.Model):
    """What the tasks share: a backbone, the tokenizer that it was trained with, and a folder to read or write.

    Args:
        backbone: of any family that has the task.
        tokenizer: turns texts into the backbone's inputs; without it the model takes ids alone.
    """

    task: ClassVar[str]  # names the head in the families' tables
    scored_share: ClassVar[float] = 0.0  # of positions whose logits are computed in training
    unused: ClassVar[Mapping[str, Any]] = {}  # values of a config without the layers that the head does not read

    def __init__(self, backbone: Model, tokenizer: Tokenizer | None = None, **kwargs):
        if not isinstance(backbone, Model):
            raise InputError(
                f"expected a backbone, such as a kf.Bert or a kf.GPT, got {backbone!r:.60}; "
                f"build one, or load a checkpoint with {type(self).__name__}.from_pretrained"
            )
        super().__init__(**{"dtype": backbone.dtype_policy, **kwargs})
        check_task(self.task, type(backbone))
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

    def get_config(self) -> dict[str, Any]:
        """See Keras; the backbone and the content of the tokenizer's files are in it."""
        files = None if self.tokenizer is None else self.tokenizer.to_files()
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {**super().get_config(), "backbone": backbone, "tokenizer": files}

    @classmethod
    def from_config(cls, config: dict[str, Any], backbone: Model | None = None) -> Self:
        """See Keras.

        Args:
            backbone: is taken instead of the one that the config describes.
        """
        config = dict(config)
        described, files = config.pop("backbone"), config.pop("tokenizer")
        backbone = keras.saving.deserialize_keras_object(described) if backbone is None else backbone
        tokenizer = None if files is None else backbone.tokenizer_class.from_files(files)
        return cls(backbone=backbone, tokenizer=tokenizer, **config)

    @classmethod
    def config_from(cls, values: Mapping[str, Any]) -> Config:
        """The config of the backbone that this head has in a folder whose `config.json` holds these values."""
        family = backbone_class(values["model_type"])
        check_task(cls.task, family)
        return dataclasses.replace(family.config_class.from_hf(values), **cls.unused)

    @classmethod
    def _read(cls, folder: str | os.PathLike, dtype: str | None) -> tuple[Checkpoint, Model, Tokenizer]:
        """What a folder holds, a backbone of its sizes with fresh weights, and its tokenizer."""
        folder = path_of(folder)
        values = read_config(folder)
        config, family = cls.config_from(values), backbone_class(values["model_type"])
        checkpoint = Checkpoint.read(folder, values, family.table, family.architectures)
        if checkpoint.has_own_output and "tie_embeddings" not in cls.unused:
            config = dataclasses.replace(config, tie_embeddings=False)
        tokenizer = family.tokenizer_class.from_folder(folder)
        if tokenizer.vocab_size > config.vocab_size:
            raise InputError(
                f"expected a tokenizer of at most {config.vocab_size} tokens, as {folder / CONFIG_FILE} says, "
                f"got {tokenizer.vocab_size}; use the tokenizer that the model was trained with"
            )
        return checkpoint, family(config, dtype=dtype), tokenizer

    def _write(self, folder: str | os.PathLike, values: dict[str, Any], head: keras.layers.Layer | None = None) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load; `values` are the task's in config.json."""
        folder, backbone = path_of(folder), self.backbone
        folder.mkdir(parents=True, exist_ok=True)
        if self.tokenizer is not None:
            self.tokenizer.save(folder)
            values = {"pad_token_id": self.tokenizer.pad_id, **values}
        values = backbone.config.to_hf() | {"architectures": [backbone.architectures[self.task]]} | values
        tensors = weights.collect(weights.by_path(backbone, head), backbone.rows(self.task))
        if backbone.table.output[0] in tensors:
            tensors |= {copy: tensors[original].copy() for copy, original in backbone.table.untied_copies.items()}
        write_checkpoint(folder, tensors, values)


def check_task(task: str, family: type[Model]) -> None:
    """Raises InputError where a family does not have the task."""
    if task not in family.architectures:
        raise InputError(
            f"expected a model with the task {task}, got a {family.__name__}, which has "
            f"{', '.join(family.architectures)}; use a model of another family"
        )
