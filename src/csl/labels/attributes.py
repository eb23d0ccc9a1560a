"""Attributes in a CSV: one row per image, one column per attribute, of which any cell may be unknown.

A CSV of `filename` and one column per class of 1, 0, -1 or nothing is the same thing: all its columns are yes/no.
"""

import os
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.columns import INTEGER, YES_NO, column_of, columns_of_classes
from csl.labels.matrix import UNANNOTATED, LabelMatrix
from csl.labels.paths import SPELLINGS, SPLITS, contents, existing, image_folder, known_split, split_name
from csl.labels.table import FILENAME, SPLIT, WEIGHT, Table, header_of


def parse_attributes(text):
    """Sizes of attribute columns: "neck:7,sleeve_length:4" -> {"neck": 7, "sleeve_length": 4}.

    Raises:
        InputError: a part that is not NAME:SIZE with a size of at least 1, or a name given twice.
    """
    sizes = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.rpartition(":"))
        if not name or not (size.isascii() and size.isdigit()) or int(size) < 1:
            raise InputError(f"--attributes: found {part.strip()!r}, expected NAME:SIZE as in neck:7,sleeve_length:4")
        if name in sizes:
            raise InputError(f"--attributes: found {name!r} twice, expected each column once")
        sizes[name] = int(size)
    return sizes


def read_attributes(path, images=None, split=None, attributes=None, ignore_columns=(), classes=None, groups=None):
    """Read a CSV of attributes.

    Every column but `filename`, `split`, `weight` and those ignored is an attribute. Known values that are only 0 and 1
    make a yes/no column, one class of its name. Integers up to M make the classes `Neck 0` to `Neck M`, strings the
    classes `colour:Red` and so on by falling frequency, then by name (integers that leave out more than three in four
    of their values count as strings): the known value is positive and the others of its group are negative. `#N/A`,
    `N/A`, `NA`, `nan`, -1 and the empty cell are unknown and leave the whole group un-annotated.

    `weight` is how often an image is to be drawn in training: positive numbers of any scale, which only count against
    each other. (`attributes` may say that it is an attribute after all.)

    The classes come from all rows of the file, whatever their split, so that the splits agree; where each split has
    its own file, they come from the training file.

    Args:
        path: a CSV, or a folder in which the first of these that exists is read: `attributes_{split}.csv`,
            `{split}.csv`, `attributes.csv`, or the only other CSV with a `filename` column.
        images: the folder that `filename` is relative to. By default the first that holds the first listed image of
            (for `attributes_{split}.csv`) `images_augmented/train/images` (training split only) and
            `images_split/{split}/images`, then `images`, `{split}`, `images_split/{split}/images`, and the CSV's own.
        split: "train", "val" or "test": the rows with that word ("valid" and "validation" are val) in the `split`
            column, or all rows of a file of that split. A file that says nothing about splits is for training. None
            reads every row, in a folder with one file per split those of the training file.
        attributes: {column: size} of integer columns whose size the data need not show (`parse_attributes`).
        ignore_columns: names of columns that are no attributes, a sequence or one comma-separated string.
        classes: class names of a training run to read the file against; columns unknown to it are passed over.
        groups: {column: slice} of that run; without it every class is a yes/no column.

    Returns:
        Annotations in the order of the file, with `groups` for every column (slices of length 1 for yes/no), the rows
        as written in `table` and, where the file has them, `weights`.

    Raises:
        InputError: what is found does not fit; the message names file, line and column.
    """
    path = existing(path)
    split = known_split(split)
    if isinstance(ignore_columns, str):
        ignore_columns = [name.strip() for name in ignore_columns.split(",")]

    file = _split_file(path, split or "train") if path.is_dir() else path
    if file is None:
        raise InputError(
            f"{path}: no CSV of the {split or 'train'} split, expected {_looked_for(split or 'train')}; "
            f"found {contents(path)}"
        )
    table = Table.read(file)
    if classes is not None:
        columns = columns_of_classes(classes, groups or {name: slice(k, k + 1) for k, name in enumerate(classes)})
        _check_sizes(columns, attributes or {})
    else:
        training_file = _training_file(path, file)
        training_table = table if training_file == file else Table.read(training_file)
        columns = _infer(training_table, attributes or {}, ignore_columns)
    for column in columns:
        if column.name not in table.columns:
            raise InputError(f"{file}, line 1: no column {column.name!r}, expected it as in the training file")

    table = table.select(_rows(table, split))
    names = table.text(FILENAME)
    folder = images if images is not None else _image_folder(file, split, names)
    weighted = WEIGHT in table.columns and WEIGHT not in ignore_columns and WEIGHT not in {c.name for c in columns}
    return Annotations(
        images=[os.path.join(folder, name) for name in names],
        labels=LabelMatrix.from_dense(
            np.concatenate([column.labels(table) for column in columns], axis=1), UNANNOTATED
        ),
        classes=[name for column in columns for name in column.classes],
        groups=_groups(columns),
        source=str(file),
        folder=os.fspath(folder),
        table=table.frame,
        weights=table.weights() if weighted else None,
    )


def recognise(path):
    """Whether this is a CSV named `attributes...` or with a `filename` column, or a folder with one for some split.

    Only headers are read. The name alone is enough, so that the reader says what is wrong with the file.
    """
    files = [_split_file(path, split) for split in SPLITS] if path.is_dir() else [path]
    return any(
        file.suffix.lower() == ".csv" and (file.stem.startswith("attributes") or FILENAME in header_of(file))
        for file in files
        if file is not None
    )


def _infer(table, sizes, ignored):
    no_attributes = {FILENAME, SPLIT, WEIGHT, *ignored} - ({WEIGHT} & sizes.keys())
    names = [name for name in table.columns if name not in no_attributes]
    for name in sizes:
        if name not in names:
            raise InputError(f"--attributes: no column {name!r} in {table.path}, found {', '.join(names)}")
    if not names:
        raise InputError(f"{table.path}, line 1: found no attribute among {', '.join(table.columns)}, expected columns")
    if not len(table):
        raise InputError(f"{table.path}: found a header without rows, expected one row per image")
    columns = [column_of(table, name, sizes.get(name)) for name in names]
    owner = {}
    for column in columns:
        for name in column.classes:
            if owner.setdefault(name, column.name) != column.name:
                raise InputError(
                    f"{table.path}, line 1: columns {owner[name]!r} and {column.name!r} both have a class {name!r}, "
                    "expected different names"
                )
    return columns


def _check_sizes(columns, sizes):
    """--attributes must agree with the run whose classes are used."""
    columns = {column.name: column for column in columns}
    for name, size in sizes.items():
        column = columns.get(name)
        if column is None or column.kind != INTEGER or len(column.values) != size:
            found = "no such attribute" if column is None else f"{column.kind} with classes {column.classes}"
            raise InputError(f"--attributes: found {name}:{size}, expected what the run was trained with: {found}")


def _groups(columns):
    groups, start = {}, 0
    for column in columns:
        stop = start + (1 if column.kind == YES_NO else len(column.values))
        groups[column.name] = slice(start, stop)
        start = stop
    return groups


def _rows(table, split):
    """Row numbers of the split, int64."""
    splits = table.splits()
    own = _split_of(table.path)
    if split is None or (splits is None and split == (own or "train")):
        rows = np.arange(len(table))
        found = "a header without rows"
    elif splits is None:
        raise InputError(
            f"{table.path}: no rows of the {split} split, as there is no {SPLIT!r} column; "
            f"expected that column or a file attributes_{split}.csv (`python -m csl prepare attributes` makes it)"
        )
    else:
        rows = np.flatnonzero(splits == split)
        found = f"{SPLIT!r} with only {', '.join(sorted(set(splits))) or 'a header'}"
    if not len(rows):
        raise InputError(f"{table.path}: no rows of the {split or 'train'} split, found {found}")
    return rows


def _split_of(file):
    """The split that a file is of by its name (`attributes_val.csv`, `val.csv`), or None."""
    return split_name(file.stem.rpartition("_")[2])


def _named_after(split):
    """File names of one split, in the order in which they are looked for."""
    return [f"{stem}{spelling}.csv" for stem in ("attributes_", "") for spelling in SPELLINGS[split]]


def _looked_for(split):
    return f"attributes_{split}.csv, {split}.csv, attributes.csv or one CSV with a {FILENAME!r} column"


def _split_file(folder, split):
    """The CSV of a folder to read for this split, or None."""
    for name in [*_named_after(split), "attributes.csv"]:
        if (folder / name).is_file():
            return folder / name
    others = [
        file
        for file in sorted(folder.glob("*.csv"))
        if file.name not in {name for other in SPLITS for name in _named_after(other)} and FILENAME in header_of(file)
    ]
    if len(others) > 1:
        raise InputError(
            f"{folder}: found {', '.join(file.name for file in others)}, expected one CSV with a {FILENAME!r} column "
            "or the path of the one to read"
        )
    return others[0] if others else None


def _training_file(path, file):
    """The file that the classes come from when no run gives them."""
    own = _split_of(file)
    if own in (None, "train"):
        return file
    if path.is_dir():
        return _split_file(path, "train") or file
    stem = file.stem.rpartition("_")[0]
    sibling = file.with_name(f"{stem}_train.csv" if stem else "train.csv")
    return sibling if sibling.is_file() else file


def _image_folder(file, split, names):
    folder = Path(file).parent
    split = split or _split_of(file) or "train"
    prepared = folder / "images_split" / split / "images"
    candidates = [folder / "images", folder / split, prepared, folder]
    if file.stem.startswith("attributes_") and _split_of(file):
        augmented = [folder / "images_augmented" / "train" / "images"] if split == "train" else []
        candidates = [*augmented, prepared, *candidates]
    default = folder / "images" if (folder / "images").is_dir() else folder
    return image_folder(candidates, names) or default
