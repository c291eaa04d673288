"""Rows that nothing can be learnt from: left out and counted, or the first one is an error."""

import logging
from typing import Any, get_args

from kerasformer.config.run import OnBad
from kerasformer.errors import InputError, listed

logger = logging.getLogger(__name__)

# The fraction of all rows that is left out at most. More than a few are rarely what the file's author meant.
MOST: dict[OnBad, float] = {"few": 0.01, "skip": 0.5, "stop": 0.0}
SKIP_FLAGS = '--data.on_bad skip of train, --on-bad skip of prepare and tokenizer, on_bad="skip" in Python'


class BadRows:
    """What is done with bad rows, and those that were left out.

    Args:
        on_bad: few: they are left out, unless they are more than one in a hundred; skip: unless they are more than
            half of all; stop: the first one is an error.

    Raises:
        InputError: another word.
    """

    def __init__(self, on_bad: OnBad = "few"):
        if on_bad not in get_args(OnBad):
            raise InputError(f"expected on_bad as {' or '.join(get_args(OnBad))}, got {on_bad!r}; choose one of them")
        self.skips, self._most = on_bad == "skip", MOST[on_bad]
        self._first: str | None = None  # what is said of the first one
        self.origins: dict[str, list[str]] = {}  # of the rows that were left out, by the reason

    def __len__(self) -> int:
        return sum(map(len, self.origins.values()))

    def tolerates(self, count: int, rows: int) -> bool:
        """Whether so many of all rows may be left out."""
        return count <= self._most * rows

    def add(self, origin: str, reason: str, remedy: str = "mend or remove it") -> None:
        """Leaves a row out.

        Raises:
            InputError: bad rows are errors.
        """
        self._first = self._first or f"{origin}: {reason}; {remedy}, or leave such rows out ({SKIP_FLAGS})"
        if not self._most:
            raise InputError(self._first)
        self.origins.setdefault(reason, []).append(origin)

    def report(self, name: str, kept: int) -> None:
        """Logs how many rows were left out of a source, why, and the first of them.

        Args:
            kept: the number of rows that were not.

        Raises:
            InputError: they are more than are left out.
        """
        if not self:
            return
        is_tolerated = self.tolerates(len(self), len(self) + kept)
        if not (is_tolerated or self.skips):
            raise InputError(self._first)
        reasons = [f"{reason}: {len(origins):,} ({listed(origins, 3)})" for reason, origins in self.origins.items()]
        told = f"{len(self):,} of {len(self) + kept:,} rows: {listed(reasons, 5, '; ')}"
        if not is_tolerated:
            raise InputError(
                f"{name}: expected usable rows, for the most part, found none in {told}; check that the file is read "
                "as it was written (--data.delimiter, --data.quoting, --data.encoding), or mend it"
            )
        logger.warning("%s: left out %s", name, told)


def text_fault(value: Any) -> str | None:
    """What keeps a value from being Unicode text, in words, or None."""
    if value is None:
        return "is missing"
    if isinstance(value, float) and value != value:
        return "is missing (NaN)"
    if not isinstance(value, str):
        return f"is not a string but of type {type(value).__name__}"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds half of a surrogate pair"
    return None
