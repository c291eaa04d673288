"""Byte-level BPE on disk: the tokenizer files of a Hugging Face GPT-2 folder, or those that GPT-2 came with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.text.lines import read_lines
from kerasformer.text.tokenizer_files import CONFIG, WHOLE, ordered, read_settings, read_whole, settings_of

_PARTS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))  # Hugging Face's names, and GPT-2's own
_HEADER = "#version"
_CLASS = "GPT2Tokenizer"
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


def read(folder: Path) -> dict[str, Any]:
    """Returns the arguments of the BPE that the folder describes."""
    settings = read_settings(folder, ("eos_token", "pad_token"))
    for name in ("add_prefix_space", "add_bos_token"):
        if settings.get(name):
            raise InputError(f"{folder / CONFIG}: expected {name} false, got {settings[name]!r}: GPT-2 adds nothing")
    names = {"eos_token": "eot_token", "pad_token": "pad_token", "max_length": "max_length"}
    common = {ours: settings[theirs] for theirs, ours in names.items() if settings.get(theirs)}
    if (folder / WHOLE).is_file():
        return common | _read_whole(folder / WHOLE)
    parts = [(folder / vocab, folder / merges) for vocab, merges in _PARTS]
    found = [(vocab, merges) for vocab, merges in parts if vocab.is_file() or merges.is_file()]
    if not found:
        expected = f"{WHOLE}, {' or '.join(' and '.join(names) for names in _PARTS)}"
        raise InputError(f"{folder}: expected {expected}, got none of them; copy the tokenizer's files too")
    kind = settings.get("tokenizer_class") or _CLASS
    if kind.removesuffix("Fast") != _CLASS:
        raise InputError(f"{folder / CONFIG}: expected the tokenizer_class {_CLASS}, got {kind}")
    vocab, merges = found[0]
    return common | {"vocab": ordered(vocab, read_json(vocab, "the vocabulary")), "merges": _read_merges(merges)}


def write(
    folder: Path,
    tokenizer: Tokenizer,
    merges: Sequence[tuple[str, str]],
    tokens: Mapping[str, str],
    max_length: int | None,
) -> None:
    """Writes the four files for a tokenizer that knows no special tokens; the written one does."""
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.add_special_tokens(list(dict.fromkeys(tokens.values())))
    complete.post_processor = processors.ByteLevel(trim_offsets=False)
    ids = complete.get_vocab()
    eot = tokens["eos_token"]
    special = {"bos_token": eot, "unk_token": eot, **tokens}

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WHOLE) as path:
        path.write_text(complete.to_str(pretty=True), encoding="utf-8", newline="\n")
    vocab, ranks = (folder / name for name in _PARTS[0])
    write_json(vocab, {token: ids[token] for token in sorted(ids, key=ids.get)})
    with whole_file(ranks) as path:
        lines = [f"{_HEADER}: 0.2", *(" ".join(merge) for merge in merges)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    write_json(folder / CONFIG, settings_of(_CLASS, {"add_prefix_space": False, **special}, max_length))


def _read_whole(path: Path) -> dict[str, Any]:
    """Reads tokenizer.json, and makes sure that our BPE does all that it says."""
    tokenizer, state = read_whole(path, "GPT-2", _EXPECTED)
    if added := tokenizer.encode("", "").tokens:
        raise InputError(f"{path}: expected no special tokens around a text, its post_processor adds {added}")
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    return {"vocab": ordered(path, tokenizer.get_vocab()), "merges": merges}


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
