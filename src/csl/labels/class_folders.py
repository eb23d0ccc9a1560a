"""A folder for each class, `train/cat/x.jpg`, as torchvision's ImageFolder and Hugging Face's imagefolder have them."""

import os
from collections.abc import Iterator
from pathlib import Path

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import ImagePaths, contents, known_split, split_name
from csl.labels.reviews import REVIEWS, is_reviews
from csl.machine.image_formats import is_image_name, is_of_system

_NO_CLASSES = frozenset(
    {
        "images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "data", "masks", "mask", "labels", "annotations",
    }
)  # fmt: skip
"""Names of folders of photos that are no classes."""

_UNLABELLED = "no_label"  # of CVAT and Datumaro, whose photos are left out


def recognise(path: Path) -> bool:
    """Whether the path is a folder with the folders of at least two classes, in `train`, `validation` and so on or itself."""
    names = {name for folders in _class_folders(path).values() for name in folders}
    return len(names) > 1 and not any(name.lower() in _NO_CLASSES or split_name(name) for name in names)


def read_class_folders(
    path: str | Path, images: None = None, split: str | None = None, unlisted: str | None = None
) -> Annotations:
    """Read the photos of one split from the folders of their classes.

    Args:
        path: the folder. The classes are those of all splits together, sorted.
        images: None; the folders hold the images.
        split: "train", "val" or "test"; None is "train". Class folders without folders of splits are for training.
        unlisted: what the other classes of a photo count as, "negative" (the default) or "unknown".

    Raises:
        InputError: no folder of that split, or another word for `unlisted`.
    """
    path, split = Path(path), known_split(split) or "train"
    if images is not None:
        raise InputError(f"--images: found {images}, expected none for a folder a class, which holds the images")
    if unlisted not in (None, "negative", "unknown"):
        raise InputError(f"--unlisted {unlisted}: expected negative or unknown")
    of_splits = _class_folders(path)
    folders = of_splits.get(split, of_splits.get(None) if split == "train" else None)
    if folders is None:
        raise NoSplit(
            f"{path}: no folder of the {split} split, expected {split} with a folder for each class in it; "
            f"found {contents(path)}"
        )
    classes = sorted({name for folders in of_splits.values() for name in folders})
    photos = [(photo, classes.index(name)) for name in sorted(folders) for photo in sorted(_photos(folders[name]))]
    fill = UNANNOTATED if unlisted == "unknown" else NEGATIVE
    rows, columns = range(len(photos)), [number for _, number in photos]
    return Annotations(
        images=ImagePaths.from_names([os.path.relpath(photo, path) for photo, _ in photos], path),
        labels=LabelMatrix.from_entries(rows, columns, POSITIVE, (len(photos), len(classes)), fill),
        classes=classes,
        source=str(path),
        folder=str(path),
        notes=(f"a photo's folder is its class; unlisted: {unlisted or 'negative'}",),
    )


def _class_folders(path):
    """{split: {class: folder}}; {None: {class: folder}} where no folder is called as a split is."""
    if not path.is_dir():
        return {}
    splits = {}
    for name, folder in _folders_in(path).items():
        if (split := split_name(name)) and (classes := _with_photos(folder)):
            splits.setdefault(split, {}).update(classes)
    if splits or any(_may_be_data(entry) for entry in os.scandir(path) if entry.is_file()):
        return splits
    return {None: found} if (found := _with_photos(path)) else {}


def _may_be_data(entry):
    """Whether a file beside folders of photos may be a photo or labels itself, so that these are no classes."""
    if is_of_system(entry.name) or (entry.name == REVIEWS and is_reviews(Path(entry.path))):
        return False
    return os.path.splitext(entry.name)[1].lower() not in ("", ".md", ".txt", ".html", ".pdf")


def _folders_in(path):
    with os.scandir(path) as entries:
        return {entry.name: entry.path for entry in entries if entry.is_dir() and not is_of_system(entry.name)}


def _with_photos(path):
    folders = {name: folder for name, folder in _folders_in(path).items() if name != _UNLABELLED}
    return {name: folder for name, folder in folders.items() if next(_photos(folder), None)}


def _photos(folder) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [inner for inner in folders if not is_of_system(inner)]
        yield from (os.path.join(place, file) for file in files if is_image_name(file) and not is_of_system(file))
