"""Write annotated images into tar shards, which webdataset can read too (`csl.labels.shard_index`)."""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from csl.data.images import check_image, open_image
from csl.errors import InputError, printable
from csl.labels import Annotations
from csl.labels.class_set import ClassSet
from csl.labels.shard_index import META, load_index, meta_json, sample_json
from csl.labels.shards import SUMMARY
from csl.machine.files import replacing, write_json
from csl.machine.image_formats import is_image_name

DEFAULT_BYTES = 500_000_000
"""Size of one shard: large enough to be read at the disk's speed, small enough to be copied and shared out."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")  # in a key: a dot ends it, a slash makes a folder
_MOST_OF_NAME = 60  # characters of the image's name in its key; a tar has room for 100


def write_shards(
    parts: Mapping[str, Annotations],
    folder: str | Path,
    shard_bytes: int | None = None,
    shard_count: int | None = None,
    on_bad_image: str = "stop",
    say: Callable[[str], None] = print,
) -> dict:
    """Write shards-000000.tar, ... and shards.json; returns the content of the latter.

    Image files go in byte for byte. A shard has samples of one split, and is written whole or not at all. The index
    of each shard, which readers need, is written at once.

    Args:
        parts: split -> its annotations.
        folder: of the shards; new or without any.
        shard_bytes: of images, after which a shard ends; `DEFAULT_BYTES` where `shard_count` is not given either.
        shard_count: images, after which a shard ends.
        on_bad_image: "stop" at an unreadable image, or "skip" it.
        say: prints one line.

    Raises:
        InputError: there are shards in the folder already, an image cannot be read, or webdataset is not installed.
        MachineError: a full disk.
    """
    folder = Path(folder)
    if (folder / SUMMARY).exists() or any(folder.glob("*.tar")):
        raise InputError(f"{folder}: has shards already: choose a new folder")
    if shard_bytes is None:
        shard_bytes = DEFAULT_BYTES if shard_count is None else math.inf
    most = (shard_bytes, math.inf if shard_count is None else shard_count)
    shards: list[dict] = []
    for split, annotations in parts.items():
        _write_split(split, annotations, folder, most, on_bad_image, shards, say)
    first = next(iter(parts.values()))
    groups = {name: [group.start, group.stop] for name, group in (first.groups or {}).items()}
    summary = {
        "images": {split: sum(one["images"] for one in shards if one["split"] == split) for split in parts},
        "shards": shards,
        "classes": list(first.classes),
        "keys": list(first.keys),
        "groups": groups or None,
        "labels": {split: _counts(annotations) for split, annotations in parts.items()},
    }
    write_json(folder / SUMMARY, summary)
    return summary


def _write_split(split, annotations, folder, most, on_bad_image, shards, say):
    """Write the shards of one split, each up to `most` (bytes, images), and append an entry for each to `shards`."""
    bar = tqdm(total=len(annotations), desc=f"shards of {split}", unit="img", leave=False, disable=None)
    samples = _samples(split, annotations, on_bad_image, say, bar)
    meta = meta_json(ClassSet(annotations.classes, annotations.keys, annotations.groups), annotations.labels.fill)
    with bar:
        while (first := next(samples, None)) is not None:
            path = folder / f"shards-{len(shards):06d}.tar"
            written = images = 0
            with replacing(path) as temporary, open(temporary, "wb") as file, _tar_writer(file) as tar:
                tar.write({"__key__": META.removesuffix(".json"), "json": meta})
                for size, sample in itertools.chain([first], samples):
                    tar.write(sample)
                    written, images = written + size, images + 1
                    if written >= most[0] or images >= most[1]:
                        break
            load_index(path)
            shards.append({"name": path.name, "split": split, "images": images, "bytes": path.stat().st_size})


def _samples(split, annotations, on_bad_image, say, bar):
    """Yield (bytes of the image, sample for the tar writer) of every image that can be read."""
    for row, path in enumerate(annotations.images):
        content, reason = _content(path, annotations.roots)
        bar.update()
        if reason is None:
            labels = _labels(annotations, row, split, path)
            yield len(content), {"__key__": _key(row, path), _extension(path, content): content, "json": labels}
        elif on_bad_image == "stop":
            raise InputError(f"{path}: {reason} (expected an image; --on_bad_image skip goes on without it)")
        else:
            say(printable(f"bad image, left out: {path}: {reason}"))


def _tar_writer(file):
    try:
        from webdataset import TarWriter
    except ImportError:
        raise InputError("writing shards needs the package webdataset: pip install 'csl[shards]'") from None
    return TarWriter(file, encoder=False, mtime=0)  # no time of change: equal data gives equal shards


def _content(path, roots):
    """The bytes of an image file, or the reason why it cannot be read."""
    reason = check_image(path, roots)
    if reason is not None:
        return b"", reason
    with open_image(path, roots) as file:
        return file.read(), None


def _key(row, path):
    return f"{row:08d}_{_UNFIT.sub('_', Path(path).stem)[:_MOST_OF_NAME]}"


def _extension(path, content):
    if is_image_name(path):
        return Path(path).suffix[1:].lower()
    return "png" if content[:4] == b"\x89PNG" else "jpg"  # readers go by what is in it


def _labels(annotations, row, split, path):
    labels = annotations.labels
    listed = slice(labels.indptr[row], labels.indptr[row + 1])
    folder = annotations.folder or getattr(annotations.images, "folder", "")
    name = (
        Path(path).relative_to(folder).as_posix() if folder and Path(path).is_relative_to(folder) else Path(path).name
    )
    weight = None if annotations.weights is None else annotations.weights[row]
    return sample_json(name, split, labels.indices[listed], labels.values[listed], weight)


def _counts(annotations):
    positive, negative, unknown = (int(count.sum()) for count in annotations.labels.counts())
    return {"positive": positive, "negative": negative, "unknown": unknown}
