"""Byte-level BPE on disk: the tokenizer files of a Hugging Face GPT-2 folder, or those that GPT-2 came with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, processors

from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.text.added_files import WHOLE
from kerasformer.text.lines import read_lines
from kerasformer.text.tokenizer_files import describe, ordered, read_whole, warn_of_other_tokens, write_files

if TYPE_CHECKING:
    from kerasformer.text.bpe import BPE

_PARTS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))  # Hugging Face's names, and GPT-2's own
_HEADER = "#version"
_CLASS = "GPT2Tokenizer"
_EOT = "<|endoftext|>"
_EXPECTED = {
    ("model", "type"): "BPE",
    ("model", "dropout"): None,
    ("model", "continuing_subword_prefix"): None,
    ("model", "end_of_word_suffix"): None,
    ("model", "ignore_merges"): False,
    ("normalizer", "type"): None,
    ("pre_tokenizer", "type"): "ByteLevel",
    ("pre_tokenizer", "add_prefix_space"): False,
    ("pre_tokenizer", "use_regex"): True,
}
_NAMES = {"eos_token": "eot_token", "pad_token": "pad_token"}  # theirs: ours


def read(folder: Path) -> dict[str, Any]:
    """Returns the arguments of the BPE that the folder describes."""
    whole = folder / WHOLE
    found = _read_whole(whole) if whole.is_file() else None
    described = describe(folder, (_CLASS,), ("gpt2",), dict.fromkeys(("bos_token", "eos_token", "unk_token"), _EOT))
    settings = described.settings
    # What tokenizer.json alone decides is checked there; transformers 5 adds no tokens by the settings beside it.
    for name in () if described.as_written else ("add_prefix_space", "add_bos_token", "add_eos_token"):
        if settings.get(name):
            raise InputError(f"{described.config}: expected {name} false, got {settings[name]!r}: GPT-2 adds nothing")
    parts = _find_parts(folder)
    if found is None:
        if parts is None:
            expected = f"{WHOLE}, {' or '.join(' and '.join(names) for names in _PARTS)}"
            raise InputError(f"{folder}: expected {expected}, got none of them; copy the tokenizer's files too")
        found = _read_parts(*parts)
    elif parts is not None and all(path.is_file() for path in parts):
        warn_of_other_tokens(whole, found["vocab"], parts[0], lambda: _read_vocab(parts[0]))
        warn_of_other_tokens(whole, found["merges"], parts[1], lambda: _read_merges(parts[1]))
    arguments = {ours: settings[theirs] for theirs, ours in _NAMES.items() if settings.get(theirs)}
    # GPT-2's own end of text, where only the class names it, is not added to a vocabulary that has another.
    added = described.added_tokens(found["vocab"], [_EOT, *arguments.values()])
    rest = {"max_length": described.max_length, "added_tokens": added, "settings": described.kept(_NAMES)}
    return arguments | found | rest


def write(folder: Path, bpe: BPE) -> None:
    """Writes the four files, with the special tokens that the tokenizer itself does not find in texts."""
    complete = Tokenizer.from_str(bpe.tokenizer.to_str())
    complete.post_processor = processors.ByteLevel(trim_offsets=False)
    names = {theirs: bpe.settings.get(theirs, bpe.eot_token) for theirs in ("bos_token", "unk_token")}
    names |= {theirs: getattr(bpe, ours) for theirs, ours in _NAMES.items()}

    folder.mkdir(parents=True, exist_ok=True)
    vocab, ranks = (folder / name for name in _PARTS[0])
    write_json(vocab, {token: i for i, token in enumerate(bpe.vocab[: bpe.base_size])})
    with whole_file(ranks) as path:
        lines = [f"{_HEADER}: 0.2", *(" ".join(merge) for merge in bpe.merges)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    write_files(folder, complete, bpe, {"tokenizer_class": _CLASS, "add_prefix_space": False, **names})


def _read_whole(path: Path) -> dict[str, Any]:
    """Reads what tokenizer.json says, and makes sure that our BPE does all of it."""
    tokenizer, state = read_whole(path, "GPT-2", _EXPECTED)
    if added := tokenizer.encode("", "").tokens:
        raise InputError(f"{path}: expected no special tokens around a text, its post_processor adds {added}")
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    return {"vocab": ordered(path, state["model"]["vocab"]), "merges": merges}


def _find_parts(folder: Path) -> tuple[Path, Path] | None:
    parts = [(folder / vocab, folder / merges) for vocab, merges in _PARTS]
    return next(((vocab, merges) for vocab, merges in parts if vocab.is_file() or merges.is_file()), None)


def _read_parts(vocab: Path, merges: Path) -> dict[str, Any]:
    return {"vocab": _read_vocab(vocab), "merges": _read_merges(merges)}


def _read_vocab(path: Path) -> list[str]:
    return ordered(path, read_json(path, "the vocabulary"))


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = list(read_lines(path))
    merges = []
    for number, line in enumerate(lines, 1):
        if line and not (number == 1 and line.startswith(_HEADER)):
            left, space, right = line.partition(" ")
            if not (left and space and right) or " " in right:
                raise InputError(f"{path}, line {number}: expected two tokens and a space between, got {line!r:.60}")
            merges.append((left, right))
    return merges
