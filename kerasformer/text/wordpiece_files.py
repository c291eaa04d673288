"""WordPiece on disk: tokenizer.json, vocab.txt and tokenizer_config.json of a Hugging Face checkpoint folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.text.lines import read_lines

_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
_EXPECTED = {
    ("model", "type"): "WordPiece",
    ("model", "continuing_subword_prefix"): "##",
    ("model", "max_input_chars_per_word"): 100,
    ("normalizer", "type"): "BertNormalizer",
    ("normalizer", "clean_text"): True,
    ("pre_tokenizer", "type"): "BertPreTokenizer",
}
_NO_LIMIT = 10**6  # transformers writes 10**30 for none
_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
_SPECIAL_TOKENS = ("unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
_NORMALIZATION = {  # our name: theirs in tokenizer_config.json, and what it is there when left out
    "lowercase": ("do_lower_case", True),
    "strip_accents": ("strip_accents", None),
    "handle_chinese_chars": ("tokenize_chinese_chars", True),
}


def read(folder: Path) -> dict[str, Any]:
    """Returns the arguments of the WordPiece that the folder describes."""
    whole, vocab, config = (folder / name for name in _FILES)
    if not whole.is_file() and not vocab.is_file():
        raise InputError(f"{folder}: expected tokenizer.json or vocab.txt, got neither; copy the tokenizer's files too")
    settings = read_json(config, "the tokenizer's settings") if config.is_file() else {}
    tokens = {name: _token(config, name, settings[name]) for name in _SPECIAL_TOKENS if settings.get(name)}
    length = settings.get("model_max_length")
    known = isinstance(length, int | float) and 0 < length < _NO_LIMIT
    common = tokens | {"max_length": int(length) if known else None}
    if whole.is_file():
        return common | _read_whole(whole)
    pieces = list(read_lines(vocab))
    if not config.is_file():
        # A vocabulary of lower-cased text holds no upper case, but for the special tokens.
        settings = {"do_lower_case": all(piece == piece.lower() for piece in pieces if not piece.startswith("["))}
    return common | _normalization(config, settings) | {"vocab": pieces}


def write(
    folder: Path,
    tokenizer: Tokenizer,
    normalization: Mapping[str, bool | None],
    tokens: Mapping[str, str],
    max_length: int | None,
) -> None:
    """Writes the three files for a tokenizer that knows no special tokens; the written one does."""
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.add_special_tokens(list(tokens.values()))
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    complete.post_processor = processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(token, complete.token_to_id(token)) for token in (cls, sep)],
    )
    ids = complete.get_vocab()
    settings = {theirs: normalization[ours] for ours, (theirs, _) in _NORMALIZATION.items()}
    length = {} if max_length is None else {"model_max_length": max_length}
    settings = {"tokenizer_class": "BertTokenizer", **settings, **tokens, **length}

    folder.mkdir(parents=True, exist_ok=True)
    whole, vocab, config = (folder / name for name in _FILES)
    with whole_file(whole) as path:
        complete.save(str(path))
    with whole_file(vocab) as path:
        path.write_text("".join(f"{token}\n" for token in sorted(ids, key=ids.get)), encoding="utf-8", newline="\n")
    write_json(config, settings)


def _read_whole(path: Path) -> dict[str, Any]:
    """Reads tokenizer.json, and makes sure that our WordPiece does all that it says."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path}: expected the JSON of a tokenizer, but {error}") from error
    state = json.loads(tokenizer.to_str())
    for (part, key), expected in _EXPECTED.items():
        if (got := (state[part] or {}).get(key)) != expected:
            raise InputError(f"{path}: expected BERT's {part}, its {key} {expected!r}, got {got!r}")
    if plain := [token["content"] for token in state["added_tokens"] if not token["special"]]:
        raise InputError(f"{path}: expected no added tokens but special ones, got {', '.join(plain)}")

    tokenizer.no_padding()
    tokenizer.no_truncation()
    pair = tokenizer.encode("", "")
    if pair.type_ids != [0, 0, 1] or pair.tokens[1] != pair.tokens[2]:
        raise InputError(f"{path}: expected pairs as [CLS] a [SEP] b [SEP], its post_processor adds {pair.tokens}")
    tokens = {"unk_token": state["model"]["unk_token"], "cls_token": pair.tokens[0], "sep_token": pair.tokens[1]}

    ids = tokenizer.get_vocab()
    vocab = sorted(ids, key=ids.get)
    if [ids[token] for token in vocab] != list(range(len(vocab))):
        raise InputError(f"{path}: expected the ids 0 to {len(vocab) - 1}, once each, for its {len(vocab)} tokens")
    return tokens | {name: state["normalizer"][name] for name in _NORMALIZATION} | {"vocab": vocab}


def _token(path: Path, name: str, value: Any) -> str:
    """A special token is stored as its text, or as an object with the text and how to find it."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise InputError(f"{path}: expected a string as {name}, got {value!r}")
    return content


def _normalization(path: Path, settings: dict[str, Any]) -> dict[str, bool | None]:
    kind = settings.get("tokenizer_class") or _CLASSES[0]
    if kind.removesuffix("Fast") not in _CLASSES:
        raise InputError(f"{path}: expected the tokenizer_class {' or '.join(_CLASSES)}, got {kind}")
    values = {ours: settings.get(theirs, default) for ours, (theirs, default) in _NORMALIZATION.items()}
    for name, value in values.items():
        if value not in (True, False, None if name == "strip_accents" else True):
            raise InputError(f"{path}: expected true or false as {_NORMALIZATION[name][0]}, got {value!r}")
    return values
