"""YOLO's text files, a line an object: `2 0.5 0.5 0.1 0.2`. What is drawn in an image is there, every other class is absent.

As Ultralytics, Roboflow, CVAT, Label Studio, FiftyOne and labelImg write them; https://docs.ultralytics.com/datasets/detect
"""

import re
from pathlib import Path

import yaml

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.coco import of_drawn
from csl.labels.layouts import YOLO, Images
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.paths import SPLITS, contents, existing, known_split, read_text, split_of
from csl.labels.photos import clean_name, without_extension

_NAMES = ("*.yaml", "*.yml", "classes.txt", "obj.names", "*.names", "labels/classes.txt")
_OBJECT = re.compile(r"(\d{1,9})((?:\s+[-+.\deE]+){4,})\s*")
_LISTS = {"train", "val", "valid", "test", "images"}  # `train.txt` lists photos
_DEPTH = 4
_FEW = 50  # files that the format is looked for in


def read_yolo(
    path: str | Path, images: Images = None, split: str | None = "train", keep_unlabelled_images: bool = False
) -> Annotations:
    """Read one split of a YOLO data set.

    Args:
        path: the folder of `data.yaml` (or another YAML with `names`), `classes.txt` or `obj.names`, or that file.
        images: the folder, or folders, of the images; by default `images` for `labels`, beside the text files, and where all
            readers look (`Layout.photos`).
        split: "train", "val" or "test"; None is "train". A text file is of the split that its folders say
            (`train/labels`, `labels/val`, `obj_train_data`), else of the list `{split}.txt` that names it; where nothing says
            any split all are for training.
        keep_unlabelled_images: also keep images whose file is empty; else they count in `skipped`.

    Returns:
        Annotations with fill 0, images sorted by their text files, classes in the order of the list.

    Raises:
        NoSplit: no such files.
        InputError: no list of classes, or a line that is no object of one of them.
    """
    path = existing(path)
    split = known_split(split) or "train"
    folder = path if path.is_dir() else path.parent
    source, classes = _classes(path)
    files = _files_of_split(folder, split)
    rows, columns = [], []
    for row, file in enumerate(files):
        for number, line in enumerate(read_text(file, "objects").splitlines(), start=1):
            if not line.strip():
                continue
            found = _OBJECT.fullmatch(line.strip())
            if not found or int(found[1]) >= len(classes):
                raise InputError(
                    f"{file}, line {number}: found {line[:60]!r}, expected a class from 0 to {len(classes) - 1} of {source} "
                    "and its place"
                )
            rows.append(row)
            columns.append(int(found[1]))
    labels = LabelMatrix.from_entries(rows, columns, POSITIVE, (len(files), len(classes)), fill=NEGATIVE)
    names = [_photo(file.relative_to(folder)) for file in files]
    return of_drawn(source, names, labels, classes, YOLO.photos(source, split, images, folder), keep_unlabelled_images)


def recognise(path: Path) -> bool:
    """Whether a folder, or that of a file, has a list of classes and a text file of objects in any of its usual places."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.suffix in (".yaml", ".yml", ".names")
    return named and _list_of_classes(path) is not None and _has_objects(folder)


def _has_objects(folder):
    """Whether text files are in `labels`, or the first that is not empty begins with an object."""
    files = _label_files(folder)
    if any("labels" in file.relative_to(folder).parts[:-1] for file in files):
        return True
    texts = (text for file in files[:_FEW] if (text := file.read_text("utf-8", "replace").strip()))
    return bool(_OBJECT.fullmatch(next(texts, "").partition("\n")[0].strip()))


def _list_of_classes(path):
    files = [path] if path.is_file() else [file for name in _NAMES for file in sorted(path.glob(name))]
    return next((file for file in files if file.suffix in (".txt", ".names") or "names" in _yaml(file)), None)


def _yaml(file):
    try:
        found = yaml.safe_load(read_text(file, "YAML"))
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    return found if isinstance(found, dict) else {}


def _classes(path):
    """The file that lists the classes, and their names."""
    file = _list_of_classes(path)
    if file is None:
        raise InputError(f"{path}: no names of classes, expected data.yaml with names, classes.txt or obj.names")
    if file.suffix in (".txt", ".names"):
        names = [line.strip() for line in read_text(file, "a class a line").strip().splitlines()]
    else:
        names = _yaml(file)["names"]
        if isinstance(names, dict):
            names = [names.get(number) for number in range(len(names))]
    if not isinstance(names, list) or not names or None in names or len(set(map(str, names))) < len(names):
        raise InputError(f"{file}: found the names {str(names)[:80]}, expected a name for each class from 0 on")
    return file, list(map(str, names))


def _label_files(folder):
    """The text files that may hold objects, sorted."""
    lists = {"classes.txt", "notes.txt", "predefined_classes.txt", *(f"{name}.txt" for name in _LISTS)}
    found = (file for depth in range(_DEPTH) for file in folder.glob(f"{'*/' * depth}*.txt"))
    return sorted(file for file in found if file.name.lower() not in lists and not file.name.startswith("README"))


def _files_of_split(folder, split):
    files = _label_files(folder)
    inner = [file for file in files if file.parent.name == "labels" or "labels" in file.relative_to(folder).parts]
    files = inner or files
    listed = {
        without_extension(clean_name(line)).rpartition("/")[2]: other
        for other in SPLITS
        for name in YOLO.spellings[other]
        for file in (folder / f"{name}.txt", folder / "labels" / f"{name}.txt")
        if file.is_file()
        for line in read_text(file, "a list of images").splitlines()
    }
    splits = [split_of(file.parent / "x", folder) or listed.get(file.stem) for file in files]
    splits = splits if any(splits) else ["train"] * len(files)
    found = [file for file, one in zip(files, splits, strict=True) if one == split]
    if not found:
        raise NoSplit(
            f"{folder}: no text files of the {split} split, expected {split}/labels or labels/{split}; "
            f"found {contents(folder)}"
        )
    return found


def _photo(file):
    """The photo of a text file: in `images` for `labels`."""
    parts = ["images" if part == "labels" else part for part in file.parent.parts]
    return "/".join([*parts, file.stem])
