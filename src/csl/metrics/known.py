"""The scores of the known entries alone, class by class: all that numbers on annotated entries are made of.

Of 125,436 images by 9,605 classes a matrix takes 4.8 GB; the entries that somebody verified take megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from csl.metrics.arrays import UNANNOTATED, in_rows, inputs

if TYPE_CHECKING:
    from csl.metrics.arrays import Array, Targets


@dataclass(frozen=True)
class KnownScores:
    """The entries of scores and labels [N, C] whose label is known; those of class c lie in `slice(starts[c], starts[c + 1])`.

    Attributes:
        num_images: N.
        starts: int64 [C + 1], rising from 0 to E.
        images: int32 [E], the row of each entry; rising within a class.
        scores: float32 [E].
        labels: int8 [E], 1 or 0.
    """

    num_images: int
    starts: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, scores: Array, targets: Targets) -> KnownScores:
        """The known entries of scores [N, C] and targets [N, C] in {1, 0, -1}.

        Raises:
            InputError: shapes that differ, or a target that is not 1, 0 or -1.
        """
        scores, targets = inputs(scores, targets)
        batches = ((np.arange(rows.start, rows.stop), *block) for rows, *block in in_rows(scores, targets))
        return cls.of_batches(batches, scores.shape)

    @classmethod
    def of_batches(
        cls, batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, int]
    ) -> KnownScores:
        """The known entries of scores that come batch by batch, which are not kept: memory holds the entries alone.

        Args:
            batches: int [B] the rows of the images, float [B, C] their scores, int8 [B, C] their labels.
            shape: (N, C).
        """
        parts = [(np.empty(0, np.int32),) * 2 + (np.empty(0, np.float32), np.empty(0, np.int8))]
        for rows, scores, labels in batches:
            image, c = np.nonzero(labels != UNANNOTATED)
            parts.append(
                (
                    c.astype(np.int32),
                    rows[image].astype(np.int32),
                    scores[image, c].astype(np.float32),
                    labels[image, c],
                )
            )
        c, images, values, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.lexsort((images, c))
        starts = np.concatenate(([0], np.cumsum(np.bincount(c, minlength=shape[1]), dtype=np.int64)))
        return cls(shape[0], starts, images[order], values[order], labels[order])

    def __len__(self):
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.starts) - 1

    @property
    def classes(self) -> np.ndarray:
        """The class of each entry, int64 [E]."""
        return np.repeat(np.arange(self.num_classes), np.diff(self.starts))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The images, scores and labels of each class in turn."""
        for first, last in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield self.images[first:last], self.scores[first:last], self.labels[first:last]

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Known positives and known negatives of each class, int64 [C] each."""
        positives = np.bincount(self.classes[self.labels == 1], minlength=self.num_classes)
        return positives, np.diff(self.starts) - positives
