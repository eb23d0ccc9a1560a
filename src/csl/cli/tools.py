"""The tools beside the three scripts: `python -m csl TOOL [flags]`."""

import importlib
import sys
from collections.abc import Sequence

from csl.cli import parsing

# A tool is a module with DESCRIPTION, parser() and main(flags), as the scripts' are. Its name is one word or two.
TOOLS = {
    "export": "csl.cli.export",
    "prepare attributes": "csl.cli.prepare_attributes",
    "prepare nuswide": "csl.cli.prepare_nuswide",
    "prepare shards": "csl.cli.prepare_shards",
    "reproduce": "csl.cli.reproduce",
    "zoo": "csl.cli.zoo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool that the first argument names; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    group = argv[0] if argv and any(tool.startswith(f"{argv[0]} ") for tool in TOOLS) else None
    if not argv or argv[0] in ("-h", "--help") or (group and (argv[1:2] in ([], ["-h"], ["--help"]))):
        print(_usage(group or ""))
        return 0
    name = next((" ".join(argv[:words]) for words in (2, 1) if " ".join(argv[:words]) in TOOLS), None)
    if name is None:
        given = " ".join(argv[:2] if group else argv[:1])
        print(f"python -m csl: error: {given}: unknown, expected one of {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    tool = importlib.import_module(TOOLS[name])
    parser = tool.parser()
    parser.prog = f"python -m csl {name}"
    return parsing.run(tool.main, parser, argv[len(name.split()) :])


def _usage(group):
    tools = {name: importlib.import_module(module) for name, module in TOOLS.items() if name.startswith(group)}
    lines = [f"  {name:20}{tool.DESCRIPTION}" for name, tool in tools.items()]
    return "\n".join(["usage: python -m csl TOOL [flags]    (python -m csl TOOL --help explains)", "", *lines])
