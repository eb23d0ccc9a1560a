"""The flags of `python -m csl compare`."""

import argparse

from csl.cli import flags
from csl.inference.options import NetworkOptions

DESCRIPTION = "Compare runs on the same validation images: mAP with an interval, classes that gained and lost."
EPILOG = """a run keeps the scores of its known validation labels; one without scores its images again.
example:
  python -m csl compare outputs/earlier-20261127-101500 outputs"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool; its names are fields of `csl.report.CompareOptions`."""
    p, group = flags.parser_of(NetworkOptions, DESCRIPTION, EPILOG)
    p.usage = "%(prog)s RUN RUN [RUN ...] [flags]"
    g = group("runs")
    g.add("runs", metavar="RUN", nargs="+", help="folders of runs of train.py; the others are compared with the first")
    g.add("--output", metavar="FILE", help="the page that shows them side by side (compare.html)")
    g.add("--data", metavar="DIR", help="annotations to score all of them on (each run's own)")
    g.shared("images", "follow_links")
    group("machine").shared(*flags.MACHINE)
    return p


def main(given: dict) -> None:
    """Compare the runs."""
    from csl.report import CompareOptions, compare

    compare(CompareOptions(**given))
