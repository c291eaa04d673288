"""The sizes of a model as a frozen dataclass, and as the fields of a Hugging Face `config.json`."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from kerasformer.errors import InputError

CONFIG_FILE = "config.json"
# Ends the `model_type` of a shape that `transformers` has no class for, so that it refuses the folder.
UNPUBLISHED = "-kerasformer"
# Hugging Face's names of our activations; where several mean one, the first is written.
_ACTIVATIONS = {
    "gelu": ("gelu", "gelu_python"),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate"),
    "relu": ("relu",),
    "silu": ("silu", "swish"),
}
# What changes the tensors or the computation of any family, by what to do about it.
_REFUSED = {
    "quantization_config": "load it with transformers, dequantize it and save it in float32, float16 or bfloat16",
    "pruned_heads": "use a model with all of its attention heads",
    "per_layer_config": "use a model whose layers are alike",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of the families' configs: frozen, flat, and readable from a Hugging Face `config.json`.

    A family names its fields in `hf_names`, other names for them in `hf_aliases`, which `transformers` prefers where
    both are given, and in `hf_required` the features that it has one value of. All other fields do not change what the
    family computes.
    """

    model_type: ClassVar[str]
    hf_names: ClassVar[dict[str, str]]
    hf_aliases: ClassVar[dict[str, str]] = {}
    hf_required: ClassVar[dict[str, object]] = {}

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> Self:
        """Reads `config.json`'s fields; one that is absent keeps its default.

        Raises:
            InputError: a feature that this family does not have, or a value of another type or out of its range.
        """
        for name, advice in _REFUSED.items():
            if values.get(name):
                raise InputError(f"expected no {name} in {CONFIG_FILE}, got {values[name]!r:.80}; {advice}")
        for name, wanted in cls.hf_required.items():
            if values.get(name, wanted) != wanted:
                raise InputError(
                    f"expected {name}={wanted!r} in {CONFIG_FILE}, got {values[name]!r}; use another model"
                )
        names = cls.hf_names | {ours: alias for ours, alias in cls.hf_aliases.items() if alias in values}
        kinds = {field.name: field for field in dataclasses.fields(cls)}
        found = {
            ours: _checked(theirs, values[theirs], kinds[ours]) for ours, theirs in names.items() if theirs in values
        }
        if "activation" in found:
            found["activation"] = _activation(found["activation"])
        config = cls(**found)
        if config.dim % config.num_heads:
            raise InputError(
                f"expected {names['num_heads']} to divide {names['dim']} in {CONFIG_FILE}, got {config.num_heads} and "
                f"{config.dim}; mend the file"
            )
        return config

    def to_hf(self) -> dict[str, Any]:
        """The fields of `config.json`."""
        values = {theirs: getattr(self, ours) for ours, theirs in self.hf_names.items()}
        values[self.hf_names["activation"]] = _ACTIVATIONS[self.activation][0]
        return {"model_type": self.model_type, **values, **self.hf_required}


class Preset(NamedTuple):
    """A published size: values of the config, parameters in all, the checkpoint's name on the Hub, the paper."""

    name: str
    values: dict
    num_parameters: int
    source: str
    citation: str


def checked_number(name: str, value: Any, limit: float) -> float:
    """A number of `config.json` in [0, limit).

    Raises:
        InputError: it is none, or out of its range.
    """
    if type(value) not in (int, float) or not 0 <= value < limit:
        raise InputError(f"expected {name} as a number in [0, {limit}) in {CONFIG_FILE}, got {value!r}; mend the file")
    return float(value)


def _checked(name: str, value: Any, field: dataclasses.Field) -> Any:
    """A field's value; raises InputError for one of another type, or out of its range."""
    [kind, *_] = typing.get_args(field.type) or [field.type]
    if kind is float:
        return checked_number(name, value, 1 if "dropout" in field.name else math.inf)
    if kind is int:
        least = min(field.default, 1)  # 0 where that stands for none
        is_right, wanted = type(value) is int and value >= least, f"a whole number from {least}"
    else:
        is_right, wanted = type(value) is kind, {bool: "true or false", str: "a string"}[kind]
    if not is_right:
        raise InputError(f"expected {name} as {wanted} in {CONFIG_FILE}, got {value!r}; mend the file")
    return value


def _activation(theirs: str) -> str:
    for ours, aliases in _ACTIVATIONS.items():
        if theirs in aliases:
            return ours
    known = ", ".join(alias for aliases in _ACTIVATIONS.values() for alias in aliases)
    raise InputError(f"expected one of the activations {known} in {CONFIG_FILE}, got {theirs!r}; use another model")
