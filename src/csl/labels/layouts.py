"""Where each format has its label files and its images, as a table, and the one walk that looks for them."""

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from csl.errors import InputError, NoSplit
from csl.labels.matching import few
from csl.labels.paths import SPELLINGS, SPLITS, contents, first_row, split_in, split_of
from csl.labels.photos import Photos

VERIFIED = ("ImageID", "LabelName", "Confidence")
"""Columns of OpenImages' verified labels."""

Images = str | Path | Sequence[str | Path] | None
"""One or several folders of images; None for those beside the annotations."""

_ONE_NAME = {split: (split,) for split in SPLITS}
_FOLDERS_OF_LABELS = ("annotations", "labels")


class Layout(NamedTuple):
    """Where one format has its files.

    Attributes:
        name: the format, as in messages.
        files: label files, globs relative to the data folder, in the order in which they are looked for.
        is_label_file: whether a file is of this format. Quick: nothing is parsed but a header.
        images: {name of the label file's folder, "" for any other: folders of images relative to it}, in the order in
            which they are looked for; `{name}` is the label file's name without "instances_". The first is the default.
        spellings: how each split may be called where `files` says `{split}`.
    """

    name: str
    files: Sequence[str]
    is_label_file: Callable[[Path], bool]
    images: Mapping[str, Sequence[str]]
    spellings: Mapping[str, Sequence[str]] = _ONE_NAME

    def names(self, split: str) -> list[str]:
        """The globs of a split's label files."""
        names = [name.format(split=spelt) for name in self.files for spelt in self.spellings[split]]
        return list(dict.fromkeys(names))

    def find(self, folder: Path, split: str) -> Path | None:
        """The label file of a split in a data folder, or None."""
        found = (file for name in self.names(split) for file in sorted(folder.glob(name)))
        return next((file for file in found if file.is_file()), None)

    def label_file(self, path: Path, split: str) -> Path:
        """The label file of a split: `path` itself, or the one in that folder, by a usual name or any other.

        Raises:
            NoSplit: the folder has none.
            InputError: it has several of other names.
        """
        if not path.is_dir():
            return path
        if (file := self.find(path, split)) is not None:
            return file
        files = self.of_any_name(path, split)
        if len(files) > 1:
            raise InputError(
                f"{path}: found {_listed(files, path)}, expected one of the {split} split, or the path of the one to read"
            )
        if not files:
            expected, found = ", ".join(self.names(split)), _listed(_json_files(path), path) or contents(path)
            raise NoSplit(f"{path}: no {self.name} file of the {split} split, expected {expected}; found {found}")
        return files[0]

    def of_any_name(self, folder: Path, split: str) -> list[Path]:
        """JSON label files of a split by any name, sorted.

        They lie in the folder itself, in `annotations` or `labels`, or in a folder that is called as a split (or in one of
        these in another), and have a word for the split in their name (`my_train.json`), else in that of their folder
        (`valid/_annotations.coco.json`). Where no file has, those without are for training. What is called as LVIS is of no
        other format: all that an image of it does not list would be negative.
        """
        files: dict[str | None, list[Path]] = {}
        own = [file for file in _json_files(folder) if "lvis" not in file.name.lower() or self is LVIS]
        for file in own:
            files.setdefault(split_of(file, folder), []).append(file)
        unsplit = files.pop(None, [])
        found = list(filter(self.is_label_file, files.get(split, [])))
        if found or split != "train" or any(self.is_label_file(file) for some in files.values() for file in some):
            return found
        return list(filter(self.is_label_file, unsplit))

    def recognises(self, path: Path) -> bool:
        """Whether the path is a label file of the format, or a folder with such a file for any split."""
        if not path.is_dir():
            return self.is_label_file(path)
        return any(self.is_label_file(file) for split in SPLITS if (file := self.find(path, split)))

    def recognises_any_name(self, path: Path) -> bool:
        """Whether the path is a folder with a JSON file of the format, by any name."""
        return path.is_dir() and any(self.of_any_name(path, split) for split in SPLITS)

    def photos(
        self, file: Path, split: str, images: Images = None, data: Path | None = None, own: Sequence[Path] = ()
    ) -> Photos:
        """The image files of a label file.

        They are looked for in `own`, where the format has them, in the data folder, its `images` and its folders of splits,
        that of `split` first; if none is there, beyond it: where the format has them, too, and in the folder above. With
        `images` given they are looked for in those folders alone, and the same ones in them.

        Args:
            file: the label file.
            split: its split.
            images: a folder, or several.
            data: the data folder; that of the label file where it is None or a file.
            own: folders to look in first.
        """
        data = data if data is not None and data.is_dir() else file.parent
        said = None if file.suffix == ".json" and split_of(file, data) is None else split
        words = [word for name in (split, *SPLITS) for word in (*self.spellings[name], *SPELLINGS[name])]
        if images := folders_given(images):
            return Photos([Path(folder, name) for name in (".", "images", *words) for folder in images], split=said)
        usual = [data / name for name in (".", "images", *words, "..")]
        return Photos([*own, *self.image_folders(file, split), *usual], within=data, split=said)

    def image_folders(self, file: Path, split: str) -> list[Path]:
        """The folders that the format has the images of a label file in, the default first."""
        by_name = {folder.lower(): patterns for folder, patterns in self.images.items()}
        patterns = by_name.get(file.parent.name.lower(), by_name[""])
        name = file.stem.removeprefix("instances_")
        words = [*self.spellings[split], *SPELLINGS[split]]
        folders = (file.parent / pattern.format(split=word, name=name) for pattern in patterns for word in words)
        return list(dict.fromkeys(Path(os.path.normpath(folder)) for folder in folders))  # `..` by name, through links


def _json_files(folder, depth=2):
    """The JSON files of a folder, and of those in it that are called as a split or as labels."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    files = [folder / entry.name for entry in entries if entry.name.lower().endswith(".json")]
    for entry in entries if depth else ():
        if entry.is_dir() and (entry.name.lower() in _FOLDERS_OF_LABELS or split_in(entry.name)):
            files += _json_files(folder / entry.name, depth - 1)
    return files


def _listed(files, folder):
    return few([str(file.relative_to(folder)) for file in files])


def folders_given(images: Images) -> list[str | Path]:
    """The folders of `images`, one or several; none for None."""
    return [] if images is None else [images] if isinstance(images, (str, Path)) else list(images)


def has_keys(*keys: str) -> Callable[[Path], bool]:
    """A function that tells whether a JSON file contains all of these keys, without parsing it."""

    def test(file):
        if file.suffix.lower() != ".json" or not file.is_file() or not file.stat().st_size:
            return False
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(_has_key(text, f'"{key}"'.encode()) for key in keys)

    return test


def _has_key(text, key):
    """Whether these bytes stand before a colon in a text."""
    at = text.find(key)
    while at >= 0 and text[at + len(key) : at + len(key) + 9].lstrip()[:1] != b":":
        at = text.find(key, at + 1)
    return at >= 0


def _is_attributes(file):
    """Whether a CSV has attributes, by its name (the reader then says what is wrong with it) or by its header."""
    return file.suffix.lower() == ".csv" and (file.stem.startswith("attributes") or "filename" in first_row(file))


def _is_verified(file):
    """Whether a CSV has the columns of OpenImages' verified labels, as its boxes have, too."""
    return file.suffix.lower() == ".csv" and set(VERIFIED) <= set(first_row(file))


VOC_FOLDERS = ("", "VOC*/", "VOCdevkit/", "VOCdevkit/VOC*/")
"""Where the folder of a VOC data set may be."""

_VOC_LIST = "ImageSets/Main/{split}.txt"

_BESIDE_ANNOTATIONS = [
    "../{name}", "../images/{name}", "../images", "..", "../{split}", "../images/{split}", "../data", "../data/{split}",
]  # fmt: skip

COCO = Layout(
    "COCO",
    [*(f"annotations/instances_{{split}}{year}.json" for year in ("2014", "2017", "")), "{split}.json"],
    has_keys("images", "annotations", "categories"),
    {
        "annotations": _BESIDE_ANNOTATIONS,
        "labels": _BESIDE_ANNOTATIONS,
        "": [".", "images", "{split}", "{name}", "data", "images/{split}", "data/{split}"],
    },
)
DATUMARO = Layout(
    "Datumaro",
    ["annotations/{split}.json"],
    has_keys("categories", "items"),
    {"annotations": ["../images/{name}", "../images", "../images/{split}", ".."], "": [".", "images", "images/{name}"]},
)
YOLO = Layout("YOLO", [], lambda file: False, {"": ["."]}, SPELLINGS)  # `csl.labels.yolo` finds its many small files
CVAT = Layout("CVAT", [], lambda file: False, {"": ["images", "images/{split}", "."]})
_PREFIXES = ("oidv6-", "oidv7-", "")
OPENIMAGES = Layout(  # the official CSVs; for CSL's data.csv, which is known by its columns, see openimages/files.py
    "OpenImages",
    [
        *(
            f"{prefix}{{split}}-annotations-human-imagelabels{end}.csv"
            for end in ("", "-boxable")
            for prefix in _PREFIXES
        ),
        "{split}/labels/classifications.csv",  # of FiftyOne
    ],
    _is_verified,
    {"": ["{split}", ".", "../{split}", "..", "images/{split}", "images", "../images/{split}", "../images"]},
    _ONE_NAME | {"val": ("validation", "val")},
)
OPENIMAGES_BOXES = OPENIMAGES._replace(
    files=[*(f"{prefix}{{split}}-annotations-bbox.csv" for prefix in _PREFIXES), "{split}/labels/detections.csv"]
)
LVIS = Layout(
    "LVIS",
    ["lvis_v1_{split}.json", "annotations/lvis_v1_{split}.json"],
    has_keys("images", "annotations", "categories", "neg_category_ids"),
    {
        "annotations": ["..", ".", "images", "coco", "../images", "../coco"],
        "": [".", "..", "images", "coco", "../images", "../coco"],
    },
)
NUSWIDE = Layout(
    "NUS-WIDE",
    ["small_{split}.json", "{split}.json"],
    has_keys("samples", "labels"),
    {
        "TrainTestLabels": [f"../../{name}" for name in ("Flickr", "images", "Images", ".")],
        "": ["images", "Images", "Flickr"],
    },
    _ONE_NAME | {"val": ("val", "test")},
)
VOC = Layout(
    "Pascal VOC",
    [f"{folder}{_VOC_LIST}" for folder in VOC_FOLDERS],
    lambda file: file.suffix == ".txt" and file.parent.parts[-2:] == ("ImageSets", "Main"),
    {"Main": ["../../JPEGImages"], "": ["JPEGImages"]},
    {
        "train": ("train", "Train", "trainval", "default"),
        "val": ("val", "Val", "valid", "validation", "Validation", "test", "Test"),
        "test": ("test", "Test"),
    },
)
_TABLES = (
    "attributes_{split}.csv", "{split}.csv", "{split}_labels.csv", "{split}/_classes.csv", "{split}/metadata.csv",
    "{split}/metadata.jsonl", "{split}/metadata.parquet",
    *(f"{folder}{{split}}{part}.parquet" for folder in ("", "data/") for part in ("", "-*-of-*")),
    "{split}/0*.parquet", "*/{split}/0*.parquet", "attributes.csv", "{split}/labels.json", "{split}.json",
)  # fmt: skip
_PHOTOS_OF_TABLES = {"": ["images", "{split}", "images_split/{split}/images", "data", "."]}
ATTRIBUTES = Layout("table", _TABLES, _is_attributes, _PHOTOS_OF_TABLES, SPELLINGS)
