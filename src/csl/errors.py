"""The errors that end a script with one line."""


def printable(text: str) -> str:
    """The text with each unprintable character (a line break, an escape sequence, half a surrogate) escaped as `\\x1b`.

    What a file says, its name included, reaches a terminal or a log in this form only.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value from a file as a message shows it: texts and numbers; of anything else the type.

    A list that holds another one twice, and so on, takes time and memory without end to print.
    """
    if isinstance(value, str):
        return repr(value[:80])
    small = value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e18)
    return repr(str(value)) if small else f"a {type(value).__name__}"


def in_words(error: object, most: int = 200) -> str:
    """What an error says, on one line of at most `most` characters; the name of its type if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class InputError(ValueError):
    """Bad input: a file, a line of it, a class or a flag.

    The message is one printable line that names the place, what was found and what was expected, or a few such lines, an
    argument each. The scripts print it and exit with `exit_status`.
    """

    exit_status = 2

    def __init__(self, *lines: object):
        super().__init__(*(printable(str(line)) for line in lines))

    def __str__(self):
        return "\n".join(self.args)


class NoSplit(InputError):
    """The annotations are sound, and have no images of the split that is asked for."""


class MachineError(InputError):
    """A fault of the machine: a full disk, a folder that cannot be written, no memory, a dead worker.

    What was saved before is whole; the same command with `--resume` goes on once the cause is gone.
    """

    exit_status = 3


class Stopped(Exception):
    """Another process of the job ended this one. The message is empty if that process prints the reason."""
