"""Annotations: what every reader returns and every consumer takes."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from csl.errors import InputError
from csl.labels.matrix import LabelMatrix, row_numbers
from csl.labels.trust import check_class_names


class ColumnSummary(NamedTuple):
    """What a column of a table was taken for.

    Attributes:
        name: as in the header.
        role: one of `csl.labels.table_options.ROLES`.
        classes: the number of its classes.
        positive, negative, unknown: shares of its labels, in [0, 1]; None where it holds none.
        examples: some of its known cells.
        why: what unusual cells mean, or why the column is ignored.
    """

    name: str
    role: str
    classes: int
    positive: float | None
    negative: float | None
    unknown: float | None
    examples: tuple[str, ...]
    why: str


@dataclass(frozen=True, eq=False)
class Annotations:
    """N images, their labels, and the names of the C classes.

    Attributes:
        images: full paths of the image files, N (OpenImages: `ImagePaths`). Files are not opened here.
        labels: LabelMatrix [N, C].
        classes: names of the classes, C. Two classes may share a name (12 pairs of OpenImages do).
        groups: for attribute data, the slice of classes that belong to each attribute; otherwise None.
        keys: identifiers of the classes (OpenImages: MIDs), C; by default their names.
        source: the annotation file that was read.
        skipped: images of that file that were left out because nothing is annotated in them.
        table: for attribute data, the CSV's rows of these images as they were written (strings), N; otherwise None.
        weights: float32 [N], sampling weights of the images in training; None for equal ones.
        folder: the folder to which image names in the file are relative; "" if unknown.
        folders: all in which images were found.
        no_photos: the note that says what was looked for, where no image was found; else "".
        columns: what each column of a table was taken for; () where there is no table.
        notes: what was decided or is unusual about the file, one line each.
        collected: LabelMatrix [N, C] without what answers of people alone tell (`csl.labels.reviews`): these were asked for,
            and are not known for the reasons that the others are. None where that is nothing.
        answers: how many answers of people are among the labels (`csl.labels.reviews`).
        roots: the folders, links resolved, one of which an image must lie in when it is opened; () for anywhere.

    Raises:
        InputError: lengths that do not agree, a group outside the classes, a weight that is not positive, or
            a class name with a control character.
    """

    images: Sequence[str]
    labels: LabelMatrix
    classes: Sequence[str]
    groups: dict[str, slice] | None = None
    keys: Sequence[str] | None = None
    source: str = ""
    skipped: int = 0
    table: pd.DataFrame | None = None
    weights: np.ndarray | None = None
    folder: str = ""
    folders: tuple[str, ...] = ()
    no_photos: str = ""
    roots: tuple[str, ...] = ()
    columns: tuple[ColumnSummary, ...] = ()
    notes: tuple[str, ...] = ()
    answers: int = 0
    collected: LabelMatrix | None = None

    def __post_init__(self):
        if self.keys is None:
            object.__setattr__(self, "keys", self.classes)
        num_images, num_classes = self.labels.shape
        self._expect("images", len(self.images), num_images)
        self._expect("class names", len(self.classes), num_classes)
        self._expect("class keys", len(self.keys), num_classes)
        for names in (self.classes, self.keys) if self.keys is not self.classes else (self.classes,):
            check_class_names(names, self.source or "annotations")
        if self.table is not None:
            self._expect("rows in the table", len(self.table), num_images)
        if self.weights is not None:
            self._expect("weights", len(self.weights), num_images)
            wrong = np.flatnonzero(~(np.isfinite(self.weights) & (self.weights > 0)))
            if len(wrong):
                raise InputError(
                    f"{self.source or 'annotations'}: found the weight {self.weights[wrong[0]]:g} of image {wrong[0]}, "
                    "expected a positive number"
                )
        for name, group in (self.groups or {}).items():
            if not 0 <= group.start < group.stop <= num_classes:
                raise InputError(
                    f"{self.source or 'annotations'}: attribute {name!r} has classes {group.start} to "
                    f"{group.stop - 1}, expected a part of 0 to {num_classes - 1}"
                )

    def _expect(self, what, found, expected):
        if found != expected:
            raise InputError(f"{self.source or 'annotations'}: found {found} {what}, the labels have {expected}")

    def __len__(self):
        return len(self.images)

    def expect_photos(self) -> None:
        """Raises:
        InputError: no image was found by its name.
        """
        if self.no_photos:
            raise InputError(f"{self.source}: {self.no_photos}")

    def select(self, rows: ArrayLike | slice) -> "Annotations":
        """The annotations of these images (index array, list, slice or boolean mask), in their order."""
        rows = row_numbers(rows, len(self))
        return dataclasses.replace(
            self,
            images=self.images.select(rows) if hasattr(self.images, "select") else [self.images[row] for row in rows],
            labels=self.labels.select(rows),
            collected=None if self.collected is None else self.collected.select(rows),
            table=None if self.table is None else self.table.iloc[rows].reset_index(drop=True),
            weights=None if self.weights is None else self.weights[rows],
        )

    @property
    def names(self) -> list[str]:
        """Names of the images relative to their folder, N."""
        folders = (getattr(self.images, "folder", self.folder), *self.folders)
        within = [os.path.join(folder, "") for folder in folders if folder]
        return [image.removeprefix(next(filter(image.startswith, within), "")) for image in self.images]

    def with_labels(self, labels: LabelMatrix) -> "Annotations":
        """The same images and classes with other labels [N, C], such as those that `simulate` returns."""
        return dataclasses.replace(self, labels=labels, collected=None)

    @property
    def as_collected(self) -> LabelMatrix:
        """The labels [N, C] that say how labels became known, and so how frequent a class is: without `answers`."""
        return self.labels if self.collected is None else self.collected

    def described(self) -> str:
        """One line: the file, its `summary`, and how many images were left out."""
        skipped = f" ({self.skipped:,} images without annotations left out)" if self.skipped else ""
        return f"{self.source}: {self.summary()}{skipped}"

    def summary(self) -> str:
        """One line: images, classes, and the shares of all N x C labels that are positive, negative and unknown."""
        totals = np.array([count.sum() for count in self.labels.counts()], dtype=float)
        positive, negative, unknown = 100 * totals / max(totals.sum(), 1)
        return (
            f"{len(self):,} images, {len(self.classes):,} classes: "
            f"{positive:.1f} % positive, {negative:.1f} % negative, {unknown:.1f} % unknown"
        )
