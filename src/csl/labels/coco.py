"""COCO instances files: every category of an image is either drawn or absent, so the labels are fully annotated.

Reads JSON of the COCO family: sections of entries with ids, which annotations refer to.
"""

import json
import re
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.layouts import COCO, Images
from csl.labels.matching import few
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.paths import existing, known_split
from csl.labels.photos import Photos
from csl.machine.files import parse_json

SECTIONS = ("images", "annotations", "categories")
_NONE = "none"  # the supercategory of a category without one

# Outlines are nine tenths of such a file, and labels do not need them. A quote inside a string is escaped, so that
# this only ever matches a key.
_OUTLINE = re.compile(rb'"segmentation"\s*:\s*\[[][0-9.,eE+\-\s]*\]')


def read_coco(
    path: str | Path, images: Images = None, split: str | None = "train", keep_unlabelled_images: bool = False
) -> Annotations:
    """Read one split of a COCO data set.

    Args:
        path: a folder or one instances file. In a folder the first of these that exists is read:
            `annotations/instances_{split}2014.json`, `..._{split}2017.json`, `..._{split}.json` (images in
            `{split}2014` and so on), `{split}.json` (images in the folder itself, in `images` or in `{split}`,
            wherever the first listed image is), the only other such file of the split
            (`csl.labels.layouts.Layout.of_any_name`). A file is read whatever `split` says.
        images: the folder, or folders, that the file names are relative to, where it is not one of these.
        split: "train", "val" or "test"; None is "train".
        keep_unlabelled_images: also keep images without any annotation. They are left out by default, as in the
            published numbers (40,137 of the 40,504 images of val2014), and counted in `skipped`.

    Returns:
        Annotations, images in the order of the file's `images`, classes in the order of its `categories`
        (`class_columns`). A category with at least one annotation in the image, crowds included, is positive; every other
        one is negative.

    Raises:
        InputError: no such file, JSON that does not parse, a key that is missing, an id that repeats, an annotation
            that names an unknown image or category, a name that may be two classes, or no image left.
    """
    path = existing(path)
    split = known_split(split) or "train"
    file = COCO.label_file(path, split)
    content = read_sections(file)
    names = field(file, content, "images", "file_name")
    rows = references(file, content, "image_id", "images")
    categories = references(file, content, "category_id", "categories")
    classes, column_of, notes = class_columns(file, content, categories)
    columns = column_of[categories]
    labels = LabelMatrix.from_entries(rows, columns, POSITIVE, (len(names), len(classes)), fill=NEGATIVE)
    photos = COCO.photos(file, split, images, path)
    return of_drawn(file, names, labels, classes, photos, keep_unlabelled_images, notes)


def read_sections(file: Path, sections: Sequence[str] = SECTIONS) -> dict:
    """The content of a file that has a list for each of `sections`; polygons are left out.

    Raises:
        InputError: it cannot be read, is not JSON, or lacks a section.
    """
    try:
        content = _parse(Path(file).read_bytes(), file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: found a JSON {type(content).__name__}, expected an object with {_listed(sections)}")
    for section in sections:
        if not isinstance(content.get(section), list):
            found = "another type" if section in content else f"the keys {_listed(list(content)[:8])}"
            raise InputError(f"{file}: no list under the key {section!r}, found {found}")
    return content


def field(file: Path, content: dict, section: str, key: str) -> list:
    """The value of `key` in every entry of a section, in order.

    Raises:
        InputError: an entry lacks it, or a `file_name` is not a path.
    """
    try:
        values = [entry[key] for entry in content[section]]
    except (KeyError, TypeError, IndexError):
        entries = enumerate(content[section])
        position, entry = next((k, one) for k, one in entries if not isinstance(one, dict) or key not in one)
        found = f"id {entry.get('id')!r}" if isinstance(entry, dict) else f"a {type(entry).__name__}"
        raise InputError(f"{file}: {section}[{position}] ({found}) has no key {key!r}") from None
    if key == "file_name":
        for position, name in enumerate(values):
            if not isinstance(name, str) or not name:
                raise InputError(f"{file}: {section}[{position}] has file_name {name!r}, expected a path")
    return values


def class_columns(file: Path, content: dict, drawn: np.ndarray) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """The classes of a file: its categories, but one that all others are kinds of, and those of one name as one class.

    Args:
        file: as in messages.
        content: with "categories".
        drawn: int64 [annotations], the position of each one's category.

    Returns:
        Names of the classes, C; the class of each category, int64, -1 for the one left out; and notes that say so.

    Raises:
        InputError: a category without name, or two of one name and different supercategories.
    """
    names = [str(name).strip() for name in field(file, content, "categories", "name")]
    ids = [category.get("id") for category in content["categories"]]
    above = [str(category.get("supercategory") or _NONE).strip() for category in content["categories"]]
    notes = []
    root = above.index(_NONE) if above.count(_NONE) == 1 else None
    if root is not None and (root in drawn or set(above) - {_NONE} != {names[root]}):
        root = None
    if root is not None:
        notes.append(
            f"category {ids[root]!r} {names[root]!r} has no annotations and is the supercategory of the others: left out"
        )
    groups: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        if position != root:
            groups.setdefault(name, []).append(position)
    for name, group in groups.items():
        if len(kinds := {above[k] for k in group} - {_NONE, name}) > 1:
            raise InputError(
                f"{file}: categories {_listed(ids[k] for k in group)} are all called {name!r}, of the supercategories "
                f"{_listed(sorted(kinds))}; expected a name for each"
            )
    united = [f"{name!r} ({_listed(ids[k] for k in group)})" for name, group in groups.items() if len(group) > 1]
    if united:
        notes.append(f"categories of one name are one class: {few(united)}")
    column_of = np.full(len(names), -1)
    for column, group in enumerate(groups.values()):
        column_of[group] = column
    return list(groups), column_of, tuple(notes)


def of_drawn(
    file: Path,
    names: Sequence[str],
    labels: LabelMatrix,
    classes: Sequence[str],
    photos: Photos,
    keep: bool = False,
    notes: Sequence[str] = (),
) -> Annotations:
    """The annotations of a file, of the images that are `labelled`."""
    found, kept, skipped = labelled(file, names, labels, keep)
    unlabelled = int((np.diff(kept.indptr) == 0).sum())
    if unlabelled and labels.fill == NEGATIVE:
        notes = (*notes, f"{unlabelled:,} images without annotations are kept: negative in every class")
    about = photos.found(found, *notes)
    return Annotations(labels=kept, classes=classes, source=str(file), skipped=skipped, **about)


def labelled(source: Path, names: Sequence[str], labels: LabelMatrix, keep: bool) -> tuple[list[str], LabelMatrix, int]:
    """Names and labels of the images that have any entry in `labels` [N, C], or with `keep` of all N, and how many others
    there are.

    Raises:
        InputError: no image is annotated.
    """
    rows = np.flatnonzero((np.diff(labels.indptr) > 0) | keep)
    if not len(rows):
        raise InputError(f"{source}: found {len(names)} images, none of them annotated; expected at least one")
    return [names[row] for row in rows], labels.select(rows), len(names) - len(rows)


def positions(file: Path, content: dict, section: str) -> dict:
    """{id: position} of a section.

    Raises:
        InputError: an id is no number or string, or repeats.
    """
    ids = field(file, content, section, "id")
    places = {}
    for position, identity in enumerate(ids):
        if isinstance(identity, (list, dict)):
            raise InputError(f"{file}: {section}[{position}] has id {identity!r}, expected a number or a string")
        if places.setdefault(identity, position) != position:
            first = places[identity]
            raise InputError(f"{file}: id {identity!r} stands at {section}[{first}] and {section}[{position}]")
    return places


def references(file: Path, content: dict, key: str, section: str) -> np.ndarray:
    """The position in `section` that each annotation refers to by its `key`, int64 [annotations].

    A number and its digits as a string are one id, unless the section has both.

    Raises:
        InputError: one refers to nothing.
    """
    places = positions(file, content, section)
    ids = field(file, content, "annotations", key)
    if (str in map(type, ids)) != (str in map(type, places)):
        as_text = {str(identity): position for identity, position in places.items()}
        if len(as_text) == len(places):
            places, ids = as_text, [one if isinstance(one, (list, dict)) else str(one) for one in ids]
    try:
        found = np.fromiter(map(places.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))
    except TypeError:  # a list or an object as id
        found = np.array([-1 if isinstance(identity, (list, dict)) else 0 for identity in ids])
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        first = unknown[0]
        annotation = content["annotations"][first]
        raise InputError(
            f"{file}: annotations[{first}] (id {annotation.get('id')!r}) has {key} {annotation[key]!r}, "
            f"expected an id of {section!r}; {len(unknown)} such annotation{'s' if len(unknown) > 1 else ''}"
        )
    return found


def _parse(text, file):
    try:
        return json.loads(_OUTLINE.sub(b'"segmentation":0', text))
    except (ValueError, RecursionError):
        return parse_json(text, file)  # so that the message has the line of the file itself


def _listed(names):
    return ", ".join(repr(name) for name in names)
