"""What the files of all tokenizers share: how a Hugging Face folder describes one, read as `transformers` 5 does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.text.added_files import (
    CONFIG,
    DECODER,
    LISTS,
    WHOLE,
    Declared,
    declared_tokens,
    flags_of,
    listed_tokens,
    named_tokens,
    with_special_tokens_map,
)

if TYPE_CHECKING:
    from kerasformer.text.tokenizer import Tokenizer as TokenizerBase

logger = logging.getLogger(__name__)

_NO_LIMIT = 10**6  # transformers writes 10**30 for none
_ANY_CLASS = ("PreTrainedTokenizer", "TokenizersBackend")  # take tokenizer.json as it is
# Settings that are written again when a tokenizer is saved: they change what `transformers` does, and nothing here.
_KEPT = (*LISTS, "truncation_side", "padding_side", "clean_up_tokenization_spaces", "chat_template")
# Settings that `transformers` 5 ignores, with the values that change nothing.
_IGNORED = {"do_basic_tokenize": (None, True), "never_split": (None, []), "clean_text": (None, True)}


@dataclass(frozen=True)
class Described:
    """What a folder says of its tokenizer, but for the vocabulary.

    Attributes:
        config: the path of tokenizer_config.json.
        settings: of that and of special_tokens_map.json; special tokens are text.
        as_written: tokenizer.json says it all, and the settings but name tokens.
        declared: added tokens whose id a file gives, by their text.
        named: the special tokens with a name, or listed beside them.
    """

    config: Path
    settings: dict[str, Any]
    as_written: bool
    declared: dict[str, Declared]
    named: list[AddedToken]

    @property
    def max_length(self) -> int | None:
        """Tokens of the rows that the model was made for, where the folder says so."""
        length = self.settings.get("model_max_length", self.settings.get("max_len"))
        known = isinstance(length, int | float) and 0 < length < _NO_LIMIT
        return int(length) if known else None

    def added_tokens(self, vocab: Iterable[str], own: Iterable[str]) -> list[AddedToken]:
        """The added tokens that belong to a vocabulary, in the order in which `transformers` adds them.

        Args:
            own: the model's own special tokens; those that are neither in the vocabulary nor declared are left out.

        Raises:
            InputError: a token would have another id than the folder says.
        """
        ids = {token: i for i, token in enumerate(vocab)}
        for content, token in self.declared.items():
            if token.token_id != ids.setdefault(content, len(ids)):
                raise InputError(
                    f"{token.path}: expected the id {ids[content]} for the added token {content!r}, as the vocabulary "
                    f"and the tokens before it give it, got {token.token_id}; save the tokenizer anew"
                )
        tokens = {content: token.token for content, token in self.declared.items()}
        missing = set(own) - ids.keys()
        for token in self.named:
            if token.content not in missing:
                tokens.setdefault(token.content, token)
        return list(tokens.values())

    def kept(self, own: Iterable[str]) -> dict[str, Any]:
        """The settings that `write_files` is to write again, without the model's own tokens, which have these names."""
        names = [name for name in named_tokens(self.config, self.settings) if name not in own]
        return {name: self.settings[name] for name in (*names, *_KEPT) if self.settings.get(name) is not None}


def describe(
    folder: Path, classes: Sequence[str], model_types: Iterable[str], defaults: Mapping[str, str]
) -> Described:
    """Reads what a folder says of its tokenizer.

    Args:
        classes: those of `transformers` that are this tokenizer, without "Fast"; they go by the settings first.
        model_types: of config.json, which have such a tokenizer where no class is named.
        defaults: special tokens that these classes name themselves.

    Raises:
        InputError: a file is malformed, or describes another tokenizer.
    """
    path, whole = folder / CONFIG, (folder / WHOLE).is_file()
    own = read_json(path, "the tokenizer's settings") if path.is_file() else {}
    settings = with_special_tokens_map(folder, own)
    model = read_json(folder / "config.json", "a model") if (folder / "config.json").is_file() else {}
    kind = settings.get("tokenizer_class") or model.get("tokenizer_class")
    name = str(kind).removesuffix("Fast")
    as_written = whole and (name in _ANY_CLASS or (not kind and model.get("model_type") not in model_types))
    if kind and not as_written and name not in classes:
        raise InputError(
            f"{path}: expected the tokenizer_class {' or '.join(classes)}, got {kind}, whose ids may be others; "
            f"name {_ANY_CLASS[0]}Fast where {WHOLE} alone counts"
        )
    _check(path, settings)
    named = named_tokens(path, settings if as_written else {**defaults, **settings})
    listed = listed_tokens(path, settings)
    # As in transformers 5, what special_tokens_map.json lists without a name is not special in added_tokens.json.
    special = {token.content for token in (*named.values(), *listed_tokens(path, own))}
    declared = declared_tokens(folder, settings, special, as_written=as_written)
    settings |= {name: token.content for name, token in named.items()}
    return Described(path, settings, as_written, declared, [*named.values(), *listed])


def read_whole(path: Path, whose: str, expected: Mapping[tuple[str, str], Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Reads tokenizer.json as a tokenizer and as its state, whose parts are to have the expected values.

    Raises:
        InputError: it is malformed or has other values.
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
    if (state["truncation"] or {}).get("direction") == "Left":
        _warn_of_truncation(path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, state


def write_files(folder: Path, tokenizer: Tokenizer, written: TokenizerBase, settings: Mapping[str, Any]) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Args:
        tokenizer: what tokenizer.json holds, but for the added tokens and their flags.
        written: the tokenizer that is saved.
        settings: what tokenizer_config.json holds, but for what all tokenizers have.
    """
    tokenizer.add_tokens(written.added_tokens)
    settings = {**written.settings, **settings}
    if written.max_length is not None:
        settings["model_max_length"] = written.max_length
    if written.patterns or written.vocab_size > written.base_size:  # for those who read no tokenizer.json
        ids = {token: i for i, token in enumerate(written.vocab)}
        settings[DECODER] = {str(ids[token.content]): flags_of(token) for token in written.added_tokens}
    with whole_file(folder / WHOLE) as path:
        path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8", newline="\n")
    write_json(folder / CONFIG, settings)


def ordered(path: Path, ids: Mapping[str, int]) -> list[str]:
    """The tokens in order of their ids. Raises InputError where these are not 0, 1, 2 and so on."""
    if odd := [token for token, i in ids.items() if type(i) is not int]:
        raise InputError(f"{path}: expected numbers as token ids, got {ids[odd[0]]!r} for {odd[0]!r}")
    vocab = sorted(ids, key=ids.get)
    if [ids[token] for token in vocab] != list(range(len(vocab))):
        raise InputError(f"{path}: expected the ids 0 to {len(vocab) - 1}, once each, for its {len(vocab)} tokens")
    return vocab


def warn_of_differences(path: Path, used: Mapping[str, Any], other: Path, said: Mapping[str, Any]) -> None:
    """Warns of what `other` says of the tokenizer, where `path` says something else, which counts."""
    for name in used.keys() & said.keys():
        if used[name] != said[name]:
            logger.warning(
                "%s: its %s %r counts, not the %r of %s, as in transformers",
                *(path, name, used[name], said[name], other.name),
            )


def warn_of_other_tokens(whole: Path, used: Sequence, others: Path, read: Callable[[], Sequence]) -> None:
    """Warns where files beside tokenizer.json hold other tokens than it, or cannot be read.

    Args:
        used: what tokenizer.json holds, in order.
        read: gives what the others hold; they may hold added tokens after that.
    """
    try:
        differ = any(a != b for a, b in zip(used, read(), strict=False))
    except InputError:
        differ = True
    if differ:
        logger.warning("%s: not what %s holds, which counts, as in transformers", others, whole.name)


def _check(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuses settings that change ids in a way that is not known here, and warns of those that are not followed."""
    code = settings.get("auto_map")
    if code and (not isinstance(code, dict) or "AutoTokenizer" in code):
        raise InputError(f"{path}: expected no code of its own, got an auto_map; use a tokenizer without one")
    expected = {"split_special_tokens": (False,), "wordpieces_prefix": ("##",), "fast_tokenizer_files": ([], [WHOLE])}
    for name, values in expected.items():
        if settings.get(name) not in (None, *values):
            raise InputError(f"{path}: expected {name} {values[0]!r}, got {settings[name]!r:.60}; save it anew without")
    for name, values in _IGNORED.items():
        if settings.get(name) not in values:
            logger.warning(
                "%s: %s is %r, which is not followed; neither does transformers 5", path, name, settings[name]
            )
    if settings.get("truncation_side") == "left":
        _warn_of_truncation(path)


def _warn_of_truncation(path: Path) -> None:
    logger.warning("%s: texts that are too long are to lose their beginning; here they lose their end", path)
