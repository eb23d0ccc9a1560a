"""The tools beside the three scripts: `python -m csl TOOL [flags]`."""

import importlib
import sys
from collections.abc import Sequence

from csl.cli import parsing

# A tool is a module with DESCRIPTION, parser() and main(flags), as the scripts' are.
TOOLS = {
    "zoo": "csl.cli.zoo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool that the first argument names; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv[0] not in TOOLS:
        print(f"python -m csl: error: {argv[0]}: unknown, expected one of {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    tool = importlib.import_module(TOOLS[argv[0]])
    parser = tool.parser()
    parser.prog = f"python -m csl {argv[0]}"
    return parsing.run(tool.main, parser, argv[1:])


def _usage():
    lines = [f"  {name:10}{importlib.import_module(module).DESCRIPTION}" for name, module in TOOLS.items()]
    return "\n".join(["usage: python -m csl TOOL [flags]    (python -m csl TOOL --help explains)", "", *lines])
