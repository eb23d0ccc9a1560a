"""LVIS v1: federated labels. Each image is checked for some categories only. arXiv 1908.03195.

A category that is drawn in an image is positive, one of its `neg_category_ids` negative, and every other is
un-annotated. `not_exhaustive_category_ids` says that not every instance is drawn, which changes no label.
"""

from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.coco import class_columns, field, of_drawn, positions, read_sections, references
from csl.labels.layouts import LVIS, Images
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import existing, known_split
from csl.labels.photos import clean_name

_NEGATIVES = "neg_category_ids"


def read_lvis(
    path: str | Path, images: Images = None, split: str | None = "train", keep_unlabelled_images: bool = False
) -> Annotations:
    """Read one split of LVIS v1.

    Args:
        path: a folder with `lvis_v1_{split}.json` in it or in `annotations`, or that file, which is read whatever
            `split` says.
        images: the folder, or folders, that hold COCO's `train2017` and `val2017`. By default the first that has the first
            listed image of the file's folder, the one above, and `images` and `coco` in either.
        split: "train" or "val"; None is "train". The labels of LVIS's own test sets are not public.
        keep_unlabelled_images: also keep images without any positive or negative; else they count in `skipped`.

    Returns:
        Annotations with fill -1, images and classes in the order of the file. An image's path is the last two parts
        of its `coco_url`, as a split of LVIS has images of both COCO folders; its `file_name` where it has none.

    Raises:
        InputError: no such file, JSON that does not parse, a key that is missing, an id that repeats or refers to
            nothing, a category both drawn and negative in an image, or no label at all.
    """
    path = existing(path)
    split = known_split(split) or "train"
    file = LVIS.label_file(path, split)
    content = read_sections(file)
    names = _image_names(file, content)
    rows = references(file, content, "image_id", "images")
    drawn = references(file, content, "category_id", "categories")
    negative_rows, absent = _negatives(file, content)
    size = len(content["categories"])
    _check_apart(file, content, rows * size + drawn, negative_rows * size + absent)
    classes, column_of, notes = class_columns(file, content, drawn)
    columns, negative_columns = column_of[drawn], column_of[absent]
    labels = LabelMatrix.from_entries(
        np.concatenate((rows, negative_rows)),
        np.concatenate((columns, negative_columns)),
        np.repeat(np.array([POSITIVE, NEGATIVE], np.int8), (len(rows), len(negative_rows))),
        (len(names), len(classes)),
        fill=UNANNOTATED,
    )
    photos = LVIS.photos(file, split, images, path)
    return of_drawn(file, names, labels, classes, photos, keep_unlabelled_images, notes)


def _image_names(file, content):
    field(file, content, "images", "id")  # so that every entry is an object
    names = []
    for position, image in enumerate(content["images"]):
        url = image.get("coco_url", image.get("file_name"))
        if not isinstance(url, str) or not url:
            raise InputError(f"{file}: images[{position}] (id {image['id']!r}) has no 'coco_url', expected its address")
        names.append("/".join((clean_name(url) if "://" in url else url).split("/")[-2:]))
    return names


def _negatives(file, content):
    """Rows and columns, int64 [n] each, of the categories that images are known not to show."""
    places = positions(file, content, "categories")
    rows, columns = [], []
    for row, ids in enumerate(field(file, content, "images", _NEGATIVES)):
        if not isinstance(ids, list):
            raise InputError(f"{_place(file, content, row)} has {_NEGATIVES} {ids!r}, expected a list")
        for identity in ids:
            column = places.get(identity) if isinstance(identity, (int, str)) else None
            if column is None:
                raise InputError(
                    f"{_place(file, content, row)} has {identity!r} in {_NEGATIVES}, expected an id of 'categories'"
                )
            rows.append(row)
            columns.append(column)
    return np.array(rows, np.int64), np.array(columns, np.int64)


def _check_apart(file, content, positive, negative):
    """No (image, category) is drawn and negative."""
    both = np.intersect1d(positive, negative)
    if len(both):
        row, column = divmod(int(both[0]), len(content["categories"]))
        category = content["categories"][column]
        raise InputError(
            f"{_place(file, content, row)} has category {category['id']!r} ({category['name']}) both drawn and in "
            f"{_NEGATIVES}, expected one; {len(both)} such pair{'s' if len(both) > 1 else ''}"
        )


def _place(file, content, row):
    return f"{file}: images[{row}] (id {content['images'][row]['id']!r})"
