"""The flags of `python -m csl report`."""

import argparse

from csl.cli import flags
from csl.inference.options import NetworkOptions

DESCRIPTION = "Write report.html of a run: labels, curves, every class, mistakes and missing labels as pictures."
EPILOG = """train.py writes it at its end; this does it for an older run, or after its labels have changed.
example:
  python -m csl report outputs"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool; its names are fields of `csl.report.ReportOptions`."""
    p, group = flags.parser_of(NetworkOptions, DESCRIPTION, EPILOG)
    p.usage = "%(prog)s RUN [flags]"
    g = group("run")
    g.add("run", metavar="RUN", help="folder of a run of train.py")
    g.add("--data", metavar="DIR", help="annotations, where they have moved (the run's own)")
    g.shared("images", "follow_links")
    group("machine").shared(*flags.MACHINE)
    return p


def main(given: dict) -> None:
    """Write the page."""
    from csl.report import ReportOptions, report_on

    report_on(ReportOptions(**given))
