"""The photos that `csl prepare attributes` prepares: the table, the images that it names, and which of these are the same."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from csl.data.checking import report_bad_images
from csl.data.images import load_rgb
from csl.errors import InputError, NoSplit
from csl.labels import UNANNOTATED, Annotations, LabelMatrix, read_attributes
from csl.labels.annotations import ColumnSummary
from csl.labels.attributes import as_read
from csl.labels.layouts import ATTRIBUTES
from csl.labels.paths import SPLITS, contents, split_in
from csl.labels.photos import Photos
from csl.labels.split_column import split_words
from csl.labels.table import SPLIT, Table
from csl.labels.table_files import only_table, training_file_of
from csl.labels.table_options import RECORD, TableOptions
from csl.labels.trust import require_inside
from csl.machine.files import parse_json
from csl.machine.processes import parallel_map

Images = str | Path | Sequence[str | Path] | None
"""The folder or folders of the images."""

SOURCES = (("attributes_cleaned.csv", "images_cleaned/images"), ("attributes.csv", "images"))
"""The CSV and its image folder, in the fashion fork's layout and in ours."""


@dataclass(frozen=True)
class TablePhotos:
    """Photos and their table.

    Attributes:
        annotations: of the N images.
        table: all R rows.
        image_of_row: int64 [R], in 0 to N - 1.
    """

    annotations: Annotations
    table: Table
    image_of_row: np.ndarray

    @property
    def names(self) -> list[str]:
        """Names of the images, relative to their folder, N."""
        return self.annotations.names

    def column(self, role: str) -> str | None:
        """The column of a role, or None."""
        return next((one.name for one in self.annotations.columns if one.role == role), None)

    def select(self, images: np.ndarray) -> "TablePhotos":
        """These images (int64 [M], in order), with all of their rows."""
        place = np.full(len(self.annotations), -1)
        place[images] = np.arange(len(images))
        rows = np.flatnonzero(place[self.image_of_row] >= 0)
        return TablePhotos(self.annotations.select(images), self.table.select(rows), place[self.image_of_row[rows]])


def find_source(data: Path, images: Images) -> tuple[Path, Images, dict[str, Path] | None]:
    """The table of a folder, or `data` itself; the folder of its images, None for that which the reader finds; and, where the
    folder has a table for each split, {split: table}, that for training first.

    Raises:
        InputError: there is none, or several.
    """
    files = None
    if data.is_file():
        csv = data
    else:
        csv = next((data / csv for csv, _ in SOURCES if (data / csv).is_file()), None)
        own = int((data / RECORD).is_file())  # what this tool wrote is called as the first
        layout = ATTRIBUTES._replace(files=ATTRIBUTES.files[own:])
        parts = {split: file for split in SPLITS if (file := layout.find(data, split))}
        if csv is None and not parts:
            named = {split: only_table(data, split=split) for split in SPLITS}
            parts = {split: file for split, file in named.items() if file and split_in(file.stem) == split}
        files = parts if csv is None and len(parts) > 1 and SPLITS[0] in parts else None
        csv = csv or parts.get(SPLITS[0]) or only_table(data)
    if csv is None:
        layouts = " or ".join(f"{csv} with {images}" for csv, images in SOURCES)
        raise InputError(
            f"{data}: found {contents(data)}, expected {layouts}, train.csv with val.csv, or one table with a column "
            "of image names"
        )
    if images is None and (folder := dict(SOURCES).get(csv.name)) is not None:
        if (csv.parent / folder).is_dir():
            return csv, csv.parent / folder, None
        if csv.name == SOURCES[0][0]:
            raise InputError(f"{csv.parent / folder}: no such folder, expected the images of {csv.name}")
    folder = data if data.is_dir() else csv.parent
    record = folder / RECORD
    if images is not None or Table.read(csv).about.photos is not None:
        return csv, images, files
    if files is None and csv.parent != folder:
        images = folder
    if record.is_file():  # else the links of then are found
        known = parse_json(record.read_bytes(), record)
        folders = known.get("photos", ".") if isinstance(known, dict) else "."
        images = [record.parent / str(folder) for folder in (folders if isinstance(folders, list) else [folders])]
    return csv, images, files


def read_photos(
    csv: Path, images: Images, options: dict[str, Any], follow_links: bool, files: dict[str, Path] | None = None
) -> TablePhotos:
    """The photos of a table; where `files` has one for each split those of all, and a column for the split.

    Raises:
        InputError: as `read_attributes`, no photo is found, or one elsewhere than in the folders of the others, or two of
            one name.
    """
    if files is None:
        found = _read_photos(csv, images, options, follow_links)
    else:
        parts = {SPLITS[0]: _read_photos(csv, images, options, follow_links, SPLITS[0])}
        train = parts[SPLITS[0]].annotations
        of_run = options | {"classes": train.classes, "groups": train.groups}
        for split in list(files)[1:]:
            with suppress(NoSplit):  # Kaggle's test.csv has no labels
                parts[split] = _read_photos(files[split], images, of_run, follow_links, split)
        found = _joined(parts) if len(parts) > 1 else parts[SPLITS[0]]
    names = found.names
    if len(set(names)) < len(names):
        twice = next(name for row, name in enumerate(names) if names.index(name) < row)
        raise InputError(f"{csv}: two images are called {twice!r}, in several folders, expected names of their own")
    return found


def _read_photos(csv, images, options, follow_links, split=None):
    annotations = read_attributes(csv, images=images, split=split, **options)
    if not follow_links:
        folders = (annotations.folder, *annotations.folders)
        roots = require_inside(annotations.images, folders, csv.parent, annotations.source)
        annotations = replace(annotations, roots=roots)
    for name in annotations.names:
        inner = PurePosixPath(name)
        if inner.is_absolute() or ".." in inner.parts:
            raise InputError(f"{csv}: found the image {name!r}, expected a path relative to {annotations.folder}")
    annotations.expect_photos()
    column = next(one.name for one in annotations.columns if one.role == "image")
    said = {name: value for name, value in options.items() if name not in ("classes", "groups") and value}
    table, training_table = Table.read(csv), Table.read(training_file_of(csv, csv))
    of_file = TableOptions(**said).over_file(csv).of_columns(training_table.columns)
    table, _, _ = as_read(table, training_table, of_file, column)
    number = {path: row for row, path in enumerate(annotations.images)}
    of_split = next((one.name for one in annotations.columns if one.role == "split"), None)
    splits = () if of_split is None else list(split_words(table, of_split))
    paths = Photos(annotations.folders or [annotations.folder]).paths(table.text(column), splits)
    return TablePhotos(annotations, table, np.array([number[path] for path in paths]))


def _joined(parts):
    """The photos of all splits, {split: TablePhotos}, with their split in a column."""
    all_parts, starts = list(parts.values()), np.cumsum([0, *(len(part.annotations) for part in parts.values())])
    first, every = all_parts[0], [part.annotations for part in all_parts]
    frames = [part.table.frame.assign(**{SPLIT: split}) for split, part in parts.items()]
    weights = {one.name: "1" for one in first.annotations.columns if one.role == "weight"}
    frame = pd.concat(frames, ignore_index=True)[list(frames[0])].fillna(weights).fillna("")
    columns = [one for one in first.annotations.columns if one.name != SPLIT and one.role != "split"]
    annotations = replace(
        first.annotations,
        images=[image for one in every for image in one.images],
        labels=LabelMatrix.from_dense(np.concatenate([one.labels.to_dense() for one in every]), UNANNOTATED),
        table=None,
        weights=None,
        folders=tuple(dict.fromkeys(folder for one in every for folder in (*one.folders, one.folder))),
        roots=tuple(dict.fromkeys(root for one in every for root in one.roots)),
        columns=(*columns, ColumnSummary(SPLIT, "split", 0, None, None, None, (), "")),
    )
    lines = np.concatenate([part.table.lines for part in all_parts])
    rows = np.concatenate([start + part.image_of_row for start, part in zip(starts, all_parts, strict=False)])
    return TablePhotos(annotations, Table(first.table.path, frame, lines), rows)


def readable(
    photos: TablePhotos, on_bad_image: str, workers: int, background: str, say: Callable[[str], None]
) -> tuple[TablePhotos, np.ndarray]:
    """The photos that can be read, and int64 [N] with equal numbers for images of identical pixels on the background.

    Raises:
        InputError: one that cannot, with `on_bad_image` "stop", or none that can.
    """
    annotations = photos.annotations
    digest = partial(_digest, roots=annotations.roots, background=background)
    digests = parallel_map(digest, annotations.images, workers, chunksize=8)
    found = list(progress(digests, len(annotations), "comparing images"))
    report_bad_images([reason for digest, reason in found if digest is None], len(found), None, on_bad_image, say)
    good = np.array([row for row, (digest, _) in enumerate(found) if digest is not None], dtype=np.int64)
    _, groups = np.unique([found[row][0] for row in good], return_inverse=True)
    return photos.select(good), groups


def _digest(path, roots, background):
    """A digest of an image's pixels and None, or None and why it cannot be read."""
    try:
        image = load_rgb(path, roots, background)
    except InputError as error:
        return None, str(error)
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest(), None


def progress(items: Any, total: int, label: str) -> tqdm:
    """A bar over items."""
    return tqdm(items, total=total, desc=label, unit="image", disable=None, leave=False)
