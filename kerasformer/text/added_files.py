"""Added tokens on disk: the files of a Hugging Face folder that declare or name them, read as `transformers` 5 does."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from kerasformer.errors import InputError
from kerasformer.files import read_json
from kerasformer.text.added_tokens import is_text

logger = logging.getLogger(__name__)

WHOLE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_ADDED, _MAP = "added_tokens.json", "special_tokens_map.json"  # of transformers 4
DECODER = "added_tokens_decoder"  # in tokenizer_config.json; it overrides the other files
LISTS = ("extra_special_tokens", "additional_special_tokens")  # the names of transformers 5 and 4
# In the order in which transformers adds them.
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Declared:
    """An added token, the id that it is said to have, and the file that says so."""

    token: AddedToken
    token_id: int
    path: Path


def with_special_tokens_map(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of tokenizer_config.json with what special_tokens_map.json says, which overrides names of tokens."""
    path = folder / _MAP
    if DECODER in settings or not path.is_file():
        return dict(settings)
    tokens = read_json(path, "the names of special tokens")
    listed = {name: settings[name] for name in LISTS if settings.get(name)}
    return {**settings, **tokens, **listed}


def named_tokens(path: Path, settings: Mapping[str, Any]) -> dict[str, AddedToken]:
    """The special tokens that settings name, by their names, in the order in which `transformers` adds them.

    Raises:
        InputError: a token is no text.
    """
    others = [name for name in settings if name.endswith("_token") and name not in NAMES]
    values = {name: settings[name] for name in NAMES if settings.get(name)}
    values |= {name: settings[name] for name in others if isinstance(settings[name], str | dict) and settings[name]}
    return {name: _token(path, name, value) for name, value in values.items()}


def listed_tokens(path: Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """The special tokens that settings list beside those with a name.

    Raises:
        InputError: a token is no text, or there is no list.
    """
    name = next((name for name in LISTS if settings.get(name)), LISTS[0])
    values = settings.get(name) or []
    values = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(values, list):
        raise InputError(f"{path}: expected a list of tokens as {name}, got {values!r:.60}; mend the file")
    return [_token(path, name, value) for value in values]


def declared_tokens(
    folder: Path, settings: Mapping[str, Any], special: set[str], *, as_written: bool
) -> dict[str, Declared]:
    """The added tokens that files give an id, by their text, in the order in which `transformers` adds them.

    Args:
        special: the tokens that the settings name or list, and so those of added_tokens.json that are special.
        as_written: tokenizer.json counts whatever the other files say.

    Raises:
        InputError: a file is malformed, or files disagree on an id.
    """
    whole = folder / WHOLE
    entries = read_json(whole, "a tokenizer").get("added_tokens") or [] if whole.is_file() else []
    in_whole = _by_content([_declared(whole, entry.get("id"), entry) for entry in entries])
    if DECODER in settings:
        path = folder / CONFIG
        found = _by_content([_declared(path, i, entry) for i, entry in _object(path, DECODER, settings).items()])
        if not as_written and (left := in_whole.keys() - found.keys() - special):
            logger.warning(
                "%s: not added: %s, which %s in %s leaves out, as in transformers",
                *(whole, ", ".join(map(repr, sorted(left))), DECODER, CONFIG),
            )
        merged = _agreeing(in_whole, found) if as_written else found
    else:
        merged = _agreeing(_legacy_tokens(folder / _ADDED, special), in_whole)
    first = list(in_whole) if as_written else []
    rest = sorted(merged.keys() - set(first), key=lambda content: merged[content].token_id)
    return {content: merged[content] for content in (*first, *rest)}


def flags_of(token: AddedToken) -> dict[str, Any]:
    """An added token as the files hold it."""
    return {"content": token.content, **{name: getattr(token, name) for name in FLAGS}}


def _legacy_tokens(path: Path, special: set[str]) -> dict[str, Declared]:
    ids = read_json(path, "added tokens") if path.is_file() else {}
    entries = [(i, {"content": content, "special": content in special}) for content, i in ids.items()]
    return _by_content([_declared(path, i, entry) for i, entry in entries])


def _declared(path: Path, token_id: Any, entry: Any) -> Declared:
    """Of an object that holds a token and its flags; "normalized" is for those that are not special, if left out."""
    token = _token(path, f"the added token {token_id}", entry, special=False)
    if not str(token_id).isdecimal():
        raise InputError(f"{path}: expected a number as the id of the added token {token.content!r}, got {token_id!r}")
    return Declared(token, int(token_id), path)


def _by_content(tokens: list[Declared]) -> dict[str, Declared]:
    found: dict[str, Declared] = {}
    for token in tokens:
        found = _agreeing(found, {token.token.content: token})
    return found


def _agreeing(first: dict[str, Declared], second: dict[str, Declared]) -> dict[str, Declared]:
    """Both; of a token that is in both, the second's flags."""
    for content in first.keys() & second.keys():
        if first[content].token_id != second[content].token_id:
            raise InputError(
                f"{second[content].path}: expected the id {first[content].token_id} for the added token {content!r}, "
                f"as {first[content].path.name} says, got {second[content].token_id}; make them agree"
            )
    return first | second


def _token(path: Path, name: str, value: Any, *, special: bool = True) -> AddedToken:
    """A token is stored as its text, or as an object with the text and its flags."""
    entry = value if isinstance(value, dict) else {"content": value}
    content, flags = entry.get("content"), {name: entry[name] for name in FLAGS if isinstance(entry.get(name), bool)}
    flags["special"] = special or flags.get("special", False)
    if not is_text(content) or not content:
        raise InputError(f"{path}: expected a string as {name}, got {value!r:.60}; mend the file")
    return AddedToken(content, **{"normalized": not flags["special"], **flags})


def _object(path: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(settings[name], dict):
        raise InputError(f"{path}: expected an object as {name}, got {settings[name]!r:.60}; mend the file")
    return settings[name]
