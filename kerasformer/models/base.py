"""What every model shares: a config in, a config out, weights from and to a Hugging Face folder."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import keras

from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.models import weights

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# Ends the `model_type` of a shape that `transformers` has no class for, so that it refuses the folder.
UNPUBLISHED = "-kerasformer"
# Hugging Face's names of our activations; where several mean one, the first is written.
_ACTIVATIONS = {
    "gelu": ("gelu",),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    "relu": ("relu",),
    "silu": ("silu", "swish"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of the families' configs: frozen, flat, and readable from a Hugging Face `config.json`."""

    model_type: ClassVar[str]
    hf_names: ClassVar[dict[str, str]]
    hf_required: ClassVar[dict[str, object]] = {}

    @classmethod
    def from_hf(cls, values: dict) -> Self:
        """Reads `config.json`'s fields; one that is absent keeps its default.

        Raises:
            InputError: a feature that this family does not have.
        """
        for name, wanted in cls.hf_required.items():
            if values.get(name, wanted) != wanted:
                raise InputError(
                    f"expected {name}={wanted!r} in {CONFIG_FILE}, got {values[name]!r}; use another model"
                )
        fields = {ours: values[theirs] for ours, theirs in cls.hf_names.items() if theirs in values}
        if "activation" in fields:
            theirs = fields["activation"]
            ours = [name for name, aliases in _ACTIVATIONS.items() if theirs in aliases]
            if not ours:
                known = ", ".join(alias for aliases in _ACTIVATIONS.values() for alias in aliases)
                raise InputError(
                    f"expected one of the activations {known} in {CONFIG_FILE}, got {theirs!r}; use another model"
                )
            fields["activation"] = ours[0]
        return cls(**fields)

    def to_hf(self) -> dict:
        """The fields of `config.json`."""
        values = {theirs: getattr(self, ours) for ours, theirs in self.hf_names.items()}
        for ours, theirs in self.hf_names.items():
            if ours == "activation":
                values[theirs] = _ACTIVATIONS[self.activation][0]
        return {"model_type": self.model_type, **values, **self.hf_required}


class Preset(NamedTuple):
    """A published size: values of the config, parameters in all, the checkpoint's name on the Hub, the paper."""

    name: str
    values: dict
    num_parameters: int
    source: str
    citation: str


class Model(keras.Model):
    """A Keras model that is built from one frozen dataclass.

    A family sets the class attributes, creates its layers in `__init__` and calls `self.build()` last.
    """

    config_class: ClassVar[type[Config]]
    input_names: ClassVar[tuple[str, ...]]
    table: ClassVar[weights.Table]
    tokenizer_class: ClassVar[type]
    presets: ClassVar[Sequence[Preset]]
    architectures: ClassVar[dict[str, str]]  # of `transformers`, by our class name

    def __init__(self, config: Config, **kwargs):
        super().__init__(**kwargs)
        self.config = config

    def build(self, input_shape=None):
        if not self.built:
            for layer in self.layers:  # they know their weights from the width: to trace them would take far longer
                layer.build((None, None, self.config.dim))
            self.built = True

    @property
    def stages(self) -> list[list[keras.layers.Layer]]:
        """The layers from the bottom up: those below the blocks, then each block; not what is above them."""
        layers = self.layers  # in the order in which the family makes them, which is that of the data
        return [layers[: layers.index(self.blocks[0])], *([block] for block in self.blocks)]

    def get_config(self) -> dict:
        return {**super().get_config(), "config": dataclasses.asdict(self.config)}

    @classmethod
    def from_config(cls, config: dict) -> Self:
        config = dict(config)
        return cls(cls.config_class(**config.pop("config")), **config)

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
        folder = Path(folder)
        values = read_config(folder)
        if values["model_type"].removesuffix(UNPUBLISHED) != cls.config_class.model_type:
            raise InputError(
                f"expected model_type {cls.config_class.model_type!r} in {folder / CONFIG_FILE}, "
                f"got {values['model_type']!r}; load it with the class of its family"
            )
        config, tensors = cls.config_class.from_hf(values), weights.read_tensors(folder, cls.table)
        model = cls(config, dtype=dtype)
        load(model, without_head(cls.table, tensors), folder)
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
        tensors = weights.collect(weights.by_path(self), self.rows(with_prefix=False))
        write_checkpoint(Path(folder), tensors, self.config.to_hf() | {"architectures": [self.architectures["Model"]]})


def without_head(table: weights.Table, tensors: dict, but: str | None = None) -> dict:
    """The tensors that belong to no head, or to none but that of one task."""
    heads = {name for task, rows in table.heads.items() if task != but for row in rows for name in row.tensors}
    return {name: tensor for name, tensor in tensors.items() if name not in heads | table.tied.keys()}


def load(
    backbone: Model, tensors: dict, folder: Path, task: str | None = None, head: keras.layers.Layer | None = None
) -> None:
    """Applies a checkpoint's tensors to a backbone and, if given, the head of a task; see `weights.apply`."""
    table = backbone.table
    with_prefix = any(name.startswith(table.prefix) for name in tensors)
    rows = backbone.rows(task, with_prefix)
    # Of what some checkpoints lack, others have more than some models need.
    spare = [row for row in table.rows_for(0, None, with_prefix) if table.is_fresh(row.path) and row not in rows]
    tensors = {name: tensor for name, tensor in tensors.items() if not any(name in row.tensors for row in spare)}
    fresh = [row.path for row in rows if table.is_fresh(row.path) and not any(name in tensors for name in row.tensors)]
    if fresh:
        logger.warning("%s has no weights for %s: they start fresh, so train before use", folder, ", ".join(fresh))
    variables = {path: v for path, v in weights.by_path(backbone, head).items() if path not in fresh}
    weights.apply(variables, [row for row in rows if row.path not in fresh], tensors, str(folder))


def read_config(folder: Path) -> dict:
    """`config.json` of a checkpoint folder.

    Raises:
        InputError: no folder, no such file, malformed JSON, or no `model_type` in it.
    """
    if not folder.is_dir():
        raise InputError(f"expected a Hugging Face checkpoint folder, got {folder}, which is no folder; check the path")
    values = read_json(folder / CONFIG_FILE, "a model's config")
    if "model_type" not in values:
        raise InputError(f"expected a model_type in {folder / CONFIG_FILE}, got none; is this a Hugging Face model?")
    return values


def write_checkpoint(folder: Path, tensors: dict, values: dict) -> None:
    """Writes weights, then `config.json`: a folder without it is no model, so a half-written one is never read."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / weights.WEIGHTS_FILE) as temporary:
        weights.write_tensors(temporary, tensors)
    write_json(folder / CONFIG_FILE, values)
