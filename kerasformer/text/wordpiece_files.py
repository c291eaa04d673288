"""WordPiece on disk: tokenizer.json, vocab.txt and tokenizer_config.json of a Hugging Face checkpoint folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from kerasformer.errors import InputError
from kerasformer.files import whole_file, write_json
from kerasformer.text.lines import read_lines
from kerasformer.text.tokenizer_files import CONFIG, WHOLE, ordered, read_settings, read_whole, settings_of

_FILES = (WHOLE, "vocab.txt", CONFIG)
_EXPECTED = {
    ("model", "type"): "WordPiece",
    ("model", "continuing_subword_prefix"): "##",
    ("model", "max_input_chars_per_word"): 100,
    ("normalizer", "type"): "BertNormalizer",
    ("normalizer", "clean_text"): True,
    ("pre_tokenizer", "type"): "BertPreTokenizer",
}
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
    settings = read_settings(folder, _SPECIAL_TOKENS)
    common = {name: settings[name] for name in _SPECIAL_TOKENS if settings.get(name)}
    common["max_length"] = settings["max_length"]
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

    folder.mkdir(parents=True, exist_ok=True)
    whole, vocab, config = (folder / name for name in _FILES)
    with whole_file(whole) as path:
        path.write_text(complete.to_str(pretty=True), encoding="utf-8", newline="\n")
    with whole_file(vocab) as path:
        path.write_text("".join(f"{token}\n" for token in sorted(ids, key=ids.get)), encoding="utf-8", newline="\n")
    write_json(config, settings_of(_CLASSES[0], settings | tokens, max_length))


def _read_whole(path: Path) -> dict[str, Any]:
    """Reads tokenizer.json, and makes sure that our WordPiece does all that it says."""
    tokenizer, state = read_whole(path, "BERT", _EXPECTED)
    pair = tokenizer.encode("", "")
    if pair.type_ids != [0, 0, 1] or pair.tokens[1] != pair.tokens[2]:
        raise InputError(f"{path}: expected pairs as [CLS] a [SEP] b [SEP], its post_processor adds {pair.tokens}")
    tokens = {"unk_token": state["model"]["unk_token"], "cls_token": pair.tokens[0], "sep_token": pair.tokens[1]}

    normalization = {name: state["normalizer"][name] for name in _NORMALIZATION}
    return tokens | normalization | {"vocab": ordered(path, tokenizer.get_vocab())}


def _normalization(path: Path, settings: dict[str, Any]) -> dict[str, bool | None]:
    kind = settings.get("tokenizer_class") or _CLASSES[0]
    if kind.removesuffix("Fast") not in _CLASSES:
        raise InputError(f"{path}: expected the tokenizer_class {' or '.join(_CLASSES)}, got {kind}")
    values = {ours: settings.get(theirs, default) for ours, (theirs, default) in _NORMALIZATION.items()}
    for name, value in values.items():
        if value not in (True, False, None if name == "strip_accents" else True):
            raise InputError(f"{path}: expected true or false as {_NORMALIZATION[name][0]}, got {value!r}")
    return values
