"""The flags of `python -m csl prepare nuswide`."""

import argparse

from csl.cli import flags, parsing
from csl.preparation.nuswide import prepare_nuswide

DESCRIPTION = "Make the NUS-WIDE tutorial's subset: 27 labels, 5,000 images to train, 1,000 to test."
EPILOG = """read are train.json and test.json of the tutorial, or the official Groundtruth, ImageList and Concepts81.txt.
written are small_train.json and small_test.json, which train.py takes before all else in the folder.
example:
  python -m csl prepare nuswide --data nus_wide/
  python train.py --recipe nuswide_tutorial --data nus_wide/"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p, group = flags.parser_of(prepare_nuswide, DESCRIPTION, EPILOG)
    g = group("photos")
    g.add("--data", metavar="DIR", required=True, help="folder of NUS-WIDE")
    g.add("--out", metavar="DIR", help="where to write (--data)")
    g.add("--labels", metavar="A,B", type=parsing.names, help="these labels, instead of the most frequent")
    g.add("--num_labels", type=int, metavar="C", help="most frequent labels to keep")
    g.add("--num_images", type=int, metavar="N", help="images to keep, five in six to train")
    return p


def main(given: dict) -> None:
    """Make the subset as the flags say."""
    prepare_nuswide(**given)
