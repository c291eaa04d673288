"""Checkpoint tensors <-> model variables: a name table read in both directions, and one strict applier.

Tensors keep the names that `transformers` gives.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from kerasformer.errors import InputError


class Transform(NamedTuple):
    """How a variable is made of checkpoint tensors, and how it is taken apart again."""

    join: Callable[..., np.ndarray]
    split: Callable[[np.ndarray, int], list[np.ndarray]]


COPY = Transform(lambda tensor: tensor, lambda value, count: [value])
TRANSPOSE = Transform(lambda tensor: tensor.T, lambda value, count: [value.T])
# One below the other: biases [D] -> [3 D], kernels [D, D] -> [3 D, D].
STACK = Transform(lambda *tensors: np.concatenate(tensors), lambda value, count: np.split(value, count))


class Row(NamedTuple):
    """One variable: its path below the model, the tensors it is made of, and how. `{i}` numbers the layers."""

    path: str
    tensors: tuple[str, ...]
    transform: Transform = COPY


@dataclass(frozen=True)
class Table:
    """A family's checkpoint layout.

    Args:
        rows: every variable of the backbone.
        prefix: what stands before the backbone's tensor names in a checkpoint with a head ("bert.").
        heads: the further variables of each head, by our class name.
        fresh: patterns of paths that some checkpoints lack; their weights stay fresh then, and a log line says so.
        optional: patterns of paths that models of some configs lack.
        output: the tensor of the output embedding, and the backbone's tensor that it repeats where the two are tied.
        untied_copies: tensors that repeat another one, written where the output embedding is not tied to the input's.
        shared_names: heads whose tensors have the names that `transformers` gives those of other heads as well.
        other_heads: patterns of tensors of heads that we do not have.
        ignored: patterns of tensors that carry no weight of ours, dropped on purpose.
        renamed: (pattern, replacement) pairs for names that older checkpoints use.
    """

    rows: Sequence[Row]
    prefix: str
    heads: Mapping[str, Sequence[Row]]
    output: tuple[str, str]
    fresh: Sequence[str] = ()
    optional: Sequence[str] = ()
    untied_copies: Mapping[str, str] = field(default_factory=dict)
    shared_names: Sequence[str] = ()
    other_heads: Sequence[str] = ()
    ignored: Sequence[str] = ()
    renamed: Sequence[tuple[str, str]] = ()

    def rows_for(self, num_layers: int, head: str | None, with_prefix: bool = True) -> list[Row]:
        """The rows with `{i}` written out, then those of the head, whose tensors never have the prefix."""
        prefix = self.prefix if with_prefix else ""
        rows = []
        for path, tensors, transform in self.rows:
            for i in range(num_layers if "{i}" in path else 1):
                names = tuple(prefix + name.replace("{i}", str(i)) for name in tensors)
                rows.append(Row(path.replace("{i}", str(i)), names, transform))
        return rows + list(self.heads[head] if head else ())

    def head_tensors(self, head: str) -> set[str]:
        """The names of a head's tensors."""
        return {name for row in self.heads[head] for name in row.tensors}

    def is_fresh(self, path: str) -> bool:
        return _matches(path, self.fresh)

    def is_optional(self, path: str) -> bool:
        return _matches(path, self.optional)

    def is_ignored(self, name: str) -> bool:
        return _matches(name, self.ignored)

    def is_of_other_head(self, name: str) -> bool:
        return _matches(name, self.other_heads)

    def is_of_backbone(self, name: str) -> bool:
        """Whether a name without prefix is one of the backbone's, in a layer of any number."""
        return _matches(name, (re.escape(n).replace(r"\{i\}", r"\d+") for row in self.rows for n in row.tensors))

    def canonical(self, name: str) -> str:
        """The name in these rows of what a checkpoint calls by another one."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def by_path(backbone: keras.Model, head: keras.layers.Layer | None = None) -> dict[str, keras.Variable]:
    """The backbone's weights by their path below it, and the head's by its own name."""
    variables = {variable.path.partition("/")[2]: variable for variable in backbone.weights}
    return variables | {variable.path: variable for variable in (head.weights if head else ())}


def apply(
    variables: Mapping[str, keras.Variable], rows: Iterable[Row], tensors: Mapping[str, np.ndarray], source: str
) -> None:
    """Assigns every variable once from the tensors and uses every tensor, or changes nothing.

    Args:
        variables: by path, as the rows name them.
        source: what the tensors came from, for the error.

    Raises:
        InputError: a variable without tensor (-), a tensor without variable (+), or another shape (!).
    """
    values, unused, complaints = {}, set(tensors), []
    for path, names, transform in rows:
        if missing := [name for name in names if name not in tensors]:
            complaints += [f"-{name}" for name in missing]
            continue
        unused -= set(names)
        value, wanted = transform.join(*(tensors[name] for name in names)), tuple(variables[path].shape)
        if value.shape != wanted:
            complaints.append(f"!{names[0]} {list(value.shape)} for {list(wanted)}")
        values[path] = value
    complaints += [f"+{name}" for name in sorted(unused)]
    if complaints:
        shown = " ".join(complaints[:12]) + (f" and {len(complaints) - 12} more" if len(complaints) > 12 else "")
        raise InputError(
            f"expected the tensors of this model in {source}, got {shown} (- missing, + foreign, ! other shape); "
            "check that config.json and the weights belong together"
        )
    if unassigned := set(variables) - set(values):
        raise AssertionError(f"the name table has no row for {sorted(unassigned)}")
    for path, value in values.items():
        variables[path].assign(value)


def collect(variables: Mapping[str, keras.Variable], rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """The inverse of `apply`: checkpoint tensors, float32 and contiguous, from the variables."""
    tensors = {}
    for path, names, transform in rows:
        parts = transform.split(np.asarray(variables[path], np.float32), len(names))
        tensors |= {name: np.ascontiguousarray(part) for name, part in zip(names, parts, strict=True)}
    return tensors
