"""The photos that `csl prepare attributes` prepares: the table, the images that it names, and which of these are the same."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from csl.data.checking import report_bad_images
from csl.data.images import load_rgb
from csl.errors import InputError
from csl.labels import Annotations, read_attributes
from csl.labels.attributes import only_table
from csl.labels.paths import contents
from csl.labels.photos import Photos
from csl.labels.table import Table
from csl.labels.trust import require_inside
from csl.machine.files import parse_json
from csl.machine.processes import parallel_map

Images = str | Path | Sequence[str | Path] | None
"""The folder or folders of the images."""

SOURCES = (("attributes_cleaned.csv", "images_cleaned/images"), ("attributes.csv", "images"))
"""The CSV and its image folder, in the fashion fork's layout and in ours."""

RECORD = "preparation.json"
"""The file that marks the outputs beside it as written by this tool, so that they may be replaced."""


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


def find_source(data: Path, images: Images) -> tuple[Path, Images]:
    """The table of a folder, or `data` itself, and the folder of its images, None for that which the reader finds.

    Raises:
        InputError: there is none, or several.
    """
    if data.is_file():
        csv = data
    else:
        csv = next((data / csv for csv, _ in SOURCES if (data / csv).is_file()), None) or only_table(data)
    if csv is None:
        layouts = " or ".join(f"{csv} with {images}" for csv, images in SOURCES)
        raise InputError(
            f"{data}: found {contents(data)}, expected {layouts}, or one table with a column of image names"
        )
    if images is None and (folder := dict(SOURCES).get(csv.name)) is not None:
        if (csv.parent / folder).is_dir():
            return csv, csv.parent / folder
        if csv.name == SOURCES[0][0]:
            raise InputError(f"{csv.parent / folder}: no such folder, expected the images of {csv.name}")
    record = csv.parent / RECORD
    if images is None and record.is_file() and Table.read(csv).about.photos is None:  # else the links of then are found
        known = parse_json(record.read_bytes(), record)
        images = csv.parent / str(known.get("photos", ".") if isinstance(known, dict) else ".")
    return csv, images


def read_photos(csv: Path, images: Images, options: dict[str, Any], follow_links: bool) -> TablePhotos:
    """The photos of a table.

    Raises:
        InputError: as `read_attributes`, no photo is found, or one elsewhere than in the folders of the others, or two of
            one name.
    """
    annotations = read_attributes(csv, images=images, **options)
    if not follow_links:
        folders = (annotations.folder, *annotations.folders)
        roots = require_inside(annotations.images, folders, csv.parent, annotations.source)
        annotations = replace(annotations, roots=roots)
    names = annotations.names
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{csv}: found the image {name!r}, expected a path relative to {annotations.folder}")
    annotations.expect_photos()
    if len(set(names)) < len(names):
        twice = next(name for row, name in enumerate(names) if names.index(name) < row)
        raise InputError(f"{csv}: two images are called {twice!r}, in several folders, expected names of their own")
    column = next(one.name for one in annotations.columns if one.role == "image")
    table = Table.read(csv).without_sums(column)
    number = {path: row for row, path in enumerate(annotations.images)}
    paths = Photos(annotations.folders or [annotations.folder]).paths(table.text(column))
    return TablePhotos(annotations, table, np.array([number[path] for path in paths]))


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
