"""The index of a tar shard: position and labels of each image, made once and cached beside the shard.

A shard is a plain tar in the convention of the webdataset library: the files of a sample lie one behind the other and are
called alike up to the first dot, `{key}.jpg` and `{key}.json`. Ours begins with `__csl__/classes.json`, which webdataset
takes for metadata and skips:

    {"version": 1, "classes": [...], "keys": [...] or null, "groups": {name: [start, stop]} or null, "fill": -1}

and a sample's JSON lists the class numbers whose label is not `fill`:

    {"image": "val2017/000000000139.jpg", "split": "val", "positives": [0, 7], "negatives": [3], "unknown": [], "weight": 1.0}

Tars come from strangers. Nothing is unpacked or unpickled, a name is a key and no path, links and devices are refused,
and the header of a member is read again before its bytes are (`csl.data.shards`).
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csl.errors import InputError
from csl.labels.cache import ArrayCache
from csl.labels.class_set import ClassSet
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED
from csl.labels.paths import SPLITS
from csl.machine.files import parse_json
from csl.machine.image_formats import image_suffixes

VERSION = 1
META = "__csl__/classes.json"
BLOCK = 512  # bytes: headers and the end of a tar are made of these

_LABELS = {"positives": POSITIVE, "negatives": NEGATIVE, "unknown": UNANNOTATED}
_MOST_JSON = 64 << 20  # bytes of one JSON member: a class list of a million names fits
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")  # as webdataset divides a name into key and extension
_META_NAME = re.compile(r"__[^/]*__($|/)")  # what webdataset skips


class Sample(NamedTuple):
    """One image of a shard; labels as parallel lists of class ids and values."""

    name: str
    offset: int
    size: int
    classes: list[int]
    values: list[int]
    split: int
    weight: float


@dataclass(frozen=True)
class ShardIndex:
    """One shard of N images.

    Attributes:
        members: int64 [N, 3], sorted: hash of the name (`name_hash`), where its bytes begin, how many they are.
        names, name_offsets: uint8 [total] and int64 [N + 1]: names in UTF-8, in the order of the tar.
        indptr, classes, values: labels of the images, as `LabelMatrix` takes them.
        splits: int8 [N], positions in `csl.labels.paths.SPLITS`; -1 where none is given.
        weights: float32 [N].
        meta: the content of `META`.
    """

    members: np.ndarray
    names: np.ndarray
    name_offsets: np.ndarray
    indptr: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    splits: np.ndarray
    weights: np.ndarray
    meta: dict

    def __len__(self) -> int:
        return len(self.members)


def name_hash(name: str) -> int:
    """A member's name as an int64 that is not negative."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def load_index(path: str | Path) -> ShardIndex:
    """The index of a shard: kept from last time, or made by reading the headers and the labels of all of it.

    Raises:
        InputError: no such file, no tar, a truncated or damaged one, or one with members that a shard does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a tar shard")
    cache = ArrayCache(path, ("shard index", 2))
    if (stored := cache.load()) is not None:
        try:
            return ShardIndex(**stored.arrays, meta=stored.facts)
        except TypeError:  # made by another version
            cache.discard()
    index = _scan(path)
    arrays = {name: value for name, value in vars(index).items() if name != "meta"}
    cache.save(arrays, index.meta)
    return index


def _scan(path):
    samples: list[Sample] = []
    meta, key, group = None, None, {}
    with open(path, "rb") as file:
        for info in _members(path, file):
            if info.name == META:
                meta = _checked_meta(_read_json(path, file, info), f"{path}: {META}")
                continue
            divided = None if _META_NAME.match(info.name) else _KEY.fullmatch(info.name)
            if divided is None:  # no sample's, to webdataset either
                continue
            if meta is None:
                raise InputError(
                    f"{path}: begins with {info.name!r}, expected {META} as `python -m csl prepare shards` writes it"
                )
            if divided[1] != key and group:
                samples.append(_sample(path, file, group, meta, key))
                group = {}
            key = divided[1]
            if divided[2].lower() in group:
                raise InputError(f"{path}: {info.name!r} twice, expected one of each name")
            group[divided[2].lower()] = info
        if group:
            samples.append(_sample(path, file, group, meta, key))
    if meta is None:
        raise InputError(f"{path}: no {META} in it, expected a shard of `python -m csl prepare shards`")
    return _as_index(path, samples, meta)


def _members(path, file):
    """The regular members of a tar, whose headers and sizes have been checked up to its end mark."""
    if file.read(2) == b"\x1f\x8b":
        raise InputError(f"{path}: compressed, expected a plain tar, whose members can be read in any order")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()
                if not info.isdir():
                    _check_regular(path, info)
                    yield info
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: a damaged or truncated tar ({error})") from None
    # To tarfile a header that makes no sense is the end, unless it is the first one.
    file.seek(end)
    block = file.read(BLOCK)
    if block != bytes(BLOCK):
        what = "ends without an end mark" if len(block) < BLOCK else f"no header at byte {end:,}"
        raise InputError(f"{path}: a damaged or truncated tar ({what})")


def _check_regular(path, info):
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
        kind = "a link" if info.issym() or info.islnk() else "no plain file"
        raise InputError(f"{path}: {info.name!r} is {kind}, expected files alone")
    if info.size < 0:
        raise InputError(f"{path}: {info.name!r} has {info.size} bytes, expected 0 or more")


def _read_json(path, file, info):
    place = f"{path}: {info.name}"
    if info.size > _MOST_JSON:
        raise InputError(f"{place}: {info.size:,} bytes, expected at most {_MOST_JSON:,}")
    file.seek(info.offset_data)
    content = file.read(info.size)
    if len(content) < info.size:
        raise InputError(f"{path}: a damaged or truncated tar ({info.name!r} is cut short)")
    content = parse_json(content, place)
    if not isinstance(content, dict):
        raise InputError(f"{place}: a JSON {type(content).__name__}, expected an object")
    return content


def _sample(path, file, group, meta, key):
    images = [extension for extension in group if f".{extension}" in image_suffixes()]
    if len(images) != 1 or "json" not in group:
        raise InputError(f"{path}: sample {key!r} has {', '.join(sorted(group))}; expected json and one image")
    image = group[images[0]]
    content = _read_json(path, file, group["json"])
    place = f"{path}: {group['json'].name}"
    classes, values = [], []
    for name, value in _LABELS.items():
        listed = content.get(name, [])
        if not isinstance(listed, list) or not all(type(c) is int and 0 <= c < len(meta["classes"]) for c in listed):
            raise InputError(f"{place}: {name}: expected a list of class numbers, 0 to {len(meta['classes']) - 1}")
        classes += listed
        values += [value] * len(listed)
    if len(set(classes)) < len(classes):
        raise InputError(f"{place}: a class is listed twice, expected one label for each")
    split, weight = content.get("split"), content.get("weight", 1.0)
    if split is not None and split not in SPLITS:
        raise InputError(f"{place}: split {split!r}, expected one of {', '.join(SPLITS)}")
    if type(weight) not in (int, float) or not 0 < weight < float("inf"):
        raise InputError(f"{place}: weight {weight!r}, expected a positive number")
    order = sorted(range(len(classes)), key=classes.__getitem__)
    code = -1 if split is None else SPLITS.index(split)
    return Sample(
        image.name, image.offset_data, image.size, [classes[i] for i in order], [values[i] for i in order], code, weight
    )


def _checked_meta(content, place):
    if content.get("version") != VERSION:
        raise InputError(f"{place}: version {content.get('version')!r}, expected {VERSION}")
    plain = ClassSet.from_plain(content, place).to_plain()
    if content.get("fill") not in _LABELS.values() or type(content["fill"]) is not int:
        raise InputError(f"{place}: fill {content.get('fill')!r}, expected 1, 0 or -1")
    return {**plain, "fill": content["fill"]}


def _as_index(path, samples, meta):
    encoded = [sample.name.encode("utf-8", "surrogateescape") for sample in samples]
    members = np.array([(name_hash(s.name), s.offset, s.size) for s in samples], np.int64).reshape(-1, 3)
    members = members[np.argsort(members[:, 0], kind="stable")]
    if (np.diff(members[:, 0]) == 0).any():
        raise InputError(f"{path}: two images of the same name, expected one of each")
    return ShardIndex(
        members=members,
        names=np.frombuffer(b"".join(encoded), np.uint8),
        name_offsets=_offsets(map(len, encoded)),
        indptr=_offsets(len(s.classes) for s in samples),
        classes=np.array([c for s in samples for c in s.classes], np.int64),
        values=np.array([v for s in samples for v in s.values], np.int8),
        splits=np.array([s.split for s in samples], np.int8),
        weights=np.array([s.weight for s in samples], np.float32),
        meta=meta,
    )


def _offsets(lengths):
    return np.cumsum([0, *lengths], dtype=np.int64)


def sample_json(
    name: str, split: str | None, classes: Iterable[int], values: Iterable[int], weight: float | None
) -> bytes:
    """The content of a sample's JSON member.

    Args:
        name: of the image where it came from.
        split: "train", "val", "test" or None.
        classes, values: the labels that are not the fill, of equal length.
        weight: how often it is to be drawn in training, None for as often as any.
    """
    content = {"image": name, "split": split}
    for kind, label in _LABELS.items():
        content[kind] = [int(c) for c, v in zip(classes, values, strict=True) if v == label]
    if weight is not None:
        content["weight"] = float(weight)
    return json.dumps(content).encode()


def meta_json(class_set: ClassSet, fill: int) -> bytes:
    """The content of the member `META`."""
    return json.dumps({"version": VERSION, **class_set.to_plain(), "fill": int(fill)}).encode()
