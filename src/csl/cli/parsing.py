"""Parse flags in both spellings, and run a script whose errors are one line."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout

from csl.errors import InputError, Stopped


def create_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser that returns given flags only: each default lives in the options that the flags set."""
    return argparse.ArgumentParser(
        usage="%(prog)s [flags]",
        description=description,
        epilog=epilog,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=118),
    )


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
    parts = [int(part) for part in text.lower().split("x")]
    if len(parts) > 2 or min(parts) < 1:
        raise ValueError(text)
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def mode(text: str) -> str | None:
    """A word such as a loss mode; "none" is None."""
    return None if text.lower() == "none" else text
