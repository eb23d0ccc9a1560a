"""The questions of a run: which image, which class, and what the labels say of it."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from csl.errors import InputError, NoSplit
from csl.labels import Annotations
from csl.labels.options import DataOptions
from csl.labels.paths import SPLITS
from csl.labels.read import read_split
from csl.labels.reviews import NONE, classes_of, data_folder, rows_of
from csl.labels.table import Table
from csl.machine.invocation import command

AUDIT = "audit.csv"
FILES = ("suggestions.csv", AUDIT)
"""Tables of questions in the folder of a run; the first that is there is taken."""


@dataclass
class Photos:
    """The images that questions and answers may be of.

    Attributes:
        parts: the annotations of each split, without answers.
        splits: of the parts.
        folder: of the data, which names of images are relative to.
    """

    parts: list[Annotations]
    splits: list[str]
    folder: Path

    @classmethod
    def read(cls, options: DataOptions) -> "Photos":
        """Read all splits of the data.

        Raises:
            InputError: as `csl.labels.read_annotations`.
        """
        options = replace(DataOptions.of(options), reviews=NONE)
        parts, splits = [read_split(options, SPLITS[0])], [SPLITS[0]]
        for split in SPLITS[1:]:
            with suppress(NoSplit):
                part = read_split(options, split, parts[0].classes, parts[0].groups)
                if all(part.images[:1] != other.images[:1] for other in parts):  # one file, read for each split
                    parts.append(part)
                    splits.append(split)
        return cls(parts, splits, data_folder(options.data))

    def find(self, images: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """int64 [n, 3] of images and classes by name: the split, the row in it, the class; -1 where it is not there."""
        found = np.full((len(images), 3), -1)
        unique, inverse = np.unique(np.array(images, dtype=object), return_inverse=True)
        place = np.full((len(unique), 2), -1)
        for number, part in enumerate(self.parts):
            left = np.flatnonzero(place[:, 0] < 0)
            rows = rows_of(part, [unique[k] for k in left], self.folder)
            place[left[rows >= 0], 0] = number
            place[left, 1] = rows
        if len(images):
            found[:, :2], found[:, 2] = place[inverse], classes_of(self.parts[0], names)
        return found

    def ambiguous(self, images: Sequence[str]) -> list[int]:
        """The places of names that images in several splits have, in folders of their own."""
        found = [rows_of(part, images, self.folder) >= 0 for part in self.parts]
        return np.flatnonzero(np.sum(found, axis=0) > 1).tolist()

    def name(self, part: int, row: int) -> str:
        """The name of an image that no other image has: relative to the data folder, if it lies there."""
        path = os.path.relpath(self.parts[part].images[row], self.folder)
        return self.parts[part].select([row]).names[0] if path.startswith("..") else Path(path).as_posix()


@dataclass
class Questions:
    """Q questions: is this class in this image?

    Attributes:
        file: the table that they are from.
        photos: the images.
        images, classes, scores: names and scores, Q each, as in the table; scores are "" where there are none.
        places: int64 [Q, 3] as `Photos.find` returns them.
    """

    file: Path
    photos: Photos
    images: list[str]
    classes: list[str]
    scores: list[str]
    places: np.ndarray

    @classmethod
    def read(cls, file: Path, photos: Photos, say: Callable[[str], None]) -> "Questions":
        """Read a table with the columns image, class and, if it has it, score; the first row is asked first.

        Questions of other images or classes, and those that stand there twice, are left out and counted.

        Raises:
            InputError: it is no such table, or none of its questions is of these data.
        """
        table = Table.read(file)
        for name in ("image", "class"):
            if name not in table.columns:
                raise InputError(f"{file}, line 1: no column {name!r}, expected image, class and, if it has one, score")
        images, classes = list(table.frame["image"]), list(table.frame["class"])
        scores = list(table.frame["score"]) if "score" in table.columns else [""] * len(images)
        places = photos.find(images, classes)
        here = (places >= 0).all(axis=1)
        if not here.any():
            raise InputError(
                f"{file}: none of its {len(images):,} questions is of an image and a class of {photos.parts[0].source}"
            )
        _, first = np.unique(places, axis=0, return_index=True)
        kept = np.sort(first[here[first]])
        if other := int((~here).sum()):
            say(f"{file}: {other:,} questions are of other images or classes, left out")
        if twice := int(here.sum()) - len(kept):
            say(f"{file}: {twice:,} questions stand there twice, left out")
        images = [images[k] for k in kept]
        for k in photos.ambiguous(images):
            images[k] = photos.name(*places[kept[k], :2])
        return cls(file, photos, images, [classes[k] for k in kept], [scores[k] for k in kept], places[kept])

    def __len__(self) -> int:
        return len(self.images)

    def photo(self, question: int) -> tuple[str, tuple[str, ...]]:
        """The path of a photo, and the folders that it must lie in (`csl.data.images.open_image`)."""
        part, row, _ = self.places[question]
        annotations = self.photos.parts[part]
        return annotations.images[int(row)], annotations.roots


def question_file(given: str | None, run: Path) -> Path:
    """The table of questions: the given one, else the first of `FILES` in the run.

    Raises:
        InputError: there is none.
    """
    if given is not None:
        if not Path(given).is_file():
            raise InputError(
                f"--questions {given}: no such file, expected a table with the columns image, class, score"
            )
        return Path(given)
    for name in FILES:
        if (run / name).is_file():
            return run / name
    raise InputError(
        f"{run}: no {' or '.join(FILES)} to ask about; `{command('suggest', run)}` makes it, or --questions FILE names a table "
        "with the columns image, class, score"
    )
