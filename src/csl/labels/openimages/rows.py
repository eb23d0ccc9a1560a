"""Rows of the two forms of OpenImages labels, as batches of labels."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from csl.errors import InputError
from csl.labels.layouts import VERIFIED
from csl.labels.openimages.classes import OUTSIDE, UNKNOWN
from csl.labels.openimages.entries import Batch
from csl.labels.openimages.stream import FEW_STRINGS, NAMED_ROWS, STRINGS, CsvStream, Problems, lookup
from csl.labels.paths import first_row, split_name

_LIST = r"^\s*(\[.*\]|nan|NaN)?\s*$"
_NOT_A_NAME = r"[\[\]'\"\s]|^\s*(?:nan|NaN)\s*$"


def verified_labels(file: Path, class_id: Callable[[str], int], problems: Problems) -> Iterator[Batch]:
    """Labels of an official CSV `ImageID,Source,LabelName,Confidence`: confidence 1 is positive, 0 negative.

    Args:
        file: one of the `...annotations-human-imagelabels.csv`, in any order; fastest with the rows of an image
            together, as published; or one of the `...annotations-bbox.csv`, whose boxes all have confidence 1.
        class_id: the number of a MID, OUTSIDE or UNKNOWN.
        problems: gets the rows that are left out: another confidence, an unknown class.

    Raises:
        InputError: a column is missing.
    """
    header = first_row(file)
    if not set(VERIFIED) <= set(header):
        raise InputError(
            f"{file}, line 1: found {','.join(header)[:200]!r}, expected {', '.join(VERIFIED)} among the columns"
        )
    columns = {"ImageID": STRINGS, "LabelName": FEW_STRINGS, "Confidence": FEW_STRINGS}
    for rows, lines in CsvStream(file, columns, problems):
        images = rows.column("ImageID")
        classes = lookup(rows.column("LabelName"), class_id)
        values = lookup(rows.column("Confidence"), _confidence)
        nameless = _is(images, "")
        blank = (values == _BLANK) & (classes == UNKNOWN) & nameless
        wrong_value = (values < 0) & ~nameless
        unknown = (classes == UNKNOWN) & ~wrong_value & ~nameless

        _report(problems, "confidences neither 0 nor 1", wrong_value, lines, rows.column("Confidence"), _NOT_0_OR_1)
        _report(problems, "of an unknown class", unknown, lines, rows.column("LabelName"), _NO_CLASS)
        _report(problems, "without an image", nameless & ~blank, lines, images, "image {}, expected an ID")
        new = np.ones(len(images), dtype=bool)  # an image's rows usually stand together
        if len(images):
            new[1:] = _as_numpy(pc.not_equal(images[1:], images[:-1]))
        listed = (values >= 0) & (classes >= 0) & ~nameless
        yield Batch(
            images.filter(pa.array(new & ~nameless)),
            (np.cumsum(new & ~nameless, dtype=np.int32) - 1)[listed],
            classes[listed],
            values[listed].astype(np.int8),
            lines[listed],
        )


class CslColumns(NamedTuple):
    """Columns of a `data.csv`, by name or (without a header) as f0, f1 and so on.

    Attributes:
        path, positives, split: there is always one.
        negatives: None in the form of three columns.
        header: whether the first line names the columns.
    """

    path: str
    positives: str
    split: str
    negatives: str | None
    header: bool


def csl_columns(file: Path) -> CslColumns | None:
    """Which columns of a `data.csv` are which: by name, else the first two or three and the last; None for no such CSV."""
    cells = first_row(file)
    if {"filepath", "label", "split_name"} <= set(cells):
        return CslColumns("filepath", "label", "split_name", "label_neg" if "label_neg" in cells else None, True)
    header = bool(cells) and split_name(cells[-1]) is None
    cells = cells if header else [f"f{position}" for position in range(len(cells))]
    if len(cells) < 3 or len(set(cells)) < len(cells):
        return None
    return CslColumns(cells[0], cells[1], cells[-1], cells[2] if len(cells) > 3 else None, header)


def listed_labels(
    file: Path, split: str, class_id: Callable[[str], int], problems: Problems, splits_found: set[str]
) -> Iterator[Batch]:
    """Labels of one split of CSL's `data.csv`: a path, Python lists of positive and negative MIDs, the split's name.

    Args:
        file: the CSV.
        split: "train", "val" or "test".
        class_id: the number of a MID, OUTSIDE or UNKNOWN.
        problems: gets cells that are no list, names that are no split, and unknown classes.
        splits_found: gets the splits that any row is of.

    Raises:
        InputError: other columns.
    """
    columns = csl_columns(file)
    if columns is None:
        raise InputError(f"{file}, line 1: found {first_row(file)}, expected filepath, label, label_neg, split_name")
    types = dict.fromkeys(filter(None, columns[:4]), STRINGS) | {columns.split: FEW_STRINGS}
    names = {}

    def split_number(text):
        name = split_name(text)
        return names.setdefault(name, len(names)) if name else -1

    for rows, lines in CsvStream(file, types, problems, columns.header):
        splits = lookup(rows.column(columns.split), split_number)
        splits_found.update(names)
        no_split = (splits < 0) & ~_is(rows.column(columns.path), "")  # a blank line has no path
        _report(problems, "rows of no split", no_split, lines, rows.column(columns.split), "split {}, expected a split")
        ours = splits == names.get(split, -2)
        rows, lines = rows.filter(pa.array(ours)), lines[ours]
        images = rows.column(columns.path)
        parts = []
        for value, column in ((1, columns.positives), (0, columns.negatives)):
            if column is not None:
                row, classes = _list_cells(rows.column(column), lines, class_id, problems)
                parts.append((row, classes, np.full(len(row), value, np.int8)))
        row, classes, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        yield Batch(images, row, classes, values, lines[row])


def _list_cells(cells, lines, class_id, problems):
    """Rows int32 [n] and class numbers int32 [n] of cells that are Python lists of MIDs."""
    is_list = _as_numpy(pc.match_substring_regex(cells, _LIST))
    _report(problems, "cells that are no list", ~is_list, lines, cells, "{}, expected a list of MIDs")
    cells = pc.if_else(pa.array(is_list), cells, "")
    parts = pc.split_pattern(pc.replace_substring_regex(cells, _NOT_A_NAME, ""), ",")
    keys = parts.flatten().dictionary_encode()
    rows = np.repeat(np.arange(len(cells), dtype=np.int32), np.diff(np.asarray(parts.offsets)))
    classes = lookup(keys, lambda key: class_id(key) if key else OUTSIDE)  # an empty cell has one empty part
    _report(problems, "of an unknown class", classes == UNKNOWN, lines[rows], keys, _NO_CLASS)
    listed = classes >= 0
    return rows[listed], classes[listed]


_NOT_0_OR_1 = "confidence {}, expected 0 or 1"
_NO_CLASS = "class {}, expected a MID of the class list"
_BLANK = -2
_NUMBER = re.compile(r"[+-]?[01](\.0*)?")


def _confidence(text):
    text = text.strip()
    if not text:
        return _BLANK
    return int(float(text)) if _NUMBER.fullmatch(text) and float(text) in (0, 1) else -1


def _report(problems, kind, wrong, lines, column, found):
    """Add the rows where `wrong`; `found` is the message with a place for the cell."""
    if wrong.any():
        first = np.flatnonzero(wrong)[:NAMED_ROWS]
        cells = [column[int(row)].as_py() for row in first]
        shown = [repr(cell if len(cell) <= 40 else f"{cell[:40]}...") for cell in cells]
        rows = [(int(line), found.format(cell)) for line, cell in zip(lines[first], shown, strict=True)]
        problems.add(kind, wrong.sum(), rows)


def _is(strings, text):
    return _as_numpy(pc.equal(strings, text))


def _as_numpy(booleans):
    return booleans.to_numpy(zero_copy_only=False).astype(bool)
