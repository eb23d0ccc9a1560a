"""The flags of `csl review`."""

import argparse

from csl.cli import flags
from csl.review.options import ReviewOptions

DESCRIPTION = (
    "A page to answer questions about photos by key: is this class there? Or merge the answers into the labels."
)
EPILOG = """the questions are those of `csl suggest`; answers go into reviews.csv beside the data, which all commands read.
needs: pip install 'csl[review]'. examples:
  python -m csl review outputs
  python -m csl review outputs --questions outputs/audit.csv --port 9000
  python -m csl review outputs --merge labels_with_answers.csv"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool; its names are the fields of `ReviewOptions`."""
    p, group = flags.parser_of(ReviewOptions, DESCRIPTION, EPILOG)
    p.usage = "%(prog)s [RUN] [flags]"
    g = group("what")
    g.add("run", nargs="?", metavar="RUN", help="folder of a run, or its checkpoint (the last run)")
    g.add(
        "--questions", metavar="FILE", help="table with image, class, score (suggestions.csv, else audit.csv, of RUN)"
    )
    g = group("page")
    g.add("--host", metavar="NAME", help="interface to serve on; any but this machine's own is open to others")
    g.add("--port", type=int, metavar="N", help="0 for any that is free")
    g = group("instead of a page")
    g.add(
        "--merge",
        nargs="?",
        const=True,
        metavar="OUT",
        help="write labels with the answers (CSV, COCO) into a new file or folder (merged in RUN)",
    )
    g = group("data (the run's own)")
    g.add("--data", metavar="DIR", help="folder or file of annotations")
    g.shared(*flags.DATA)
    return p


def main(given: dict) -> None:
    """Serve or merge as the flags say."""
    from csl.review.command import review

    review(ReviewOptions(**given))
