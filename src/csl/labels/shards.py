"""Tar shards as annotations: `shards-{000000..000127}.tar`, one shard, or the folder that `prepare shards` wrote.

The path of an image is the shard's with the member's name behind it, `photos/shards-000003.tar/000017_dog.jpg`, as if
the shard were a folder; `csl.data.images` reads it so.
"""

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.matrix import LabelMatrix
from csl.labels.paths import SPLITS, ImagePaths, known_split
from csl.labels.shard_index import load_index
from csl.machine.files import parse_json

SUMMARY = "shards.json"
"""The file in the folder of the shards that lists them."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000  # shards of one pattern


def is_pattern(path: str | Path) -> bool:
    """Whether a path stands for several shards: `shards-{000000..000127}.tar`."""
    return str(path).endswith(".tar") and _BRACES.search(str(path)) is not None


def recognise(path: Path) -> bool:
    """Whether the path is a pattern of shards, a tar, or a folder with `shards.json`."""
    return is_pattern(path) or (path.suffix == ".tar" and path.is_file()) or (path / SUMMARY).is_file()


def expand(pattern: str) -> list[str]:
    """The paths of a pattern with braces, in order: `{008..010}` counts with as many digits, `{a,b}` lists.

    Raises:
        InputError: braces that hold neither, or more than a million paths.
    """
    pieces = _BRACES.split(pattern)  # what stands between braces at even places, what stands in them at odd ones
    choices: list[Sequence[str]] = [
        _alternatives(piece, pattern) if place % 2 else [piece] for place, piece in enumerate(pieces)
    ]
    if (number := math.prod(map(len, choices))) > _MOST:
        raise InputError(f"{pattern}: {number:,} shards, expected at most {_MOST:,}")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _alternatives(braces, pattern):
    """The alternatives that a pair of braces stands for."""
    counted = _RANGE.fullmatch(braces)
    if counted:
        first, last = int(counted[1]), int(counted[2])
        if not first <= last < first + _MOST:
            raise InputError(f"{pattern}: {{{braces}}}, expected the lower number first and at most {_MOST:,}")
        return [f"{number:0{len(counted[1])}}" for number in range(first, last + 1)]
    if "," in braces:
        return braces.split(",")
    raise InputError(f"{pattern}: {{{braces}}}, expected a range such as {{000000..000127}} or a list {{a,b}}")


def read_shards(
    path: str | Path,
    images: None = None,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    groups: Mapping[str, slice] | None = None,
) -> Annotations:
    """Read the samples of one split from tar shards.

    Args:
        path: a pattern, a tar, or a folder of `python -m csl prepare shards`.
        images: None; the images are in the shards.
        split: "train", "val", "test" or None for all.
        classes, groups: of a training run; the shards must have the same.

    Returns:
        Annotations, the images as in the shards.

    Raises:
        InputError: a shard that is missing, damaged or of other classes, or no sample of that split.
    """
    if images:
        raise InputError(f"--images: found {images}, expected none for tar shards, which hold the images")
    split = known_split(split)
    shards = _shards_of(Path(path))
    indexes = [load_index(shard) for shard in shards]
    meta = indexes[0].meta
    for shard, index in zip(shards, indexes, strict=True):
        for name in ("classes", "keys", "groups"):
            if index.meta[name] != meta[name]:
                raise InputError(f"{shard}: other {name} than {shards[0]}, expected the same in all shards")
    own = {name: slice(*ends) for name, ends in meta["groups"].items()} if meta["groups"] else None
    if classes and list(classes) != meta["classes"]:
        raise InputError(f"{path}: {len(meta['classes'])} classes, expected the {len(classes)} of the training run")
    if groups and groups != own:
        raise InputError(f"{path}: other attributes than the training run has")

    taken = [
        np.flatnonzero(index.splits == SPLITS.index(split)) if split else np.arange(len(index)) for index in indexes
    ]
    if not sum(map(len, taken)):
        found = sorted({SPLITS[code] if code >= 0 else "none" for index in indexes for code in set(index.splits)})
        raise NoSplit(f"{path}: no samples of the split {split}, found {', '.join(found) or 'no samples'}")
    kept = [(s, i, rows) for s, i, rows in zip(shards, indexes, taken, strict=True) if len(rows)]
    fills = sorted({index.meta["fill"] for _, index, _ in kept})
    if len(fills) > 1:
        raise InputError(f"{path}: shards with the fills {fills}, expected one for a split")
    weights = np.concatenate([index.weights[rows] for _, index, rows in kept])
    labels = [LabelMatrix(i.indptr, i.classes, i.values, len(meta["classes"]), fills[0]) for _, i, _ in kept]
    images = _image_paths(kept)
    return Annotations(
        images=images,
        labels=LabelMatrix.stacked([one.select(rows) for one, (_, _, rows) in zip(labels, kept, strict=True)]),
        classes=meta["classes"],
        groups=own,
        keys=meta["keys"],
        source=str(path),
        folder=images.folder,
        weights=weights if (weights != 1).any() else None,
    )


def _shards_of(path):
    if is_pattern(path):
        return [Path(shard) for shard in expand(str(path))]
    if path.is_file():
        return [path]
    summary = path / SUMMARY
    try:
        content = parse_json(summary.read_bytes(), summary)
    except OSError as error:
        raise InputError(f"{summary}: cannot be read ({error.strerror}), expected the list of the shards") from None
    shards = content.get("shards") if isinstance(content, dict) else None
    names = [one.get("name") if isinstance(one, dict) else None for one in shards] if isinstance(shards, list) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(f"{summary}: no list of shards, expected what `python -m csl prepare shards` writes")
    return [path / name for name in names]


def _image_paths(kept):
    """`shards-000003.tar/000017_dog.jpg` in the folder that all shards lie in, as arrays."""
    folder = os.path.commonpath([shard.parent for shard, _, _ in kept])
    text = pa.large_string()
    parts = []
    for shard, index, rows in kept:
        names = ImagePaths(index.names, index.name_offsets).select(rows)
        offsets, data = pa.py_buffer(names.offsets.astype(np.int64)), pa.py_buffer(names.data)
        array = pa.LargeStringArray.from_buffers(len(names), offsets, data)
        place = os.path.join(os.path.relpath(shard, folder), "")
        parts.append(pc.binary_join_element_wise(pa.scalar(place, text), array, pa.scalar("", text)))
    return ImagePaths.from_names(pa.concat_arrays(parts), folder)
