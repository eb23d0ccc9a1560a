"""The flags of `python -m csl inspect`."""

import argparse
import sys

from csl.cli import flags
from csl.labels.options import DataOptions

DESCRIPTION = "Show how annotations are read: columns and their roles, counts, the first rows, the photos found."
EPILOG = """nothing is written; no split is needed. The flags are those of train.py, or stand in labels.toml beside a table.
examples:
  python -m csl inspect photos/
  python -m csl inspect labels.csv --minus_one negative --json"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p, group = flags.parser_of(DataOptions, DESCRIPTION, EPILOG)
    p.usage = "%(prog)s DATA [flags]"
    g = group("data")
    g.add("data", metavar="DATA", help="folder or file of annotations, or shards-{000..127}.tar")
    g.shared(*flags.DATA)
    p.add_argument("--json", action="store_true", help="print JSON")
    return p


def main(given: dict) -> None:
    """Print what is read, as text or as JSON."""
    from csl.labels.inspection import inspect
    from csl.machine.files import strict_json

    as_json = given.pop("json", False)
    report, lines = inspect(DataOptions(**given))
    utf8 = (sys.stdout.encoding or "").lower() == "utf-8"  # any other might leave letters out
    print(strict_json(report, indent=1, ensure_ascii=not utf8) if as_json else "\n".join(lines))
