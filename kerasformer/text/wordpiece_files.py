"""WordPiece on disk: tokenizer.json, vocab.txt and tokenizer_config.json of a Hugging Face checkpoint folder."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, normalizers, processors

from kerasformer.errors import InputError
from kerasformer.files import whole_file
from kerasformer.text.added_files import CONFIG, WHOLE
from kerasformer.text.added_tokens import WHITE_SPACE
from kerasformer.text.lines import read_lines
from kerasformer.text.tokenizer_files import (
    Described,
    describe,
    ordered,
    read_whole,
    warn_of_differences,
    warn_of_other_tokens,
    write_files,
)

if TYPE_CHECKING:
    from kerasformer.text.wordpiece import WordPiece

logger = logging.getLogger(__name__)

_VOCAB = "vocab.txt"
_EXPECTED = {
    ("model", "type"): "WordPiece",
    ("model", "continuing_subword_prefix"): "##",
    ("model", "max_input_chars_per_word"): 100,
    ("normalizer", "type"): "BertNormalizer",
    ("normalizer", "clean_text"): True,
    ("pre_tokenizer", "type"): "BertPreTokenizer",
}
_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
_MODEL_TYPES = ("bert", "distilbert", "electra", "mobilebert")
_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_NORMALIZATION = {  # our name: theirs in tokenizer_config.json, and what it is there when left out
    "lowercase": ("do_lower_case", True),
    "strip_accents": ("strip_accents", None),
    "handle_chinese_chars": ("tokenize_chinese_chars", True),
}
_TRAILING = re.compile(rf"[{WHITE_SPACE}]+\Z")
_BRACKETED = re.compile(r"\[.*\]|<.*>")  # as special tokens are, in whichever case


def read(folder: Path) -> dict[str, Any]:
    """Returns the arguments of the WordPiece that the folder describes.

    Where tokenizer.json and tokenizer_config.json disagree, that one counts which does in `transformers` 5: with a
    tokenizer class of BERT's, the settings and what they are by default; or else tokenizer.json.
    """
    whole, lines = folder / WHOLE, folder / _VOCAB
    if not whole.is_file() and not lines.is_file():
        raise InputError(f"{folder}: expected tokenizer.json or vocab.txt, got neither; copy the tokenizer's files too")
    in_whole = _read_whole(whole) if whole.is_file() else {}
    described = describe(folder, _CLASSES, _MODEL_TYPES, _SPECIAL_TOKENS)
    said = _said(described)
    vocab = in_whole.pop("vocab", None) or _read_vocab(lines)
    if described.as_written:
        warn_of_differences(whole, in_whole, described.config, said)
        arguments = said | in_whole
    else:
        defaults = {ours: default for ours, (_, default) in _NORMALIZATION.items()}
        if not described.config.is_file() and not in_whole:
            defaults["lowercase"] = _guess_lowercase(lines, vocab)
        arguments = defaults | said
        warn_of_differences(described.config, arguments, whole, in_whole)
    if in_whole and lines.is_file():
        warn_of_other_tokens(whole, vocab, lines, lambda: _read_vocab(lines))
    own = [arguments.get(name, token) for name, token in _SPECIAL_TOKENS.items()]
    added = described.added_tokens(vocab, own)
    if not in_whole and vocab[-1:] == [""] and {token.content for token in added} <= set(vocab):
        vocab.pop()  # an empty last line is no token, but counts where others follow, as in transformers
    settings = described.kept(_SPECIAL_TOKENS)
    return arguments | {"vocab": vocab, "max_length": described.max_length, "added_tokens": added, "settings": settings}


def write(folder: Path, wordpiece: WordPiece) -> None:
    """Writes the three files, with the special tokens that the tokenizer itself does not find in texts."""
    complete = Tokenizer.from_str(wordpiece.tokenizer.to_str())
    cls, sep = (wordpiece.special_tokens[name] for name in ("cls_token", "sep_token"))
    complete.post_processor = processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(cls, wordpiece.cls_id), (sep, wordpiece.sep_id)],
    )
    normalization = {theirs: wordpiece.normalization[ours] for ours, (theirs, _) in _NORMALIZATION.items()}
    settings = {"tokenizer_class": _CLASSES[0], **normalization, **wordpiece.special_tokens}

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / _VOCAB) as path:
        tokens = wordpiece.vocab[: wordpiece.base_size]
        path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="\n")
    write_files(folder, complete, wordpiece, settings)


def _read_whole(path: Path) -> dict[str, Any]:
    """Reads what tokenizer.json says, and makes sure that our WordPiece does all of it."""
    tokenizer, state = read_whole(path, "BERT", _EXPECTED)
    pair = tokenizer.encode("", "")
    if pair.type_ids != [0, 0, 1] or pair.tokens[1] != pair.tokens[2]:
        raise InputError(f"{path}: expected pairs as [CLS] a [SEP] b [SEP], its post_processor adds {pair.tokens}")
    tokens = {"unk_token": state["model"]["unk_token"], "cls_token": pair.tokens[0], "sep_token": pair.tokens[1]}
    normalization = {name: state["normalizer"][name] for name in _NORMALIZATION}
    return tokens | normalization | {"vocab": ordered(path, state["model"]["vocab"])}


def _read_vocab(path: Path) -> list[str]:
    """The lines, without white space at their end, as `tokenizers` reads them; of empty ones at the end, the first."""
    lines = list(read_lines(path))
    while lines[-2:] == ["", ""]:
        lines.pop()
    return [_TRAILING.sub("", line) or line for line in lines]


def _said(described: Described) -> dict[str, Any]:
    """The arguments that the settings give."""
    settings = described.settings
    found = {ours: settings[theirs] for ours, (theirs, _) in _NORMALIZATION.items() if theirs in settings}
    for name, value in found.items():
        if value not in (True, False, None if name == "strip_accents" else True):
            theirs = _NORMALIZATION[name][0]
            raise InputError(f"{described.config}: expected true or false as {theirs}, got {value!r}; mend the file")
    return found | {name: settings[name] for name in _SPECIAL_TOKENS if settings.get(name)}


def _guess_lowercase(path: Path, vocab: list[str]) -> bool:
    """Whether a vocabulary that comes alone is of lower-cased text: it has no upper case, but for special tokens."""
    lower = normalizers.Lowercase().normalize_str
    cased = next((token for token in vocab if lower(token) != token and not _BRACKETED.fullmatch(token)), None)
    logger.warning(
        "%s: guessed that texts are %s, as %s; to set it, write do_lower_case to %s beside it",
        path,
        "lower-cased" if cased is None else "not lower-cased",
        "no token has an upper-case letter" if cased is None else f"there is the token {cased!r}",
        CONFIG,
    )
    return cased is None
