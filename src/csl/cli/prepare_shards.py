"""The flags of `python -m csl prepare shards`: annotated images into tar files, for data that loose files do not suit."""

import argparse

from csl.cli import parsing
from csl.errors import InputError

DESCRIPTION = "Write annotated images into tar shards, which train.py and validate.py read, and webdataset too."
EPILOG = """written to --out: shards-000000.tar, ... and shards.json; image files byte for byte, labels 1, 0 and -1 as they are.
then: python train.py --data OUT        or --data 'OUT/shards-{000000..000127}.tar'
every flag may be written with - or _. examples:
  python -m csl prepare shards --data coco/ --out coco_shards/
  python -m csl prepare shards --data openimages/ --split train --out shards/ --size_mb 1000"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    g = p.add_argument_group("data")
    g.add_argument("--data", metavar="DIR", required=True, help="folder or file of annotations, as train.py takes it")
    g.add_argument("--split", metavar="A,B", type=parsing.names, help="splits that are written (train,val)")
    g.add_argument("--images", metavar="DIR", help="folder of the image files, where it is not beside the annotations")
    g.add_argument("--metadata", metavar="DIR", help="folder of train.json and val.json, where they are not in --data")
    g.add_argument("--debug_mode", metavar="LAYOUT", help="COCO layout on_farm or hyperml, instead of finding out")
    g.add_argument(
        "--attributes", metavar="SPEC", help="sizes of attributes in a CSV: neck:7,sleeve_length:4,pattern:10"
    )
    g.add_argument(
        "--ignore_columns", metavar="A,B", type=parsing.names, help="columns of a CSV that are no attributes"
    )
    g.add_argument("--keep_unlabelled_images", action="store_true", help="COCO: keep images without any annotation")
    g.add_argument("--classes_file", metavar="FILE", help="OpenImages: list of MIDs, instead of the trainable classes")
    g.add_argument("--strict_labels", action="store_true", help="OpenImages: stop at the first malformed row")
    g.add_argument(
        "--follow_links", action="store_true", help="images may be named, and links lead, outside of the data folder"
    )
    g.add_argument("--on_bad_image", choices=("stop", "skip"), help="what an unreadable image does (stop)")
    g = p.add_argument_group("shards")
    g.add_argument("--out", metavar="DIR", required=True, help="where they go; a folder that has none yet")
    g.add_argument("--size_mb", type=float, metavar="MB", help="of images, after which a shard ends (500)")
    g.add_argument("--count", type=int, metavar="N", help="images, after which a shard ends")
    return p


def main(flags: dict) -> None:
    """Write the shards that the flags describe, and say what they hold."""
    from csl.data.write_shards import write_shards
    from csl.labels.options import DataOptions
    from csl.labels.read import read_split

    for name in ("size_mb", "count"):
        if name in flags and flags[name] <= 0:
            raise InputError(f"--{name} {flags[name]:g}: expected more than 0")
    parts, classes, groups = {}, None, None
    for split in flags.get("split", ["train", "val"]):
        part = read_split(DataOptions.of(flags), split, classes, groups)
        classes, groups = part.classes, part.groups
        if not len(part):
            raise InputError(f"{part.source}: no images in the split {split}")
        print(f"{split}: {part.source}: {part.summary()}")
        parts[split] = part
    size = flags.get("size_mb")
    summary = write_shards(
        parts,
        flags["out"],
        shard_bytes=None if size is None else int(size * 1e6),
        shard_count=flags.get("count"),
        on_bad_image=flags.get("on_bad_image", "stop"),
    )
    shards = summary["shards"]
    images = ", ".join(f"{count:,} {split}" for split, count in summary["images"].items())
    total = sum(one["bytes"] for one in shards)
    print(
        f"{images} images in {len(shards)} shards, {total / 1e6:,.1f} MB; next: python train.py --data {flags['out']}"
    )
