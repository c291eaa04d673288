"""Tokens added to a vocabulary, which are found in a text before it is split into words.

As in `tokenizers`: of the added tokens that start first in a text the longest is taken, and so on after its end; those
with `normalized` are found after the others, in the normalized text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

from kerasformer.errors import InputError

# White space as in Unicode and as `tokenizers` strips it; the inside of a character class.
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_RESERVED = "\0\x01\x02\x03"  # the graph marks places in a text with them


@dataclass(frozen=True)
class Pattern:
    """What stands in a text for an added token.

    Attributes:
        text: as it is found, normalized where the token is.
        token: its flags.
        token_id: its id, or None where the model's own special token stays ordinary text.
    """

    text: str
    token: AddedToken
    token_id: int | None


def is_text(value: object) -> bool:
    """Whether the value is a string without lone surrogates, which UTF-8 cannot hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def special_token(content: str) -> AddedToken:
    """A special token without other flags."""
    return AddedToken(content, special=True, normalized=False)


def ordered_tokens(added_tokens: Iterable[AddedToken], own: Iterable[str], ids: Mapping[str, int]) -> list[AddedToken]:
    """The added tokens and the model's own special tokens, which are special in any case, in order of their ids."""
    tokens = {content: special_token(content) for content in own} | {token.content: token for token in added_tokens}
    return [
        _with_special(tokens[content], tokens[content].special or content in own)
        for content in sorted(tokens, key=ids.get)
    ]


def find_added_tokens(tokenizer: Tokenizer, added_tokens: Sequence[AddedToken], own: Iterable[str]) -> list[Pattern]:
    """Makes the tokenizer find the added tokens in texts, but for the model's own special tokens.

    Beside other added tokens those are found, too, but stay ordinary text: to this tokenizer they alone are special,
    and it is told to encode special tokens.

    Args:
        tokenizer: without added tokens.
        added_tokens: in order of their ids, own ones among them; those that its vocabulary lacks follow it.
        own: the model's own special tokens.

    Returns:
        What to look for, in order; nothing where all of the tokens are the model's own.

    Raises:
        InputError: tokens cannot be told apart.
    """
    own, tokens = set(own), {token.content: token for token in added_tokens}
    if tokens.keys() <= own:
        return []
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    patterns: dict[tuple[bool, str], str] = {}
    for token in tokens.values():
        text = normalize(token.content) if token.normalized else token.content
        if not text or any(char in _RESERVED for char in token.content):
            raise InputError(f"added tokens: expected text that can be found, got {token.content!r}; rename it")
        other = patterns.setdefault((token.normalized, text), token.content)
        if other != token.content:
            raise InputError(
                f"added tokens: expected different ones, got {other!r} and {token.content!r}, which are the same once "
                "normalized; remove one, or set its normalized to false"
            )
    tokenizer.add_tokens([_with_special(token, token.content in own) for token in tokens.values()])
    tokenizer.encode_special_tokens = True
    ids = {content: None if content in own else tokenizer.token_to_id(content) for content in tokens}
    return [Pattern(text, tokens[content], ids[content]) for (_, text), content in patterns.items()]


def _with_special(token: AddedToken, special: bool) -> AddedToken:
    flags = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized")}
    return AddedToken(token.content, special=special, **flags)
