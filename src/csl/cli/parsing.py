"""Parse flags in both spellings, and run a script whose errors are one line."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from functools import partial

from csl.errors import InputError, Stopped
from csl.ranges import check_ranges


def create_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser that returns given flags only: each default lives in the options that the flags set."""
    return _Parser(
        usage="%(prog)s [flags]",
        description=description,
        epilog=epilog,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=118),
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all bad input is said, with what was expected and without the usage."""

    def __init__(self, **settings):
        super().__init__(**settings)
        for kind, expected in ((int, "a whole number"), (float, "a number"), (size, "pixels, or HEIGHTxWIDTH")):
            self.register("type", kind, partial(_converted, kind, expected))
        for kind in (None, str):
            self.register("type", kind, _text)

    def error(self, message):
        self.exit(InputError.exit_status, f"{self.prog}: error: {InputError(message.removeprefix('argument '))}\n")


def _text(text):
    """A text as it is. An empty one, mostly a variable of the shell that is not set, would be taken for no flag at all."""
    if not text.strip():
        raise argparse.ArgumentTypeError("found nothing, expected a value, or no flag")
    return text


def _converted(kind, expected, text):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}") from None


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> dict:
    """The flags that were given, by name. `--image-size` and `--image_size` are the same flag."""
    argv = sys.argv[1:] if argv is None else argv
    return vars(parser.parse_args([re.sub(r"^--[^=]+", lambda m: _underscored(m[0]), a) for a in argv]))


def _underscored(flag: str) -> str:
    return "--" + flag[2:].replace("-", "_")


def run(main: Callable[[dict], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, call `main`, and turn bad input into one line on stderr; returns the exit status.

    0 where all went well, 2 for bad input, 3 for a fault of the machine (a full disk, no memory, a dead worker), 128 + the
    signal where one stopped it, 1 in a process that another one of its job has ended, and for errors in the code.
    """
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    if "WORLD_SIZE" in os.environ and os.environ.get("RANK", "0") != "0":  # of torchrun's processes one speaks
        warnings.showwarning = lambda *_, **__: None
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            flags = parse(parser, argv)
    else:
        flags = parse(parser, argv)
    try:
        with _job(flags):
            check_ranges(flags)
            main(flags)
    except InputError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return error.exit_status
    except Stopped as error:
        if str(error):
            print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except (RuntimeError, MemoryError, OSError) as error:
        from csl.machine.faults import as_one_line

        line = as_one_line(error)
        if line is None:
            raise
        print(f"{parser.prog}: error: {line}", file=sys.stderr)
        return line.exit_status
    return 0


def _job(flags):
    """Join the processes that torchrun started. Without torchrun PyTorch is not imported."""
    if "WORLD_SIZE" not in os.environ:
        return nullcontext()
    from csl.machine.distributed import process_group

    return process_group(flags.get("device"))


def size(text: str) -> int | tuple[int, int]:
    """An image size: "448", or "448x320" for height x width."""
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) > 2:
        raise ValueError(text)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in _text(text).split(",") if part.strip()]


def mode(text: str) -> str | None:
    """A word such as a loss mode; "none" is None."""
    return None if _text(text).lower() == "none" else text
