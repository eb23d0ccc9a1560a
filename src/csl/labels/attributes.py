"""Attributes in a CSV: one row per image, one column per attribute, of which any cell may be unknown.

A CSV of `filename` and one column per class of 1, 0, -1 or nothing is the same thing: all its columns are yes/no.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.layouts import ATTRIBUTES
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import SPLITS, contents, existing, first_row, image_folder, known_split, split_name
from csl.labels.table import FILENAME, SPLIT, WEIGHT, Table

YES_NO, INTEGER, STRING = "yes/no", "integer", "string"

_INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_SMALL = 50  # values that any column may have, however few its rows
_SPARSE = 4  # integers that leave out more than three of four values are names, not counts
_FREE_TEXT = 0.25  # distinct values per known row above which a column is no attribute


@dataclass(frozen=True)
class Column:
    """One attribute column.

    Attributes:
        name: as in the CSV's header.
        kind: "yes/no", "integer" or "string".
        values: the text of each value, in the order of its classes; ("0", "1") for yes/no, which is one class.
    """

    name: str
    kind: str
    values: tuple[str, ...]

    @property
    def classes(self) -> list[str]:
        """Names of its classes."""
        if self.kind == YES_NO:
            return [self.name]
        if self.kind == INTEGER:
            return [f"{title(self.name)} {value}" for value in self.values]
        return [f"{self.name}:{value}" for value in self.values]

    def labels(self, table: Table) -> np.ndarray:
        """Labels int8 [N, len(classes)] of the table's rows: one positive and the rest negative, -1 where unknown.

        Raises:
            InputError: a known cell is none of the values; the message names its line.
        """
        place = {value: position for position, value in enumerate(self.values)}
        codes, texts = table.known(self.name)
        of_text = [place.get(text, place.get(_canonical(text), -1)) for text in texts]
        if -1 in of_text:
            code = of_text.index(-1)
            where = table.at(np.argmax(codes == code), self.name)
            raise InputError(f"{where}: found {texts[code]!r}, expected {self._expected()}")
        positions = np.array([*of_text, -1])[codes]  # [N]; the code -1 takes the last

        known = np.flatnonzero(positions >= 0)
        if self.kind == YES_NO:
            return positions[:, None].astype(np.int8)  # 1, 0 and -1 as they are
        labels = np.full((len(codes), len(self.values)), UNANNOTATED, dtype=np.int8)
        labels[known] = NEGATIVE
        labels[known, positions[known]] = POSITIVE
        return labels

    def _expected(self):
        if self.kind == YES_NO:
            known = "0 or 1"
        elif self.kind == INTEGER:
            known = f"0 to {len(self.values) - 1}"
        else:
            more = f" and {len(self.values) - 5} more" if len(self.values) > 5 else ""
            known = f"one of {', '.join(map(repr, self.values[:5]))}{more}"
        return f"{known} (the values of the training file), or #N/A where it is not known"


def title(column: str) -> str:
    """`sleeve_length` -> `Sleeve Length`, the form in which the classes of integer columns are named."""
    return column.replace("_", " ").title()


def column_of(table: Table, name: str, size: int | None = None) -> Column:
    """The kind and the values of an attribute column, from all rows of a table.

    With a `size` it is the integers 0 to size - 1. Otherwise: known values that are only 0 and 1 (or none at all)
    make it yes/no; integers up to M make M + 1 classes, unless they are few and far between, in which case each
    that occurs is a name; anything else is a string column, its values by falling frequency, then by name.

    Raises:
        InputError: a value outside `size`, an integer below -1, or free text (more than 50 values that are more than
            a quarter of the known rows).
    """
    codes, texts = table.known(name)
    numbers = [_integer(text) for text in texts]

    def where(position):  # texts stand in order of appearance: the first wrong one is on the first wrong line
        return table.at(np.argmax(codes == position), name)

    if size is not None:
        for position, number in enumerate(numbers):
            if number is None or not 0 <= number < size:
                raise InputError(
                    f"{where(position)}: found {texts[position]!r}, expected 0 to {size - 1} "
                    f"(--attributes {name}:{size}), or #N/A where it is not known"
                )
        return Column(name, INTEGER, tuple(map(str, range(size))))

    integers = None not in numbers
    if integers and numbers and min(numbers) < 0:
        position = next(k for k, number in enumerate(numbers) if number < 0)
        raise InputError(
            f"{where(position)}: found {texts[position]!r}, expected 0 or more, or #N/A where it is not known"
        )
    if integers and set(numbers) <= {0, 1}:
        return Column(name, YES_NO, ("0", "1"))

    values = [str(number) for number in numbers] if integers else texts
    frequency = dict.fromkeys(values, 0)
    for value, count in zip(values, np.bincount(codes[codes >= 0], minlength=len(values)), strict=True):
        frequency[value] += int(count)  # "3" and "3.0" are one value
    known = sum(frequency.values())
    if len(frequency) > _SMALL and len(frequency) > _FREE_TEXT * known:
        raise InputError(
            f"{table.path}: column {name!r} looks like free text ({len(frequency)} different values in {known} known "
            f"rows), expected an attribute; leave it out with --ignore_columns {name}"
        )
    if integers:
        num_values = max(numbers) + 1
        if num_values <= max(_SMALL, _SPARSE * len(frequency)):
            return Column(name, INTEGER, tuple(map(str, range(num_values))))
    return Column(name, STRING, tuple(sorted(frequency, key=lambda value: (-frequency[value], value))))


def columns_of_classes(classes: Sequence[str], groups: Mapping[str, slice]) -> list[Column]:
    """The columns of a training run, from its class names and the slice of each attribute: the inverse of `classes`.

    Raises:
        InputError: the groups do not cover the classes, or a class is not named as one of its column is.
    """
    columns, end = [], 0
    for name, group in sorted(groups.items(), key=lambda item: item[1].start):
        if group.start != end or not group.start < group.stop <= len(classes):
            raise InputError(
                f"groups: {name!r} has classes {group.start} to {group.stop - 1} of {len(classes)}, expected {end} on"
            )
        end = group.stop
        columns.append(_column_named(name, list(classes[group])))
    if end != len(classes):
        raise InputError(f"groups: they end at class {end}, expected all {len(classes)} classes in one")
    return columns


def _column_named(name, classes):
    column = Column(name, INTEGER, tuple(map(str, range(len(classes)))))
    if classes == [name]:
        return Column(name, YES_NO, ("0", "1"))
    if classes == column.classes:
        return column
    prefix = f"{name}:"
    for class_name in classes:
        if not class_name.startswith(prefix):
            raise InputError(
                f"groups: class {class_name!r} of attribute {name!r} has another name than expected: "
                f"{name!r}, '{title(name)} 0' or '{prefix}value'"
            )
    return Column(name, STRING, tuple(class_name.removeprefix(prefix) for class_name in classes))


def _integer(text):
    """The integer that a cell holds ("3", "3.0"), or None."""
    return int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else None


def _canonical(text):
    number = _integer(text)
    return text if number is None else str(number)


def parse_attributes(text: str) -> dict[str, int]:
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


def read_attributes(
    path: str | Path,
    images: str | Path | None = None,
    split: str | None = None,
    attributes: Mapping[str, int] | None = None,
    ignore_columns: Sequence[str] | str = (),
    classes: Sequence[str] | None = None,
    groups: Mapping[str, slice] | None = None,
) -> Annotations:
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
        classes: class names of a training run to read the file against; other columns are ignored.
        groups: {column: slice} of that run; without it every class is a yes/no column.

    Returns:
        Annotations in the order of the file, with `groups` for every column (slices of length 1 for yes/no), the rows
        as written in `table` and, where the file has them, `weights`.

    Raises:
        InputError: the file does not fit; the message names file, line and column.
    """
    path = existing(path)
    split = known_split(split)
    if isinstance(ignore_columns, str):
        ignore_columns = [name.strip() for name in ignore_columns.split(",")]

    file = _split_file(path, split or "train") if path.is_dir() else path
    if file is None:
        split = split or "train"
        raise InputError(
            f"{path}: no CSV of the {split} split, expected attributes_{split}.csv, {split}.csv, attributes.csv or one CSV "
            f"with a {FILENAME!r} column; found {contents(path)}"
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


def recognise(path: Path) -> bool:
    """Whether the path is a CSV named `attributes...` or with a `filename` column, or a folder with such a file."""
    files = [_split_file(path, split) for split in SPLITS] if path.is_dir() else [path]
    return any(file is not None and ATTRIBUTES.is_label_file(file) for file in files)


def _infer(table, sizes, ignored):
    for name in ignored:
        if name not in table.columns:
            raise InputError(f"--ignore_columns: no column {name!r} in {table.path}, found {', '.join(table.columns)}")
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
    """Check that --attributes agrees with the run whose classes are used."""
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


def _split_file(folder, split):
    """The CSV of a folder to read for this split, or None."""
    if (file := ATTRIBUTES.find(folder, split)) is not None:
        return file
    of_splits = {name for other in SPLITS for name in ATTRIBUTES.names(other)}
    others = [
        file for file in sorted(folder.glob("*.csv")) if file.name not in of_splits and FILENAME in first_row(file)
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
    candidates = ATTRIBUTES.image_folders(file, split)
    if file.stem.startswith("attributes_") and _split_of(file):
        augmented = [folder / "images_augmented" / "train" / "images"] if split == "train" else []
        candidates = [*augmented, prepared, *candidates]
    default = folder / "images" if (folder / "images").is_dir() else folder
    return image_folder(candidates, names) or default
