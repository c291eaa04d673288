"""What the fields of a recipe can be."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

Rule = tuple[Callable[[Any], bool], str]  # whether a value will do, and what will, in words


def whole(least: int, most: float = math.inf) -> Rule:
    """A whole number in a range."""
    words = f"a whole number of at least {least}" + (f" and at most {most}" if most < math.inf else "")
    return lambda value: isinstance(value, int) and least <= value <= most, words


def choice(kind: Any) -> Rule:
    """One of a Literal's words."""
    return lambda value: value in get_args(kind), f"one of {', '.join(get_args(kind))}"


SHARE: Rule = lambda value: isinstance(value, int | float) and 0 <= value < 1, "a share of at least 0 and below 1"
AMOUNT: Rule = lambda value: isinstance(value, int | float) and 0 <= value < math.inf, "a number of at least 0"
POSITIVE: Rule = lambda value: isinstance(value, int | float) and 0 < value < math.inf, "a number above 0"
POSITIVE_SHARE: Rule = lambda value: isinstance(value, int | float) and 0 < value <= 1, "a share above 0 and up to 1"
WARMUP: Rule = (
    lambda value: isinstance(value, int | float) and (0 <= value < 1 or 1 <= value < math.inf and value == int(value)),
    "a share of at least 0 and below 1, or a whole number of steps",
)


def choices(part: type, name: str) -> dict[str, Rule]:
    """The fields of a recipe's part that are one of a few words."""
    return {f"{name}.{f.name}": choice(f.type) for f in fields(part) if get_origin(f.type) is Literal}


def or_none(rule: Rule) -> Rule:
    """What the rule allows, or None."""
    return lambda value: value is None or rule[0](value), rule[1]
