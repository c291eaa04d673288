"""The one exception for input that its user can mend."""


class InputError(ValueError):
    """Bad input: one line that says what was expected, what came and what to do.

    The command line prints the message alone and exits with code 2, before anything is written.
    """
