"""The one error that bad input raises."""


class InputError(ValueError):
    """Bad input: a file, a line of it, a class or a flag.

    The message is one line that names the place, what was found and what was expected. The scripts print it and
    exit with status 2.
    """
