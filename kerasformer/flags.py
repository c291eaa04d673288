"""Reading a command's flags, and saying in one line what is wrong with them."""

import contextlib
import difflib
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import tyro

from kerasformer.errors import InputError

HELP = ("-h", "--help")
# The parser's complaints, in our words.
REWORDED = {
    r"Missing from .+?: (.+)": r"expected \1, got none",
    r"Missing value for argument '(.+?)'.*": r"expected a value for \1, got none",
    r"Error parsing (--\S+): .*\b(int|float)\b.*: ('.*')": r"expected \1 as a number (\2), got \3",
    r"invalid choice (.+) for argument '(.+)'. Expected one of \((.+?),?\)": r"expected \2 as one of \3, got \1",
    r"Error parsing \S+: (expected .+)": r"\1",
}


def parse(options: Callable, arguments: list[str], command: str, description: str | None, default: Any = None) -> Any:
    """Reads a command's flags; for a recipe they are its fields, over the values of `default`.

    Raises:
        InputError: an unknown flag, a value of another type, or a missing one.
    """
    settings = {"prog": f"kerasformer {command}", "description": description, "use_underscores": default is not None}
    if default is not None:
        settings["default"] = default
    values, unknown, complaint = None, [], io.StringIO()
    try:
        # A recipe's value of another type is told with the others that are out of range.
        with contextlib.redirect_stderr(complaint), warnings.catch_warnings(action="ignore"):
            values, unknown = tyro.cli(options, args=arguments, return_unknown_args=True, **settings)
    except SystemExit as stop:
        if not stop.code:
            raise
    if values is None or unknown:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            tyro.cli(options, args=["--help"], **settings)
        flags = re.findall(r"--[a-z][\w.-]*", text.getvalue())
        # A misspelt flag is told before what is missing for lack of it.
        known = {plain(flag) for flag in flags}
        strange = unknown or [word for word in arguments if re.match(r"--\w", word) and plain(word) not in known]
        said = _stranger(strange[0], flags, command) if strange else _reworded(complaint.getvalue())
        raise InputError(f"{said}; see kerasformer {command} --help")
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that was probably meant."""
    known = {plain(other): other for other in known}
    near = difflib.get_close_matches(plain(name), known, n=1, cutoff=0.5)
    return f" (did you mean {known[near[0]]}?)" if near else ""


def plain(flag: str) -> str:
    """The name of a flag, which can be written with dashes or underscores, and with its value."""
    return flag.partition("=")[0].strip("-").replace("_", "-")


def _stranger(argument: str, flags: Iterable[str], command: str) -> str:
    """The complaint about an argument that a command does not know."""
    what = "a flag" if argument.startswith("-") else "nothing more"
    return f"expected {what} of kerasformer {command}, got {argument!r}{nearest(argument, flags)}"


def _reworded(box: str) -> str:
    """What the parser says before its help, in a frame of Unicode or of ASCII: on one line and in our words."""

    def is_rule(line: str) -> bool:
        return not line.strip("-─╰╯")

    lines = itertools.dropwhile(is_rule, (line.strip("│ ") for line in box.splitlines()[1:]))
    said = " ".join(itertools.takewhile(lambda line: not is_rule(line), lines)).rstrip(".")
    for pattern, ours in REWORDED.items():
        if match := re.fullmatch(pattern, said):
            return match.expand(ours).replace(" (required) ", ", ").replace(" (required)", "")
    return said
