"""The flags of `python -m csl prepare attributes`."""

import argparse

from csl.cli import flags
from csl.labels.attributes import parse_attributes, parse_roles
from csl.preparation.attributes import prepare_attributes

DESCRIPTION = "Split photos with an attribute CSV into train, val and test, and balance the rare values."
EPILOG = """read are attributes_cleaned.csv with images_cleaned/images, attributes.csv with images, or another table that
train.py reads. a split that a column or a file a split says is kept, unless --val_split is given. written are
attributes_{train,val,test}.csv, images_split, distribution.png; with --balance original also images_augmented.
examples:
  python -m csl prepare attributes --data photos/
  python -m csl prepare attributes --data ../Datasets/FlixstockTask/ --balance original
  python train.py --recipe flixstock --data ../Datasets/FlixstockTask/"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p, group = flags.parser_of(prepare_attributes, DESCRIPTION, EPILOG)
    g = group("photos")
    g.add("--data", metavar="DIR", required=True, help="folder of the photos and their table, or the table")
    g.add("--out", metavar="DIR", help="where to write (beside the table); an earlier preparation there is replaced")
    g.add(
        "--balance",
        metavar="RULE",
        help="sampler: train.py draws by weight; original: the fork's augmented copies; none",
    )
    g.add("--seed", type=int, metavar="S", help="random seed of the split and the augmentation")
    g.add(
        "--val_split", type=float, metavar="SHARE", help="keep this share for validation, stratified, none for testing"
    )
    g.shared("images", *flags.TABLE, "follow_links", "on_bad_image", "workers", "background")
    return p


def main(given: dict) -> None:
    """Prepare as the flags say."""
    for name, parse in (("attributes", parse_attributes), ("roles", parse_roles)):
        if name in given:
            given = {**given, name: parse(given[name])}
    prepare_attributes(**given)
