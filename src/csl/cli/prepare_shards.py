"""The flags of `csl prepare shards`: annotated images into tar files, for data that loose files do not suit."""

import argparse

from csl.cli import flags, parsing
from csl.data.write_shards import DEFAULT_BYTES
from csl.preparation.shards import ShardOptions, prepare_shards

DESCRIPTION = "Write annotated images into tar shards, which train.py and validate.py read, and webdataset too."
EPILOG = """written to --out: shards-000000.tar, ... and shards.json; image files byte for byte, labels 1, 0 and -1 as they are.
then: python train.py --data OUT        or --data 'OUT/shards-{000000..000127}.tar'
every flag may be written with - or _. examples:
  python -m csl prepare shards --data coco/ --out coco_shards/
  python -m csl prepare shards --data openimages/ --split train --out shards/ --size_mb 1000"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool; its names are the fields of `ShardOptions`."""
    p, group = flags.parser_of(ShardOptions, DESCRIPTION, EPILOG)
    g = group("data")
    g.add("--data", metavar="DIR", required=True, help="folder or file of annotations, as train.py takes it")
    g.add("--split", metavar="A,B", type=parsing.names, help="splits to write", default="train,val")
    g.shared(*flags.DATA, "on_bad_image")
    g = group("shards")
    g.add("--out", metavar="DIR", required=True, help="where they go; a folder that has none yet")
    g.add("--size_mb", type=float, metavar="MB", help="megabytes of images after which a shard ends, if --count does not",
          default=f"{DEFAULT_BYTES / 1e6:g}")  # fmt: skip
    g.add("--count", type=int, metavar="N", help="number of images after which a shard ends")
    return p


def main(given: dict) -> None:
    """Write the shards that the flags describe."""
    prepare_shards(ShardOptions(**given))
