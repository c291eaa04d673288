"""What ends a command early: input that its user can mend, or a signal."""

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
