"""Suggestions as files: a table, or what the importer of another program takes."""

from pathlib import Path

import pandas as pd

from csl.labels import Annotations
from csl.labels.trust import escape_table
from csl.machine.files import replacing


def named(table: pd.DataFrame, annotations: Annotations) -> pd.DataFrame:
    """The table with names of images, relative to the data folder, and of classes for their numbers."""
    names = annotations.select(table["image"].to_numpy()).names
    return table.assign(image=names, **{"class": [annotations.classes[c] for c in table["class"]]})


def write_csv(file: Path, table: pd.DataFrame, annotations: Annotations, groups: dict[str, slice] | None) -> None:
    """A row for each suggestion, the first to be asked first."""
    with replacing(file) as temporary:
        escape_table(named(table, annotations)).to_csv(temporary, index=False, float_format="%.6g")


def write_parquet(file: Path, table: pd.DataFrame, annotations: Annotations, groups: dict[str, slice] | None) -> None:
    """The same as `write_csv`, texts as they are."""
    with replacing(file) as temporary:
        named(table, annotations).to_parquet(temporary, index=False)


WRITERS = {"csv": write_csv, "parquet": write_parquet}
