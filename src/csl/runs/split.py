"""The split that a run has made of data without one: `split.csv` in its folder, which says the split of each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.labels.options import DataOptions
from csl.labels.read import read_split, read_truth
from csl.labels.split_column import split_words
from csl.labels.table import SPLIT, Table
from csl.labels.trust import escape_table
from csl.machine.files import replacing

_IMAGE = "image"


def write_split(file: Path, parts: Mapping[str, Annotations]) -> None:
    """Write which image is in which split, `{split: annotations}`."""
    rows = [(name, split) for split, part in parts.items() for name in part.names]
    with replacing(file) as temporary:
        escape_table(pd.DataFrame(rows, columns=[_IMAGE, SPLIT])).to_csv(temporary, index=False)


def split_rows(file: Path, annotations: Annotations) -> dict[str, np.ndarray]:
    """{split: rows} of the annotations by a `split.csv`, int64 in their order; {} where they have none of its images.

    Raises:
        InputError: the file is none, or has only a part of the images, or they have only a part of its.
    """
    table = Table.read(file)
    if [*table.columns] != [_IMAGE, SPLIT]:
        raise InputError(f"{file}, line 1: found {','.join(table.columns)[:80]}, expected {_IMAGE},{SPLIT}")
    of_name = dict(zip(table.frame[_IMAGE], split_words(table, SPLIT), strict=True))
    names = annotations.names
    found = np.array([of_name.get(name, "") for name in names], dtype=object)
    strangers, missing = int((found == "").sum()), len(of_name.keys() - set(names))
    if strangers == len(names):
        return {}
    if strangers or missing:
        raise InputError(
            f"{annotations.source}: {strangers:,} images are not in {file} and {missing:,} of those are not here; expected "
            "the data that the run was started with"
        )
    return {split: np.flatnonzero(found == split) for split in ("train", "val")}


def parts_by(
    rows: Mapping[str, np.ndarray], annotations: Annotations, options: DataOptions
) -> dict[str, tuple[Annotations, LabelMatrix | None]]:
    """{split: its annotations, and their full labels if these are known}, of all images and the rows of each split."""
    truth = read_truth(options, None, annotations)
    return {
        split: (annotations.select(some), None if truth is None else truth.select(some)) for split, some in rows.items()
    }


def read_by_split(
    options: DataOptions,
    split: str,
    classes: Sequence[str] | None,
    groups: Mapping[str, range] | None,
    file: Path,
) -> tuple[Annotations, LabelMatrix | None]:
    """One split of annotations and their full labels, if these are known, by the `split.csv` of a run if there is one.

    Args:
        options, classes, groups: as `read_split`.
        split: "train", "val" or "test".
        file: `split.csv`. It says nothing of test images, of other data, and where it is not there.

    Raises:
        InputError: as `read_split` and `split_rows`.
    """
    if split != "test" and file.is_file():
        everything = read_split(options, "train", classes, groups)
        if rows := split_rows(file, everything):
            return parts_by(rows, everything, options)[split]
    part = read_split(options, split, classes, groups)
    return part, read_truth(options, split, part)
