"""NUS-WIDE: Flickr photos with concepts, each present or absent. Chua et al., CIVR 2009.

Two forms: the official text files (81 concepts), and the JSON of the image tagging tutorial.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations
from csl.labels.coco import labelled, read_sections
from csl.labels.layouts import NUSWIDE, Images
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.paths import TEST_AS_VAL, contents, existing, known_split, read_text
from csl.labels.trust import CONTROL

_SECTIONS = ("samples", "labels")
_LABELS = Path("Groundtruth") / "TrainTestLabels"


def read_nuswide(
    path: str | Path, images: Images = None, split: str | None = "train", keep_unlabelled_images: bool = False
) -> Annotations:
    """Read one split of NUS-WIDE. All labels are known: a concept that is not listed is negative.

    The official form is a folder with `Groundtruth/TrainTestLabels/Labels_{concept}_{Train,Test}.txt` (a 0 or 1 per
    line), `ImageList/{Train,Test}Imagelist.txt` and `Concepts81.txt` (in the folder or in `ConceptsList`). Images
    without any of the concepts are left out by default, as in published numbers, and counted in `skipped`.

    The tutorial's form is a file `{"samples": [{"image_name", "image_labels"}], "labels"}`; every sample is kept.

    Args:
        path: a folder with the first of these that exists: `small_{split}.json` (the subset that `python -m csl prepare
            nuswide` makes), the official form, `{split}.json`; or a JSON file, which is read whatever `split` says.
        images: the folder, or folders, that image names are relative to; by default `Flickr`, `images`, `Images` and
            where all readers look (`Layout.photos`).
        split: "train", "val" or "test"; None is "train". Where there is no val, it is the test split.
        keep_unlabelled_images: for the official form, also keep images without any concept.

    Returns:
        Annotations with fill 0, images in the order of the list, classes in the order of the concepts.

    Raises:
        InputError: a file that is missing, a line that is neither 0 nor 1, lists of different lengths, a label that
            is not listed; the message names file and line or sample.
    """
    listed = read_lists(path, split, keep_unlabelled_images)
    photos = NUSWIDE.photos(listed.file, known_split(split) or "train", images, existing(path))
    return Annotations(
        labels=listed.labels,
        classes=listed.classes,
        source=listed.source,
        skipped=listed.skipped,
        **photos.found(listed.names, TEST_AS_VAL if listed.test_as_val else None),
    )


class Listed(NamedTuple):
    """The content of one split's label files.

    Attributes:
        file: with the labels, or one of several.
        names: of the N images as they are listed.
        labels: [N, C], fill 0.
        classes: names of the concepts, C.
        source: the file, or the folder of the official label files.
        skipped: images without any concept that were left out.
        test_as_val: whether these are the test images, where validation images were asked for.
    """

    file: Path
    names: list[str]
    labels: LabelMatrix
    classes: list[str]
    source: str
    skipped: int = 0
    test_as_val: bool = False


def read_lists(
    path: str | Path, split: str | None = "train", keep_unlabelled_images: bool = False, small: bool = True
) -> Listed:
    """One split of NUS-WIDE as it is listed, without looking for the images.

    Args:
        path, split, keep_unlabelled_images: as for `read_nuswide`.
        small: read `small_{split}.json` where it exists.

    Raises:
        InputError: as `read_nuswide`.
    """
    path = existing(path)
    split = known_split(split) or "train"
    layout = NUSWIDE if small else NUSWIDE._replace(files=("{split}.json",))
    file = layout.find(path, split) if path.is_dir() else path
    if (path / _LABELS).is_dir() and not (file and file.name.startswith("small_")):
        listed = _read_official(path, "Train" if split == "train" else "Test", keep_unlabelled_images)
        return listed._replace(test_as_val=split == "val")
    if file is None:
        raise NoSplit(
            f"{path}: no NUS-WIDE labels of the {split} split, expected {_LABELS}, small_{split}.json or {split}.json; "
            f"found {contents(path)}"
        )
    if keep_unlabelled_images:
        raise InputError(f"--keep_unlabelled_images: {file} keeps all of its images in any case; leave it out")
    test_as_val = path.is_dir() and split == "val" and file.stem.endswith("test")
    return _read_tutorial(file)._replace(test_as_val=test_as_val)


def recognise(path: Path) -> bool:
    """Whether the path is a folder of one of the two forms, or the tutorial's file. Nothing is parsed."""
    return (path / _LABELS).is_dir() or NUSWIDE.recognises(path)


def _read_tutorial(file):
    content = read_sections(file, _SECTIONS)
    classes = _distinct(file, content["labels"])
    number = {name: position for position, name in enumerate(classes)}
    names, rows, columns = [], [], []
    for row, sample in enumerate(content["samples"]):
        name, labels = (sample.get(key) if isinstance(sample, dict) else None for key in ("image_name", "image_labels"))
        if not isinstance(name, str) or not name:
            raise InputError(f"{file}: samples[{row}] has no 'image_name', expected a path")
        if not isinstance(labels, list):
            raise InputError(f"{file}: samples[{row}] ({name}) has image_labels {labels!r}, expected a list")
        names.append(name)
        for label in labels:
            column = number.get(label) if isinstance(label, str) else None
            if column is None:
                raise InputError(f"{file}: samples[{row}] ({name}) has the label {label!r}, expected one of 'labels'")
            rows.append(row)
            columns.append(column)
    if not names:
        raise InputError(f"{file}: found no samples, expected at least one")
    labels = LabelMatrix.from_entries(rows, columns, POSITIVE, (len(names), len(classes)), fill=NEGATIVE)
    return Listed(file, names, labels, classes, str(file))


def _distinct(file, labels):
    first = {}
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            raise InputError(f"{file}: labels[{position}] is {label!r}, expected a name")
        if first.setdefault(label, position) != position:
            raise InputError(f"{file}: {label!r} stands at labels[{first[label]}] and labels[{position}]")
    return list(first)


def _read_official(folder, split, keep_unlabelled_images):
    concepts = _concepts(folder)
    image_list = folder / "ImageList" / f"{split}Imagelist.txt"
    names = [line.strip() for line in _lines(image_list)]
    if "" in names:
        raise InputError(f"{image_list}, line {names.index('') + 1}: found nothing, expected the name of an image")
    labels = LabelMatrix.from_dense(  # stored as one column per concept
        np.stack([_column(folder / _LABELS / f"Labels_{name}_{split}.txt", len(names)) for name in concepts], axis=1),
        fill=NEGATIVE,
    )
    source = folder / _LABELS
    names, labels, skipped = labelled(source, names, labels, keep_unlabelled_images)
    return Listed(source / f"Labels_{concepts[0]}_{split}.txt", names, labels, concepts, str(source), skipped)


def _concepts(folder):
    candidates = [folder / "Concepts81.txt", folder / "ConceptsList" / "Concepts81.txt"]
    file = next((file for file in candidates if file.is_file()), candidates[0])
    concepts = _distinct(file, [line.strip() for line in _lines(file) if line.strip()])
    if not concepts:
        raise InputError(f"{file}: found no concept, expected one a line")
    for name in concepts:
        if "/" in name or CONTROL.search(name):  # it becomes a part of file names
            raise InputError(f"{file}: found the concept {name[:80]!r}, expected a plain name")
    return concepts


def _column(file, expected):
    """The labels of one concept, int8 [expected]."""
    values = [line.strip() for line in _lines(file)]
    for number, value in enumerate(values, start=1):
        if value not in ("0", "1"):
            raise InputError(f"{file}, line {number}: found {value!r}, expected 0 or 1")
    if len(values) != expected:
        raise InputError(f"{file}: found {len(values)} lines, expected {expected}, one per image of the list")
    return np.array(values, dtype="S1").view(np.int8) - ord("0")


def _lines(file):
    """Lines of a text file, one at least; blank ones at its end are no lines."""
    return read_text(file, "a text file of NUS-WIDE").rstrip().split("\n")
