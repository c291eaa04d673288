"""What the files of all tokenizers share: tokenizer.json and tokenizer_config.json of a Hugging Face folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from kerasformer.errors import InputError
from kerasformer.files import read_json

WHOLE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_NO_LIMIT = 10**6  # transformers writes 10**30 for none


def read_settings(folder: Path, special_tokens: Sequence[str]) -> dict[str, Any]:
    """Reads tokenizer_config.json: its values, {} without the file, the special tokens as text, and `max_length`."""
    path = folder / CONFIG
    settings = read_json(path, "the tokenizer's settings") if path.is_file() else {}
    tokens = {name: _token(path, name, settings[name]) for name in special_tokens if settings.get(name)}
    length = settings.get("model_max_length")
    known = isinstance(length, int | float) and 0 < length < _NO_LIMIT
    return settings | tokens | {"max_length": int(length) if known else None}


def settings_of(tokenizer_class: str, values: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    length = {} if max_length is None else {"model_max_length": max_length}
    return {"tokenizer_class": tokenizer_class, **values, **length}


def read_whole(path: Path, whose: str, expected: Mapping[tuple[str, str], Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Reads tokenizer.json as a tokenizer and as its state, whose parts are to have the expected values.

    Raises:
        InputError: it is malformed, has other values or adds tokens that are not special.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path}: expected the JSON of a tokenizer, but {error}") from error
    state = json.loads(tokenizer.to_str())
    for (part, key), wanted in expected.items():
        got = (state[part] or {}).get(key)
        if got != wanted and (got or wanted):  # an empty prefix is none
            raise InputError(f"{path}: expected {whose}'s {part}, its {key} {wanted!r}, got {got!r}")
    if plain := [token["content"] for token in state["added_tokens"] if not token["special"]]:
        raise InputError(f"{path}: expected no added tokens but special ones, got {', '.join(plain)}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, state


def ordered(path: Path, ids: Mapping[str, int]) -> list[str]:
    """The tokens in order of their ids. Raises InputError where these are not 0, 1, 2 and so on."""
    if odd := [token for token, i in ids.items() if type(i) is not int]:
        raise InputError(f"{path}: expected numbers as token ids, got {ids[odd[0]]!r} for {odd[0]!r}")
    vocab = sorted(ids, key=ids.get)
    if [ids[token] for token in vocab] != list(range(len(vocab))):
        raise InputError(f"{path}: expected the ids 0 to {len(vocab) - 1}, once each, for its {len(vocab)} tokens")
    return vocab


def _token(path: Path, name: str, value: Any) -> str:
    """A special token is stored as its text, or as an object with the text and how to find it."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise InputError(f"{path}: expected a string as {name}, got {value!r}")
    return content
