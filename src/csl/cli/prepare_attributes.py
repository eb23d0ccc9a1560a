"""The flags of `python -m csl prepare attributes`."""

import argparse

from csl.cli import parsing
from csl.labels import parse_attributes

DESCRIPTION = "Split photos with an attribute CSV into train, val and test, and balance the rare values."
EPILOG = """read are attributes_cleaned.csv with images_cleaned/images, or attributes.csv with images. written are
attributes_{train,val,test}.csv, images_split, distribution.png; with --balance original also images_augmented.
examples:
  python -m csl prepare attributes --data photos/
  python -m csl prepare attributes --data ../Datasets/FlixstockTask/ --balance original
  python train.py --recipe flixstock --data ../Datasets/FlixstockTask/"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    p.add_argument("--data", metavar="DIR", required=True, help="folder of the photos and their CSV")
    p.add_argument("--out", metavar="DIR", help="where to write (--data); an earlier preparation there is replaced")
    p.add_argument(
        "--balance",
        metavar="RULE",
        help="sampler: train.py draws by weight; original: the fork's augmented copies; none (sampler)",
    )
    p.add_argument("--seed", type=int, metavar="S", help="of the split and the augmentation (1337)")
    p.add_argument("--attributes", metavar="SPEC", help="sizes of attributes: neck:7,sleeve_length:4,pattern:10")
    p.add_argument("--ignore_columns", metavar="A,B", type=parsing.names, help="columns that are no attributes")
    p.add_argument("--on_bad_image", choices=("stop", "skip"), help="what an unreadable image does (stop)")
    p.add_argument("-j", "--workers", type=int, metavar="N", help="processes (one a core, at most 8)")
    return p


def main(flags: dict) -> None:
    """Prepare as the flags say."""
    from csl.preparation.attributes import prepare_attributes

    if "attributes" in flags:
        flags = {**flags, "attributes": parse_attributes(flags["attributes"])}
    prepare_attributes(**flags)
