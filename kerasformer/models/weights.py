"""Checkpoint tensors <-> model variables: a name table read in both directions, and one strict applier.

The file format is safetensors (github.com/huggingface/safetensors); tensors keep the names that `transformers` gives.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kerasformer.errors import InputError

WEIGHTS_FILE = "model.safetensors"


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
        tied: tensors that repeat another one, if a checkpoint has them; it is named with the prefix.
        ignored: patterns of tensors that carry no weight of ours, dropped on purpose.
        renamed: (pattern, replacement) pairs for names that older checkpoints use.
    """

    rows: Sequence[Row]
    prefix: str
    heads: Mapping[str, Sequence[Row]]
    fresh: Sequence[str] = ()
    optional: Sequence[str] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
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

    def is_fresh(self, path: str) -> bool:
        return _matches(path, self.fresh)

    def is_optional(self, path: str) -> bool:
        return _matches(path, self.optional)

    def is_ignored(self, name: str) -> bool:
        return _matches(name, self.ignored)

    def canonical(self, name: str) -> str:
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def read_tensors(folder: Path, table: Table) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint folder by canonical name, the ignored ones left out.

    Raises:
        InputError: no safetensors file (a pickle is refused), or a truncated or foreign one.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="np") as reader:
                for name in reader.keys():  # noqa: SIM118 (a safetensors reader is no mapping)
                    canonical = table.canonical(name)
                    if not table.is_ignored(canonical):
                        tensors[canonical] = reader.get_tensor(name)
        except (SafetensorError, OSError, TypeError) as error:
            raise InputError(
                f"expected a whole safetensors file, got {file} with {file.stat().st_size} bytes ({error}); "
                "copy or download it again"
            ) from error
    return tensors


def check_copies(tensors: Mapping[str, np.ndarray], table: Table, source: str) -> None:
    """Makes sure that the tensors that are to repeat another one do.

    Raises:
        InputError: one differs.
    """
    for copy, original in table.tied.items():
        if copy in tensors and not np.array_equal(tensors[copy], tensors.get(original)):
            raise InputError(
                f"expected {copy} equal to {original} in {source}, got others; use a model that ties the two"
            )


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / WEIGHTS_FILE, folder / f"{WEIGHTS_FILE}.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        files = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(
                f"expected every shard that {index} names, got none for {', '.join(missing)}; copy them too"
            )
        return files
    if pickles := sorted(
        file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(pattern)
    ):
        raise InputError(
            f"expected {single}, got {pickles[0]}: a pickle can run any code when it is loaded, so it is refused; "
            "load it with transformers where you trust it and call save_pretrained(folder), which writes safetensors"
        )
    raise InputError(f"expected {single}, got a folder without it; point to a Hugging Face checkpoint folder")


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


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file, with the metadata that `transformers` asks for."""
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(f"{file}: {error}") from error
