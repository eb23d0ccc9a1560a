"""Where the labels and images of OpenImages are: the official CSVs, of labels and of boxes, or CSL's `data.csv`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from csl.errors import NoSplit
from csl.labels.layouts import OPENIMAGES, OPENIMAGES_BOXES, Images, Layout, folders_given
from csl.labels.openimages.rows import csl_columns
from csl.labels.paths import SPELLINGS, SPLITS, ImagePaths, contents, first_row, split_name

_CSL = OPENIMAGES._replace(images={"": [".", "images", ".."]})
_FIFTYONE = ("classifications.csv", "detections.csv")
_FOLDERS = (".", "annotations", "labels", "metadata")  # of a data set, in which its CSVs may be
_KINDS = (OPENIMAGES_BOXES, OPENIMAGES)


class Source(NamedTuple):
    """The CSVs of one split: official ones, or (`is_csl`) CSL's, which holds all splits.

    Attributes:
        files: those with its labels, that of boxes first.
        split: "train", "val" or "test".
        is_csl: whether it is CSL's.
        kinds: which official files are read, where they are there.
    """

    files: tuple[Path, ...]
    split: str
    is_csl: bool
    kinds: tuple[Layout, ...] = _KINDS

    @property
    def file(self) -> Path:
        """The one that messages name, beside which the others are."""
        return self.files[-1]

    def of_split(self, split: str) -> "Source | None":
        """The same for another split, if it is there."""
        if self.is_csl:
            return self._replace(split=split)
        return official_source(self.file.parents[2 if self.is_fiftyone else 0], split, self.kinds)

    @property
    def boxes(self) -> list[Path]:
        """The files of boxes among them."""
        return [] if self.is_csl else [file for file in self.files if is_boxes(file)]

    @property
    def is_fiftyone(self) -> bool:
        """Whether it is in the folder of a split as FiftyOne makes it: `labels`, `metadata` and `data` in it."""
        return self.file.name in _FIFTYONE

    @property
    def folders(self) -> list[Path]:
        """Where the files that go with it may lie."""
        above = self.file.parent.parent
        return [self.file.parent, above, *([above / "metadata"] if self.is_fiftyone else [])]


def recognise(path: Path) -> bool:
    """Whether the path is one of the two forms of CSV, or a folder with such a file. Only first lines are read."""
    if not path.is_dir():
        return _is_csl(path) or OPENIMAGES.is_label_file(path)
    return any(_source_in(path, split) for split in SPLITS)


def find_source(path: Path, split: str) -> Source:
    """The CSV to read for a split.

    Raises:
        NoSplit: there is none.
    """
    if path.is_dir():
        source = _source_in(path, split)
        if source is None:
            raise NoSplit(
                f"{path}: no OpenImages labels of the {split} split, expected data.csv or "
                f"{OPENIMAGES.names(split)[0]}; found {contents(path)}"
            )
        return source
    if not OPENIMAGES.is_label_file(path):
        return Source((path,), split, True)
    own, kind = _split_of(path), OPENIMAGES_BOXES if is_boxes(path) else OPENIMAGES
    named = Source((path,), split, False, (kind,))
    source = named if own in (None, split) else named.of_split(split)
    if source is None:
        raise NoSplit(f"{path}: labels of the {own} split, and no {kind.names(split)[0]} beside it")
    return source


def _source_in(folder, split):
    """The CSV to read in a folder for this split, or None."""
    for place in (folder / name for name in _FOLDERS):
        if (place / "data.csv").is_file() and _is_csl(place / "data.csv"):
            return Source((place / "data.csv",), split, True)
        source = official_source(place, split)
        if source:
            return source
    return None


def official_source(folder: Path, split: str, kinds: tuple[Layout, ...] = _KINDS) -> Source | None:
    """The official CSVs of a split in a folder."""
    files = tuple(file for kind in kinds if (file := kind.find(folder, split)))
    return Source(files, split, False, kinds) if files else None


def is_boxes(file: Path) -> bool:
    """Whether an official CSV holds boxes."""
    return "XMin" in first_row(file)


def _split_of(file):
    """The split that an official file, or the folder of one of FiftyOne's, is named after, or None."""
    if file.name in _FIFTYONE:
        return split_name(file.parent.parent.name)
    return split_name(re.sub("^oidv[67]-", "", file.stem).partition("-")[0])


def _is_csl(file):
    """By its columns, of which one is called label_neg or lists MIDs; a file named data.csv also by their number."""
    if file.suffix.lower() != ".csv":
        return False
    cells = set(first_row(file))
    with open(file, "rb") as stream:
        lists_mids = bool(re.search(rb"\[[^\]]*/[mg]/|\[\]", stream.read(1 << 16)))
    if {"filepath", "label", "split_name"} <= cells:
        return "label_neg" in cells or lists_mids
    return file.name == "data.csv" and "filename" not in cells and csl_columns(file) is not None and lists_mids


def data_folders(source: Source, images: Images) -> list[str | Path]:
    """The folders that a FiftyOne source has its photos in."""
    return folders_given(images) or [source.file.parent.parent / "data"]


def in_folder(raw: ImagePaths, source: Source, images: Images, data: Path, notes: Sequence[str]) -> dict[str, Any]:
    """The fields of `Annotations` of the images: names of `data.csv` as they are, official IDs with .jpg."""
    if source.is_csl:
        layout, names = _CSL, raw.within("")
    elif source.is_fiftyone:
        layout, names, images = OPENIMAGES, raw.within("", ".jpg"), data_folders(source, images)
    else:
        spelt = list(SPELLINGS[source.split])[::-1]  # validation first, as in the official folders
        images = [Path(folder) / name for name in (*spelt, ".") for folder in folders_given(images)] or None
        layout, names = OPENIMAGES, raw.within("", ".jpg")
    return layout.photos(source.file, source.split, images, data).found(names, *notes)
