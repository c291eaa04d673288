"""Rows that nothing can be learnt from: the first one is an error, or all are left out and counted."""

import logging
from typing import Any, get_args

from kerasformer.config.run import OnBad
from kerasformer.errors import InputError, listed

logger = logging.getLogger(__name__)

SKIP_FLAGS = '--data.on_bad skip of train, --on-bad skip of prepare and tokenizer, on_bad="skip" in Python'


class BadRows:
    """What is done with bad rows, and those that were left out.

    Args:
        on_bad: stop: the first one is an error; skip: they are left out, unless they are more than half of all.

    Raises:
        InputError: another word.
    """

    def __init__(self, on_bad: OnBad = "stop"):
        if on_bad not in get_args(OnBad):
            raise InputError(f"expected on_bad as {' or '.join(get_args(OnBad))}, got {on_bad!r}; choose one of them")
        self.skips = on_bad == "skip"
        self.origins: dict[str, list[str]] = {}  # of the rows that were left out, by the reason

    def __len__(self) -> int:
        return sum(map(len, self.origins.values()))

    def add(self, origin: str, reason: str, remedy: str = "mend or remove it") -> None:
        """Leaves a row out.

        Raises:
            InputError: bad rows are errors.
        """
        if not self.skips:
            raise InputError(f"{origin}: {reason}; {remedy}, or leave such rows out ({SKIP_FLAGS})")
        self.origins.setdefault(reason, []).append(origin)

    def report(self, name: str, kept: int) -> None:
        """Logs how many rows were left out of a source, why, and the first of them.

        Args:
            kept: the number of rows that were not.

        Raises:
            InputError: they are more than half of all.
        """
        if not self:
            return
        reasons = [f"{reason}: {len(origins):,} ({listed(origins, 3)})" for reason, origins in self.origins.items()]
        told = f"{len(self):,} of {len(self) + kept:,} rows: {listed(reasons, 5, '; ')}"
        if len(self) > kept:
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
