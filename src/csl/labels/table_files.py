"""Which file of a folder is the table of labels, of which split a table is, and where its photos are."""

import fnmatch
import os
from pathlib import Path

from csl.errors import InputError
from csl.labels.box_columns import are_boxes
from csl.labels.column_names import is_measure
from csl.labels.columns import integer
from csl.labels.dialect import SUFFIXES, head_of, header_of
from csl.labels.image_column import names_images
from csl.labels.layouts import ATTRIBUTES
from csl.labels.matching import few, few_names
from csl.labels.parquet import SUFFIX, parts_of, stem_of
from csl.labels.paths import SPLITS, split_in, split_name
from csl.labels.reviews import is_reviews
from csl.labels.split_column import names_split
from csl.labels.split_files import is_split_file
from csl.labels.table_options import SIDE_FILE, TableOptions
from csl.machine.image_formats import is_image_name, is_of_system

_FOLDERS_OF_TABLES = ("Anno", "annotations", "labels")  # the first is CelebA's
_MOST_TABLES = 20  # files of such a folder, which else holds one a photo


def split_of_table(file: Path) -> str | None:
    """The split that a file is of by its name or its folder's (`attributes_val.csv`, `valid/_classes.csv`), or None."""
    stem = stem_of(file).removesuffix("_labels")
    return split_name(stem.rpartition("_")[2]) or (split_name(file.parent.name) if _in_folder_of_split(file) else None)


def _in_folder_of_split(file):
    """Whether a file is called as those in the folder of each split are."""
    numbered = file.suffix == SUFFIX and file.stem.isdigit()
    return numbered or file.stem in ("_classes", "metadata") or file.name == "labels.json"


def split_file(folder: Path, split: str) -> Path | None:
    """The table of a folder to read for this split, or None."""
    file = ATTRIBUTES.find(folder, split)
    if file is not None and not is_split_file(file):
        return file
    if (file := only_table(folder, split=split)) is not None or split == "train":
        return file
    train = split_file(folder, "train")  # which may say the split itself
    return train if train is not None and any(map(names_split, header_of(train))) else None


def only_table(folder: Path, filename_column: str | None = None, split: str | None = None) -> Path | None:
    """The only table of a folder, or of one in it for tables, with a column of image names that no split's file is called as;
    or None.

    The column is the given one, that of a `labels.toml` there, or one that is called so or names photos. Of several, one of
    which has a word for training in its name, it is that with a word for `split`.

    Raises:
        InputError: it has several, or none has the given column.
    """
    inner = [one for name in _FOLDERS_OF_TABLES if (one := folder / name).is_dir()]
    files = {one: os.listdir(one) for one in inner}
    inner = [one for one in inner if len(files[one]) <= _MOST_TABLES]
    places = [folder, *(one for one in inner if not any(name.endswith((".json", ".xml")) for name in files[one]))]
    return next(filter(None, (_only_table(one, filename_column, split) for one in places)), None)


def _only_table(folder, filename_column, split):
    said = filename_column or TableOptions().over_file(folder / SIDE_FILE).image
    of_splits = [name for other in SPLITS for name in ATTRIBUTES.names(other)]
    tables = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
    tables = [file for file in tables if not is_of_system(file.name) and not is_reviews(file)]
    tables = [file for file in tables if "submission" not in file.stem.lower()] or tables  # what Kaggle takes
    tables = [file for file in tables if not any(fnmatch.fnmatchcase(file.name, name) for name in of_splits)]
    tables = list(dict.fromkeys(parts_of(file)[0] for file in tables if not is_split_file(file)))
    tables = list({file.stem: file for file in reversed(tables)}.values())[::-1]  # of one name a .csv, and not its .txt
    others = (
        [file for file in tables if said in header_of(file)]
        or [file for file in tables if any(map(names_images, header_of(file)))]
        or [file for file in tables if {"id", "name"} & set(map(str.lower, header_of(file)))]
        or [file for file in tables if _has_photos(file)]
    )
    for is_beside in (_holds_places, lambda file: "class 0" in header_of(file)):  # which has no header
        others = [file for file in others if not is_beside(file)] or others
    words = {file: split_in(file.stem) for file in others}
    if len(others) > 1 and split and "train" in words.values():
        others = [file for file in others if words[file] == split]
    elif split != "test":
        others = [file for file in others if words[file] != "test"] or others
    if filename_column and tables and not any(filename_column in header_of(file) for file in tables):
        found = "; ".join(f"{file.name} has {few_names(header_of(file))}" for file in tables[:3])
        raise InputError(f"--filename_column: no column {filename_column!r} in {folder}: {found}")
    if len(others) > 1:
        raise InputError(
            f"{folder}: found {few([file.name for file in others])}, expected one table with a column of image names "
            "or the path of the one to read"
        )
    return others[0] if others else None


def _holds_places(file):
    """Whether a table holds boxes or points, such as those beside CelebA's and NIH's labels."""
    names = [name for name in header_of(file) if not names_images(name)]
    return are_boxes(names) or all(map(is_measure, names))


def _has_photos(file):
    """Whether a cell of the first row names a photo."""
    header, first = head_of(file)
    has = ATTRIBUTES.photos(file, "train", own=own_folders(file, "train")).has
    return len(header) > 1 and any(
        is_image_name(cell) or ((integer(cell) is None or len(cell) > 2) and has(cell)) for cell in first
    )


def training_file_of(path: Path, file: Path) -> Path:
    """The table that the classes of one at `path`, a folder or the file itself, come from where no run gives them."""
    own = split_of_table(file)
    if own in (None, "train"):
        return file
    if path.is_dir():
        return split_file(path, "train") or file
    if file.suffix == SUFFIX and not _in_folder_of_split(file):
        return split_file(file.parent, "train") or file
    if _in_folder_of_split(file):
        sibling = file.parent.parent / "train" / file.name
    else:
        labels = "_labels" if file.stem.endswith("_labels") else ""
        stem = file.stem.removesuffix("_labels").rpartition("_")[0]
        sibling = file.with_name(f"{stem}_train{labels}.csv" if stem else f"train{labels}.csv")
    return sibling if sibling.is_file() else file


def own_folders(file: Path, split: str | None) -> list[Path]:
    """The folders of `python -m csl prepare attributes`; the table's own first where there is no other."""
    folder = Path(file).parent
    split = split or split_of_table(file) or "train"
    own = []
    if file.stem.startswith("attributes_") and split_of_table(file):
        own = [folder / "images_augmented" / "train" / "images"] if split == "train" else []
        own.append(folder / "images_split" / split / "images")
    others = [one for one in (*own, *ATTRIBUTES.image_folders(file, split)) if one != folder]
    return own if any(one.is_dir() for one in others) else [folder]
