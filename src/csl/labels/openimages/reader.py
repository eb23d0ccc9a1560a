"""OpenImages V6: verified image labels, everything else un-annotated. https://storage.googleapis.com/openimages/web"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.cache import ArrayCache, Stored
from csl.labels.layouts import Images
from csl.labels.matrix import LabelMatrix
from csl.labels.openimages import classes as mids
from csl.labels.openimages.entries import Entries
from csl.labels.openimages.files import data_folders, find_source, in_folder
from csl.labels.openimages.rows import listed_labels, verified_labels
from csl.labels.openimages.stream import NAMED_ROWS, Problems
from csl.labels.paths import ImagePaths, existing, known_split

_CACHED_FROM = 1 << 24  # bytes of a CSV that takes long enough to read for a cache


def read_openimages(
    path: str | Path,
    images: Images = None,
    split: str | None = "train",
    classes: Sequence[str] | None = None,
    classes_file: str | Path | None = None,
    strict_labels: bool = False,
    cache: bool = True,
) -> Annotations:
    """Read one split of OpenImages: listed labels are known, everything else is un-annotated.

    The classes are, in their order: `classes`; those of `classes_file`; for CSL's CSV those of a `mid_to_classes.pth`
    beside it that has their order; those of an `oidv6-classes-trainable.txt` in the folder of the CSV or the one above;
    else the MIDs of the training file, sorted. Their names come from an `oidv6-class-descriptions.csv` in the same
    places, else from `mid_to_classes.pth`; without either a warning says that MIDs are shown. Labels of other classes
    that are described there are ignored.

    Where a folder has the boxes of a split as well, the classes of an image's boxes are positive, too.

    Malformed labels are left out and counted, and one warning names the first few lines: a confidence
    other than 0 and 1, an unknown class, another number of cells, and a class that is both positive and
    negative for an image, which is un-annotated then.

    A file of more than 16 MB is read once: the labels are kept beside it, `{file}.{size}-{date}.{digest}.cache`, and
    mapped into memory the next time, shared by all processes. Where that folder cannot be written they are kept in
    the user's cache folder (`$XDG_CACHE_HOME/csl`), or not at all; a warning says so.

    Args:
        path: a folder with (itself or in `annotations`, `labels`, `metadata`) CSL's `data.csv` (`filepath, label,
            label_neg, split_name`, or by position: path, positives, negatives, ..., split; or path, positives,
            split) or the official `[oidv6-]{train,validation,test}-annotations-human-imagelabels.csv` and
            `...-annotations-bbox.csv`, or FiftyOne's `{train,validation,test}/labels/{classifications,detections}.csv`,
            whose images are in `data` there; or the path of such a file, which alone is read then. For another split than the
            one that an official file is named after, the file of that split beside it is read.
        images: the folder that paths of `data.csv` are relative to, or that holds the official images, in
            `{train,validation,test}` or by themselves. By default looked for beside the CSV.
        split: "train", "val" or "test"; None is "train".
        classes: MIDs of the classes, C.
        classes_file: a file of MIDs, one a line.
        strict_labels: whether the first label that would be left out is an error.
        cache: whether labels of a large file are kept.

    Returns:
        Annotations of the images with at least one label, in the order in which they first appear: `images` an
        `ImagePaths`, `labels` with fill -1, `keys` the MIDs, `classes` the display names, of which 12 repeat.

    Raises:
        InputError: no such file or split, a class list that is broken, no label left, or (with `strict_labels`) the
            first malformed row; the message names file and line.
    """
    source = find_source(existing(path), known_split(split) or "train")
    names = _descriptions(source)
    keys = _class_keys(source, classes, classes_file, cache)
    found = _labels(source, keys, names, strict_labels, cache)
    if not names:
        shown = f"no {mids.DESCRIPTIONS[0]} beside it, classes are shown by their MIDs"
        warnings.warn(f"{source.file}: {shown}", stacklevel=2)
    photos, labels = found.images, found.labels
    boxes = "the classes of an image's boxes are positive; that there is no box says nothing"
    notes = [f"{file}: {boxes}" for file in source.boxes]
    if source.is_fiftyone:  # which takes the labels of all images, and as many images as are asked for
        folders = data_folders(source, images)
        there = {os.path.splitext(name)[0] for one in folders if os.path.isdir(one) for name in os.listdir(one)}
        rows = [row for row in range(len(photos)) if photos.name(row) in there]
        if 0 < len(rows) < len(photos):
            notes.append(f"{len(photos) - len(rows):,} images are left out: {folders[0]} has no photo of them")
            photos, labels = photos.select(rows), labels.select(rows)
    return Annotations(
        labels=labels,
        classes=[names.get(key, key) for key in found.keys],
        keys=found.keys,
        source=str(source.file),
        skipped=found.skipped,
        **in_folder(photos, source, images, Path(path), notes),
    )


class _Labels(NamedTuple):
    """The content of one split: labels [N, C], names of the images, MIDs, images without labels, malformed rows by file."""

    labels: LabelMatrix
    images: ImagePaths
    keys: list[str]
    skipped: int
    problems: list[Problems]

    @classmethod
    def of(cls, stored, files, strict):
        """The labels of some files in a cache.

        Raises:
            InputError: something of it is of another type, or does not fit together.
            KeyError, TypeError: something is missing.
        """
        arrays, facts = stored
        texts = isinstance(facts["keys"], list) and all(isinstance(key, str) for key in facts["keys"])
        integers = arrays["name_bytes"].dtype == np.uint8 and arrays["name_offsets"].dtype.kind in "ui"
        if not texts or not integers or type(facts["skipped"]) is not int:
            raise InputError("labels: found other types than expected")
        labels = LabelMatrix(arrays["indptr"], arrays["indices"], arrays["values"], len(facts["keys"]), fill=-1)
        images = ImagePaths(arrays["name_bytes"], arrays["name_offsets"])
        problems = [Problems.from_json(file, strict, one) for file, one in zip(files, facts["problems"], strict=True)]
        for one in problems:
            one.summary()  # fails where a cache holds other types
        return cls(labels, images, facts["keys"], facts["skipped"], problems)


def _labels(source, keys, names, strict, cache):
    """The labels of a source, from its cache if it has one."""
    sizes = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in source.files]
    worth_it = cache and max(size for _, size, _ in sizes) >= _CACHED_FROM
    trainable = mids.beside(mids.TRAINABLE, source.folders)
    known = names.keys() | set(mids.read_class_list(trainable) if trainable else ())
    role = ("openimages", source.is_csl, source.split, keys, sorted(known), sizes[:-1])
    kept = ArrayCache(source.file, role) if worth_it else None
    found = _kept_labels(kept, source.files, strict) if kept else None
    if found is None:
        stored = _read(source, keys, names, known, strict)
        if kept:
            kept.save(*stored)
            stored = kept.load() or stored  # mapped, so that the memory can be given back
        found = _Labels.of(stored, source.files, strict)
    for problems in found.problems:
        problems.check()
        problems.warn()
    return found


def _kept_labels(kept, files, strict):
    """The labels of a cache; None if there is none. A broken cache is deleted."""
    stored = kept.load()
    try:
        return None if stored is None else _Labels.of(stored, files, strict)
    except (InputError, LookupError, TypeError, ValueError, AttributeError):
        kept.discard()
        return None


def _read(source, keys, names, known, strict):
    """Stored: the labels of a source, read from its CSVs."""
    of_files = [Problems(file, strict) for file in source.files]
    problems = of_files[-1]  # of contradictions: a negative label is no box, so that one of the two lines is there
    class_id = mids.ClassIds(keys, known)
    splits_found = set()
    entries = Entries()
    for file, of_file in zip(source.files, of_files, strict=True):
        if source.is_csl:
            batches = listed_labels(file, source.split, class_id, of_file, splits_found)
        else:
            batches = verified_labels(file, class_id, of_file)
        for batch in batches:
            entries.add(batch)
    if source.is_csl and source.split not in splits_found:
        raise NoSplit(
            f"{source.file}: no rows of the {source.split} split, found {', '.join(sorted(splits_found)) or 'none'}"
        )

    order = None
    keys = class_id.keys
    if class_id.found:
        order = np.argsort(np.argsort(keys)).astype(np.int32) if keys else np.zeros(0, np.int32)
        keys = sorted(keys)
    found = entries.collect(len(keys), order, NAMED_ROWS)
    examples = [(line, image, mids.described(keys[number], names)) for line, image, number in found.examples]
    rows = [(line, f"image {i!r} is both positive and negative for {c}, expected one") for line, i, c in examples]
    problems.add("(image, class) pairs both positive and negative", found.contradictions, rows)
    problems.check()
    if not len(found.labels):
        malformed = "".join(f"; {one.summary()}" for one in of_files if one.counts)
        raise InputError(f"{source.file}: found no label of {len(keys)} classes, expected at least one{malformed}")
    arrays = {name: getattr(found.labels, name) for name in ("indptr", "indices", "values")}
    arrays |= {"name_bytes": found.images.data, "name_offsets": found.images.offsets}
    return Stored(arrays, {"keys": keys, "skipped": found.skipped, "problems": [one.to_json() for one in of_files]})


def _class_keys(source, classes, classes_file, cache):
    """MIDs of the classes; None to take those that occur in the file itself."""
    if classes is not None:
        return list(classes)
    if not classes_file and (listed := _mid_to_classes(source).keys):
        return listed
    given = classes_file or mids.beside(mids.TRAINABLE, source.folders)
    if given:
        return mids.read_class_list(given)
    if source.split == "train":
        return None
    training = source.of_split("train")
    if training is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are given when the training file itself is read
        return _labels(training, None, _descriptions(training), False, cache).keys


def _descriptions(source):
    file = mids.beside(mids.DESCRIPTIONS, source.folders)
    return _mid_to_classes(source).names | (mids.read_class_descriptions(file) if file else {})


def _mid_to_classes(source):
    """The content of the `mid_to_classes.pth` beside CSL's CSV, if there is one."""
    file = mids.beside([mids.MID_TO_CLASSES], source.folders) if source.is_csl else None
    return mids.read_mid_to_classes(file) if file else mids.MidToClasses()
