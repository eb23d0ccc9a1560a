"""Files beside a table that say which of its images is of which split: lists (`train.txt`, NIH's `test_list.txt`), and a table
of images and splits (CelebA's `list_eval_partition.csv`)."""

import re
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.dialect import SUFFIXES, head_of
from csl.labels.matching import few
from csl.labels.paths import read_text, split_name
from csl.labels.photos import clean_name, without_extension
from csl.labels.split_column import SPLIT_NAMES, split_of_cell
from csl.labels.table import SPLIT, Table
from csl.machine.image_formats import is_image_name

_FOLDERS = (".", "../Eval", "../splits", "splits", "Eval", "ImageSets/Main")
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")


def is_split_file(file: Path) -> bool:
    """Whether a file lists the images of a split, or the splits of images."""
    if file.suffix.lower() not in SUFFIXES:
        return False
    words = set(map(str.lower, _WORD.findall(file.stem)))
    if _is_list(file):
        return bool(_splits(words))
    header, first = head_of(file)
    if len(header) != 2 or len(first) != 2:
        return False
    column = "partition" if words & SPLIT_NAMES and header[1] == "class 0" else header[1]
    return re.sub("[^a-z]", "", column.lower()) in SPLIT_NAMES and split_of_cell(column, first[1]) is not None


def _is_list(file):
    """Whether a file has the name of an image in each line, and nothing else."""
    if file.suffix.lower() not in (".txt", ".csv"):
        return False
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        lines = [line.strip() for line, _ in zip(stream, range(3), strict=False)]
    return any(lines) and all(is_image_name(line) or not re.search(r"[\s,;]", line) for line in lines)


def _splits(words):
    return {split_name(word) for word in words} - {None}


def with_split(table: Table, image: str) -> Table:
    """The table with a column `split` as the files beside it say; as it is where there are none.

    Images that no file names are left out, and counted.

    Raises:
        InputError: an image is named in the files of two splits, or a file cannot be read.
    """
    folders = [table.path.parent / name for name in _FOLDERS]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file != table.path]
    files = list({file.resolve(): file for file in files if file.is_file() and is_split_file(file)}.values())
    said: dict[str, str] = {}
    for file in sorted(files, key=lambda one: len(_splits(_WORD.findall(one.stem.lower())))):  # trainval.txt last
        of_several = len(_splits(_WORD.findall(file.stem.lower()))) > 1
        for name, split in _said(file):
            if said.setdefault(_key(name), split) != split and not of_several:
                raise InputError(f"{file}: {name!r} is of the split {split}, and of {said[_key(name)]} in another file")
    splits = np.array([said.get(_key(name), "") for name in table.text(image)], dtype=object)
    if not (splits != "").any():
        note = f"{few([file.name for file in files])} names no image of {table.path.name}, and says no split"
        return table.changed(table.frame, note) if files else table
    found = table.select(np.flatnonzero(splits != ""))
    note = f"the split is that of {few([file.name for file in files])}"
    if left_out := len(table) - len(found):
        note += f"; {left_out:,} rows that they do not name are left out"
    return found.changed(found.frame.assign(**{SPLIT: splits[splits != ""]}), note)


def _said(file):
    """(name of an image, split) of each line."""
    if _is_list(file):
        found = _splits(_WORD.findall(file.stem.lower()))
        split = "train" if "train" in found else found.pop()
        lines = [line.strip() for line in read_text(file, "a list of images").splitlines() if line.strip()]
        has_header = file.suffix.lower() == ".csv" and not is_image_name(lines[0])
        return [(line, split) for line in lines[has_header:]]
    table = Table.read(file)
    name, column = table.columns
    header = "partition" if column == "class 0" else column
    cells = zip(table.text(name), table.text(column), strict=True)
    return [(one, split_of_cell(header, cell) or "") for one, cell in cells]


def _key(name):
    return without_extension(clean_name(name)).rpartition("/")[2]
