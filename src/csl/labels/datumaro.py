"""Datumaro's JSON, as it and CVAT write it: what is drawn or stated in an image is there, every other label is absent.

https://open-edge-platform.github.io/datumaro
"""

from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.coco import class_columns, field, of_drawn, read_sections
from csl.labels.layouts import DATUMARO, Images
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.paths import existing, known_split


def read_datumaro(
    path: str | Path, images: Images = None, split: str | None = "train", keep_unlabelled_images: bool = False
) -> Annotations:
    """Read one split of a Datumaro data set.

    Args:
        path: a folder with `annotations/{split}.json`, or with another such file (`csl.labels.layouts.Layout.of_any_name`);
            or that file, which is read whatever `split` says.
        images: the folder, or folders, of the images; by default `images/{name of the file}`, or `images`.
        split: "train", "val" or "test"; None is "train".
        keep_unlabelled_images: also keep images without any annotation; else they count in `skipped`.

    Returns:
        Annotations with fill 0, images in the order of the file's `items`, classes in the order of its labels. A label
        that any annotation of the image has, of whatever type, is positive. An image is called as its `path`, else its
        `id`, and may have any extension (`csl.labels.photos.Photos`).

    Raises:
        InputError: no such file, JSON that does not parse, a key that is missing, an annotation whose `label_id` is no
            position of a label, or no image left.
    """
    path = existing(path)
    split = known_split(split) or "train"
    file = DATUMARO.label_file(path, split)
    content = read_sections(file, ("items",))
    field(file, content, "items", "id")  # so that every item is an object
    categories = _categories(file, content)
    rows, labels = _entries(file, content, len(categories["categories"]))
    classes, column_of, notes = class_columns(file, categories, labels)

    names = [_name(item) for item in content["items"]]
    matrix = LabelMatrix.from_entries(rows, column_of[labels], POSITIVE, (len(names), len(classes)), fill=NEGATIVE)
    photos = DATUMARO.photos(file, split, images, path)
    return of_drawn(file, names, matrix, classes, photos, keep_unlabelled_images, notes)


def _categories(file, content):
    """The labels as COCO has them: `parent` is the supercategory."""
    found = content.get("categories")
    found = found.get("label") if isinstance(found, dict) else None
    found = found.get("labels") if isinstance(found, dict) else None
    if not isinstance(found, list) or not all(isinstance(label, dict) for label in found):
        raise InputError(f"{file}: no list of labels under 'categories', 'label', 'labels'")
    return {"categories": [{"id": k, "supercategory": label.get("parent")} | label for k, label in enumerate(found)]}


def _entries(file, content, count):
    """The item and the label of each annotation that has one, int64 [n] each."""
    entries = []
    for row, item in enumerate(content["items"]):
        annotations = item.get("annotations", [])
        for annotation in annotations if isinstance(annotations, list) else [annotations]:
            label = annotation.get("label_id") if isinstance(annotation, dict) else annotation
            if label is None:  # a caption or a mask of no class
                continue
            if type(label) is not int or not 0 <= label < count:
                raise InputError(
                    f"{file}: items[{row}] (id {item['id']!r}) has label_id {label!r}, expected 0 to {count - 1}"
                )
            entries.append((row, label))
    return np.array(entries, np.int64).reshape(-1, 2).T


def _name(item):
    media = item.get("image", item.get("media"))
    path = media.get("path") if isinstance(media, dict) else None
    return path if isinstance(path, str) and path else str(item["id"])
