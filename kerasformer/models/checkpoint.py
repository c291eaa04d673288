"""A Hugging Face folder: what its `config.json` says, and its tensors, read and written without torch.

The file format is safetensors (github.com/huggingface/safetensors).
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.models.config import CONFIG_FILE
from kerasformer.models.weights import Table

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
ADAPTER_FILE = "adapter_config.json"
# What weights are called that `transformers` keeps in other formats.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf", "*.onnx")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds.

    Attributes:
        values: of `config.json`.
        table: the family's layout.
        architectures: the classes of `transformers` by the head that they have.
        tensors: by the names of the table, those of the backbone with `prefix`; the output embedding is among them
            where it is another one than the input's.
        prefix: what stands before the backbone's names in this checkpoint.
    """

    folder: Path
    values: Mapping[str, Any]
    table: Table
    architectures: Mapping[str, str]
    tensors: Mapping[str, np.ndarray]
    prefix: str

    @classmethod
    def read(cls, folder: Path, values: Mapping[str, Any], table: Table, architectures: Mapping[str, str]) -> Self:
        """Reads a folder's tensors.

        Raises:
            InputError: weights that are no floats in whole safetensors files, or two values for one weight.
        """
        if values.get("auto_map"):
            logger.warning("%s names code of its own in auto_map, which is not run", folder / CONFIG_FILE)
        named: dict[str, np.ndarray] = {}
        for name, tensor in _read_tensors(folder, table):
            if name in named and not np.array_equal(named[name], tensor):
                raise InputError(f"expected one value of {name} in the shards of {folder}, got two; copy them again")
            named[name] = tensor
        prefix = table.prefix if any(name.startswith(table.prefix) for name in named) else ""
        tensors: dict[str, np.ndarray] = {}
        # A name of older checkpoints goes before, as it does in `transformers`.
        for name in sorted(named, key=lambda name: table.canonical(name) != name):
            canonical = table.canonical(name)
            canonical = prefix + canonical if table.is_of_backbone(canonical) else canonical
            if canonical in tensors and not np.array_equal(tensors[canonical], named[name]):
                logger.warning("%s has other values under two names of one tensor: %s is used", folder, name)
            tensors[canonical] = named[name]
        output, original = table.output[0], prefix + table.output[1]
        if values.get("tie_word_embeddings", True) and output in tensors:
            if original not in tensors:  # of tensors that are one, safetensors keeps a single name
                tensors[original] = tensors.pop(output)
            elif np.array_equal(tensors[output], tensors[original]):
                del tensors[output]
        return cls(folder, values, table, architectures, tensors, prefix)

    @property
    def has_own_output(self) -> bool:
        """Whether the output embedding is another matrix than the input's."""
        return self.table.output[0] in self.tensors

    @property
    def classes(self) -> list[str]:
        """The classes of `transformers` that the folder says it is of; none where it does not say."""
        return architectures_of(self.values)

    def has_head(self, task: str) -> bool:
        """Whether there are tensors of a head of this task, be they of another head of the same names or not."""
        return not self.table.head_tensors(task).isdisjoint(self.tensors)

    def is_of(self, task: str) -> bool:
        """Whether the tensors with the names of a head of this task are of such a head."""
        classes = self.classes
        is_told_apart = task not in self.table.shared_names
        return is_told_apart or not classes or any(name.endswith(self.architectures[task]) for name in classes)

    def divided(self, task: str | None) -> tuple[dict[str, np.ndarray], list[str]]:
        """The tensors of the backbone and of the head of a task, and the names of those of other heads.

        What neither is one of the known heads nor can be one of another class stays, to be refused.
        """
        own = self.table.head_tensors(task) if task else set()
        others = {name for head in self.table.heads for name in self.table.head_tensors(head)} - own
        is_foreign = bool(self.prefix and self.classes) and not any(
            name.endswith(ours) for name in self.classes for ours in self.architectures.values()
        )
        left_out = [
            name
            for name in self.tensors
            if name in others
            or self.table.is_of_other_head(name)
            or (is_foreign and name not in own and not name.startswith(self.prefix))
        ]
        return {name: tensor for name, tensor in self.tensors.items() if name not in left_out}, left_out


def architectures_of(values: Mapping[str, Any]) -> list[str]:
    """The classes that a `config.json` names.

    Raises:
        InputError: it names them otherwise than as a list of strings.
    """
    names = values.get("architectures") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"expected architectures as a list of names in {CONFIG_FILE}, got {names!r:.80}; mend the file"
        )
    return names


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint folder.

    Raises:
        InputError: no folder, an adapter's, no such file, malformed JSON, or no `model_type` in it.
    """
    if not folder.is_dir():
        raise InputError(f"expected a Hugging Face checkpoint folder, got {folder}, which is no folder; check the path")
    if (folder / ADAPTER_FILE).is_file():
        raise InputError(
            f"expected a whole model, got the adapter of one in {folder} ({ADAPTER_FILE}); merge it with peft "
            "(merge_and_unload) and save_pretrained the result to a new folder"
        )
    values = read_json(folder / CONFIG_FILE, "a model's config")
    if not isinstance(values.get("model_type"), str):
        raise InputError(f"expected a model_type in {folder / CONFIG_FILE}, got none; is this a Hugging Face model?")
    return values


def write_checkpoint(folder: Path, tensors: dict[str, np.ndarray], values: dict[str, Any]) -> None:
    """Writes weights, then `config.json`: a folder without it is no model, so a half-written one is never read."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS_FILE) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})  # which `transformers` asks for
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(f"{temporary}: {error}") from error
    write_json(folder / CONFIG_FILE, values)


def _read_tensors(folder: Path, table: Table) -> Iterator[tuple[str, np.ndarray]]:
    """The names and values of all tensors but the ignored ones."""
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="np") as reader:
                for name in reader.keys():  # noqa: SIM118 (a safetensors reader is no mapping)
                    if table.is_ignored(table.canonical(name)):
                        continue
                    if (kind := reader.get_slice(name).get_dtype()) not in _FLOATS:
                        raise InputError(
                            f"expected tensors of {', '.join(_FLOATS)} in {file}, got {name} of {kind}; use weights "
                            "that are not quantized"
                        )
                    yield name, reader.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"expected a whole safetensors file, got {file} with {file.stat().st_size} bytes ({error}); "
                "copy or download it again"
            ) from error


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / WEIGHTS_FILE, folder / f"{WEIGHTS_FILE}.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        names = read_json(index, "the index of the weights").get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise InputError(f"expected a weight_map of file names in {index}, got {names!r:.80}; copy it again")
        files = [folder / name for name in sorted(set(names.values()))]
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(
                f"expected every shard that {index} names, got none for {', '.join(missing)}; copy them too"
            )
        return files
    others = sorted(file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern))
    if pickles := [name for name in others if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]:
        raise InputError(
            f"expected {single}, got {pickles[0]}: a pickle can run any code when it is loaded, so it is refused; "
            "load it with transformers where you trust it and call save_pretrained(folder), which writes safetensors"
        )
    if others:
        raise InputError(
            f"expected {single}, got {others[0]}; convert it: load it with transformers (from_tf=True or "
            "from_flax=True, before version 5) and call save_pretrained(folder), which writes safetensors"
        )
    raise InputError(f"expected {single}, got a folder without it; point to a Hugging Face checkpoint folder")
