"""The command `csl` (also `python -m csl`): train, validate, infer, and the tools."""

import ast
import importlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from csl.cli import parsing

# A command is a module with DESCRIPTION, parser() and main(flags). Its name is one word or two.
COMMANDS = {
    "train": "csl.cli.train",
    "validate": "csl.cli.validate",
    "infer": "csl.cli.infer",
    "inspect": "csl.cli.inspect",
    "suggest": "csl.cli.suggest",
    "review": "csl.cli.review",
    "export": "csl.cli.export",
    "prepare attributes": "csl.cli.prepare_attributes",
    "prepare nuswide": "csl.cli.prepare_nuswide",
    "prepare shards": "csl.cli.prepare_shards",
    "report": "csl.cli.report",
    "compare": "csl.cli.compare",
    "reproduce": "csl.cli.reproduce",
    "zoo": "csl.cli.zoo",
}


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command that the first words name; returns the exit status.

    Args:
        argv: the words after the program's name; None for this process's.
        prog: the command's name in its messages, such as "train.py"; None for `csl NAME`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that a terminal or a log has no letters for is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    program = "csl" if Path(sys.argv[0]).stem == "csl" else "python -m csl"
    group = argv[0] if argv and any(name.startswith(f"{argv[0]} ") for name in COMMANDS) else None
    if not argv or argv[0] in ("-h", "--help") or (group and (argv[1:2] in ([], ["-h"], ["--help"]))):
        print(_usage(program, group or ""))
        return 0
    name = next((" ".join(argv[:words]) for words in (2, 1) if " ".join(argv[:words]) in COMMANDS), None)
    if name is None:
        given = " ".join(argv[:2] if group else argv[:1])
        print(f"{program}: error: {given}: unknown, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(COMMANDS[name])
    parser = command.parser()
    parser.prog = prog or f"{program} {name}"
    return parsing.run(command.main, parser, argv[len(name.split()) :])


def _usage(program, group):
    lines = [f"  {name:20}{_description(module)}" for name, module in COMMANDS.items() if name.startswith(group)]
    return "\n".join([f"usage: {program} COMMAND [flags]    ({program} COMMAND --help explains)", "", *lines])


def _description(module):
    """DESCRIPTION of a command by its source: to import all of them takes PyTorch, and seconds."""
    source = importlib.util.find_spec(module).loader.get_source(module)
    values = {
        ast.unparse(line.targets[0]): line.value for line in ast.parse(source).body if isinstance(line, ast.Assign)
    }
    return ast.literal_eval(values["DESCRIPTION"])


if __name__ == "__main__":
    sys.exit(main())
