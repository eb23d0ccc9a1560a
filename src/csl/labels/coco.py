"""COCO instances files: every category of an image is either drawn or absent, so the labels are fully annotated."""

import os

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.instances import SECTIONS, field, has_keys, read_sections, references
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.paths import SPLITS, contents, existing, image_folder, known_split

_YEARS = ("2014", "2017", "")


def read_coco(path, images=None, split="train", keep_unlabelled_images=False):
    """Read one split of a COCO data set.

    Args:
        path: a folder or one instances file. In a folder the first of these that exists is read:
            `annotations/instances_{split}2014.json`, `..._{split}2017.json`, `..._{split}.json` (images in
            `{split}2014` and so on), `{split}.json` (images in the folder itself, in `images` or in `{split}`,
            wherever the first listed image is). A file is read whatever `split` says.
        images: the folder that the file names are relative to, where it is not one of these.
        split: "train", "val" or "test"; None is "train".
        keep_unlabelled_images: also keep images without any annotation. They are left out by default, as in the
            published numbers (40,137 of the 40,504 images of val2014), and counted in `skipped`.

    Returns:
        Annotations, images in the order of the file's `images`, classes in the order of its `categories`. A category
        with at least one annotation in the image, crowds included, is positive; every other one is negative.

    Raises:
        InputError: no such file, JSON that does not parse, a key that is missing, an id that repeats, an annotation
            that names an unknown image or category, or no image left.
    """
    path = existing(path)
    split = known_split(split) or "train"
    file = _split_file(path, split) if path.is_dir() else path
    if file is None:
        raise InputError(
            f"{path}: no COCO file of the {split} split, expected annotations/instances_{split}2014.json, "
            f"annotations/instances_{split}2017.json or {split}.json; found {contents(path)}"
        )
    content = read_sections(file)
    names = field(file, content, "images", "file_name")
    classes = [str(name) for name in field(file, content, "categories", "name")]

    rows = references(file, content, "image_id", "images")
    columns = references(file, content, "category_id", "categories")
    labels = LabelMatrix.from_entries(rows, columns, POSITIVE, (len(names), len(classes)), fill=NEGATIVE)

    annotated = np.bincount(rows, minlength=len(names)) > 0
    kept = np.flatnonzero(annotated | keep_unlabelled_images)
    if not len(kept):
        raise InputError(f"{file}: found {len(names)} images, none of them annotated; expected at least one")
    names = [names[row] for row in kept]
    folder = images if images is not None else _image_folder(file, split, names)
    return Annotations(
        images=[os.path.join(folder, name) for name in names],
        labels=labels.select(kept),
        classes=classes,
        source=str(file),
        folder=os.fspath(folder),
        skipped=len(labels) - len(kept),
    )


def recognise(path):
    """Whether this is an instances file, or a folder with one for some split. Nothing is parsed."""
    if path.is_dir():
        return any(has_keys(file, SECTIONS) for split in SPLITS if (file := _split_file(path, split)))
    return has_keys(path, SECTIONS)


def _split_file(folder, split):
    candidates = [folder / "annotations" / f"instances_{split}{year}.json" for year in _YEARS]
    return next((file for file in [*candidates, folder / f"{split}.json"] if file.is_file()), None)


def _image_folder(file, split, names):
    name = file.stem.removeprefix("instances_")  # train2014
    if file.parent.name == "annotations":
        base = file.parent.parent
        candidates = [base / name, base / "images" / name, base / "images", base]
    else:
        base = file.parent
        candidates = [base, base / "images", base / split, base / name]
    return image_folder(candidates, names) or candidates[0]
