"""What ends a command early: input that its user can mend, or a signal."""

from collections.abc import Sequence
from signal import Signals


class InputError(ValueError):
    """Bad input: one line that says what was expected, what came and what to do.

    The command line prints the message alone and exits with code 2, before anything is written.
    """


class Stopped(Exception):
    """A signal ended a training, which was saved before.

    The command line prints the message alone and exits as after that signal.
    """

    def __init__(self, signal: Signals, step: int):
        super().__init__(
            f"stopped by {signal.name} at step {step}, which is saved; the same command goes on from there"
        )
        self.code = 128 + signal


def listed(words: Sequence[str], most: int = 10, separator: str = ", ") -> str:
    """Words for a message, which stays short: the first `most`, and how many others there are."""
    others = len(words) - most
    more = [f"... and {others:,} other{'s' * (others > 1)}"] if others > 0 else []
    return separator.join([*words[:most], *more])
