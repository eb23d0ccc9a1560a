"""The flags of `python -m csl prepare nuswide`."""

import argparse

from csl.cli import parsing

DESCRIPTION = "Make the NUS-WIDE tutorial's subset: 27 labels, 5,000 images to train, 1,000 to test."
EPILOG = """read are train.json and test.json of the tutorial, or the official Groundtruth, ImageList and Concepts81.txt.
written are small_train.json and small_test.json, which train.py takes before all else in the folder.
example:
  python -m csl prepare nuswide --data nus_wide/
  python train.py --recipe nuswide_tutorial --data nus_wide/"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    p.add_argument("--data", metavar="DIR", required=True, help="folder of NUS-WIDE")
    p.add_argument("--out", metavar="DIR", help="where to write (--data)")
    p.add_argument("--labels", metavar="A,B", type=parsing.names, help="these labels, instead of the most frequent")
    p.add_argument("--num_labels", type=int, metavar="C", help="most frequent labels to keep (27)")
    p.add_argument("--num_images", type=int, metavar="N", help="images to keep, five in six to train (6000)")
    return p


def main(flags: dict) -> None:
    """Make the subset as the flags say."""
    from csl.preparation.nuswide import prepare_nuswide

    prepare_nuswide(**flags)
