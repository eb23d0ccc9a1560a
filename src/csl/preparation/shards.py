"""Write the annotated images of one or more splits into tar shards: `csl prepare shards`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from csl.data.write_shards import write_shards
from csl.errors import InputError
from csl.labels.options import DataOptions
from csl.labels.read import read_split
from csl.machine.invocation import command
from csl.ranges import check_ranges


@dataclass(kw_only=True)
class ShardOptions(DataOptions):
    """The flags of `csl prepare shards`, which explain each (`csl.cli.prepare_shards`)."""

    out: str
    split: list[str] = field(default_factory=lambda: ["train", "val"])
    size_mb: float | None = None
    count: int | None = None
    on_bad_image: str = "stop"


def prepare_shards(options: ShardOptions, say: Callable[[str], None] = print) -> None:
    """Write the shards that the options describe, and print a summary.

    Raises:
        InputError: a size that is not positive, a split without images, or an error of `write_shards`.
    """
    check_ranges(vars(options))
    parts, classes, groups = {}, None, None
    for split in options.split:
        part = read_split(options, split, classes, groups)
        classes, groups = part.classes, part.groups
        if not len(part):
            raise InputError(f"{part.source}: no images in the split {split}")
        for note in part.notes:
            say(f"{split}: {note}")
        part.expect_photos()
        say(f"{split}: {part.described()}")
        parts[split] = part
    shard_bytes = None if options.size_mb is None else int(options.size_mb * 1e6)
    summary = write_shards(parts, options.out, shard_bytes, options.count, options.on_bad_image)
    shards = summary["shards"]
    images = ", ".join(f"{count:,} {split}" for split, count in summary["images"].items())
    megabytes = sum(one["bytes"] for one in shards) / 1e6
    say(f"{images} images in {len(shards)} shards, {megabytes:,.1f} MB")
    if {"train", "val"} <= parts.keys():  # else train.py would refuse them
        say(f"next: {command('train', '--data', options.out)}")
