"""What every model shares: a config in, a config out, weights from and to a Hugging Face folder."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import keras
import numpy as np
from keras import KerasTensor

from kerasformer.errors import InputError, listed
from kerasformer.files import path_of
from kerasformer.layers.embedding import Embedding
from kerasformer.models import weights
from kerasformer.models.checkpoint import Checkpoint, read_config, write_checkpoint
from kerasformer.models.config import CONFIG_FILE, UNPUBLISHED, Config, Preset

logger = logging.getLogger(__name__)

SHOWN_NAMES = 4  # of tensors, in a log line


class Model(keras.Model):
    """A Keras model that is built from one frozen dataclass.

    A family sets the class attributes, creates its layers in `__init__` and calls `self.build()` last.
    """

    config_class: ClassVar[type[Config]]
    input_names: ClassVar[tuple[str, ...]]
    optional_inputs: ClassVar[tuple[str, ...]] = ()  # of these names, for rows without padding
    table: ClassVar[weights.Table]
    tokenizer_class: ClassVar[type]
    presets: ClassVar[Sequence[Preset]]
    architectures: ClassVar[dict[str, str]]  # of `transformers`, by our class name

    def __init__(self, config: Config, **kwargs):
        if not isinstance(config, self.config_class):
            raise InputError(f"expected a {self.config_class.__name__}, got {config!r:.60}; pass one")
        super().__init__(**kwargs)
        self.config = config

    def build(self, input_shape=None):
        if not self.built:
            for layer in self.layers:  # they know their weights from the width: to trace them would take far longer
                layer.build((None, None, self.config.dim))
            self.built = True

    def make_own_output(self, initializer: keras.Initializer) -> Embedding | None:
        """The output embedding of a family's model, where its config does not tie it to the input's."""
        config = self.config
        if config.tie_embeddings:
            return None
        return Embedding(config.vocab_size, config.dim, initializer=initializer, dtype=self.dtype_policy, name="output")

    @property
    def output_embedding(self) -> Embedding:
        """The embedding whose product with a hidden state gives the scores of the tokens."""
        return self.embedding.token if self.own_output is None else self.own_output

    @property
    def output_table(self) -> keras.Variable:
        """The vector [V, D] of each token in the output embedding."""
        return self.output_embedding.embeddings

    def logits(self, hidden_states: KerasTensor) -> KerasTensor:
        """Scores of the tokens, [..., D] -> [..., V]: the product with the output embedding of each token."""
        return self.output_embedding.products(hidden_states)

    @property
    def stages(self) -> list[list[keras.layers.Layer]]:
        """The layers from the bottom up: those below the blocks, then each block; not what is above them."""
        layers = self.layers  # in the order in which the family makes them, which is that of the data
        return [layers[: layers.index(self.blocks[0])], *([block] for block in self.blocks)]

    def get_config(self) -> dict:
        """See Keras; which of the layers are frozen is in it."""
        frozen = [layer.name for layer in self.layers if not layer.trainable]
        return {**super().get_config(), "config": dataclasses.asdict(self.config), "frozen": frozen}

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """See Keras."""
        config = dict(config)
        frozen = config.pop("frozen", ())
        model = cls(cls.config_class(**config.pop("config")), **config)
        for layer in model.layers:
            layer.trainable = layer.name not in frozen
        return model

    @classmethod
    def from_preset(cls, name: str, **kwargs) -> Self:
        """A model of a published size with fresh weights; `kwargs` override values of its config.

        Raises:
            InputError: an unknown preset.
        """
        return cls(cls.config_class(**{**cls.preset(name).values, **kwargs}))

    @classmethod
    def preset(cls, name: str) -> Preset:
        """The published size of that name.

        Raises:
            InputError: an unknown preset.
        """
        for preset in cls.presets:
            if preset.name == name:
                return preset
        raise InputError(
            f"expected one of the presets {', '.join(p.name for p in cls.presets)}, got {name!r}; name one"
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, *, dtype: str | None = None) -> Self:
        """Reads the backbone of a Hugging Face folder (`config.json`, `model.safetensors`).

        Args:
            dtype: a Keras dtype policy, such as "float32" or "mixed_bfloat16"; the global one by default.

        Raises:
            InputError: a missing, truncated or foreign file, or another architecture.
        """
        folder = path_of(folder)
        values = read_config(folder)
        if values["model_type"].removesuffix(UNPUBLISHED) != cls.config_class.model_type:
            raise InputError(
                f"expected model_type {cls.config_class.model_type!r} in {folder / CONFIG_FILE}, "
                f"got {values['model_type']!r}; load it with the class of its family"
            )
        # Nothing but a head reads an output embedding.
        model = cls(dataclasses.replace(cls.config_class.from_hf(values), tie_embeddings=True), dtype=dtype)
        tensors, left_out = Checkpoint.read(folder, values, cls.table, cls.architectures).divided(task=None)
        load(model, tensors, folder, left_out=left_out)
        return model

    def set_remat(self, blocks: bool) -> None:
        """Whether the backward pass computes each block's inside anew, and keeps no more than its input until then.

        To be set before the model is compiled. Chen et al. 2016, arXiv 1604.06174.
        """
        for block in self.blocks:
            block.remat = blocks

    def rows(self, task: str | None = None, with_prefix: bool = True) -> list[weights.Row]:
        """The rows of the family's table that a model of this config has, and those of the head of a task."""
        own = weights.by_path(self)
        rows = self.table.rows_for(self.config.num_layers, task, with_prefix)
        return [row for row in rows if row.path in own or not self.table.is_optional(row.path)]

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder that `transformers` and `from_pretrained` load."""
        folder, tensors = path_of(folder), weights.collect(weights.by_path(self), self.rows(with_prefix=False))
        write_checkpoint(folder, tensors, self.config.to_hf() | {"architectures": [self.architectures["Model"]]})


def load(
    backbone: Model,
    tensors: Mapping[str, np.ndarray],
    folder: Path,
    task: str | None = None,
    head: keras.layers.Layer | None = None,
    *,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Applies a checkpoint's tensors to a backbone and, if given, the head of a task; see `weights.apply`.

    One line of the log tells what is not used and what starts fresh.

    Args:
        left_out: tensors of other heads.
        notes: more for that line.
    """
    table = backbone.table
    with_prefix = any(name.startswith(table.prefix) for name in tensors)
    rows = backbone.rows(task, with_prefix)
    # Of what some checkpoints lack, others have more than some models need.
    spare = [row for row in table.rows_for(0, None, with_prefix) if table.is_fresh(row.path) and row not in rows]
    tensors = {name: tensor for name, tensor in tensors.items() if not any(name in row.tensors for row in spare)}
    variables = weights.by_path(backbone, head)
    found = {row.path for row in rows if any(name in tensors for name in row.tensors)}
    fresh = [path for path in variables if table.is_fresh(path) and path not in found]
    variables = {path: variable for path, variable in variables.items() if path not in fresh}
    weights.apply(variables, [row for row in rows if row.path not in fresh], tensors, str(folder))
    notes = list(notes)
    if fresh:
        notes.append(f"it has no weights for {', '.join(fresh)}: they start fresh, so train before use")
    if left_out:
        notes.append(f"it has tensors of a head that is not used, {listed(left_out, SHOWN_NAMES)}")
    if notes:
        logger.warning("%s: %s", folder, "; ".join(notes))
