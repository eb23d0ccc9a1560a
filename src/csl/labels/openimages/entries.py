"""Collects labels that are read batch by batch into a LabelMatrix with one row per image."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from csl.labels.matrix import LabelMatrix
from csl.labels.paths import ImagePaths

_BLOCK = 1 << 22  # entries at a time


class Batch(NamedTuple):
    """Labels of some lines of a file, in its order.

    Attributes:
        images: Arrow strings [R], names of images; one may repeat, and one may have no label.
        image_of: int32 [n], the position in `images` of each label.
        classes: int32 [n].
        values: int8 [n], 1 or 0.
        lines: uint32 [n], the line that each label stands on.
    """

    images: pa.Array
    image_of: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    lines: np.ndarray


class Collected(NamedTuple):
    """The labels of all batches together.

    Attributes:
        images: names of the N images with labels, in the order in which they first appear.
        labels: LabelMatrix [N, C] with fill -1.
        skipped: images without labels.
        contradictions: (image, class) pairs that were both positive and negative, and are un-annotated.
        examples: of the first few of these, (line of the second label, image, class).
    """

    images: ImagePaths
    labels: LabelMatrix
    skipped: int
    contradictions: int
    examples: list[tuple[int, str, int]]


class Entries:
    """Collects batches; 57.5 million labels need 2 to 4 GB on the way to their matrix."""

    def __init__(self):
        self._images, self._batches = [], []
        self._num_names = 0

    def add(self, batch: Batch) -> None:
        """Take in one more batch."""
        self._images.append(batch.images)
        self._batches.append(batch._replace(images=None, image_of=batch.image_of + np.int32(self._num_names)))
        self._num_names += len(batch.images)

    def collect(self, num_classes: int, order: np.ndarray | None = None, shown: int = 5) -> Collected:
        """The matrix of all batches; they are freed.

        Args:
            num_classes: C.
            order: int32 [C], the column of each class; by default its number.
            shown: examples of contradictions at most.
        """
        names, code = _distinct(self._images)
        self._images = []
        lines = np.concatenate([np.zeros(0, np.uint32), *(batch.lines for batch in self._batches)])
        keys = self._keys(code, num_classes, order)  # in the order of the file
        self._batches = []

        entries = np.sort(keys)
        entries = entries[_first_of_each(entries)]
        contradicted = ~_first_of_each(entries >> 1)
        pairs = entries[contradicted] >> 1
        contradicted[:-1] |= contradicted[1:]
        entries = entries[~contradicted]
        examples = [
            (_last_line(keys, lines, pair), names[int(pair // num_classes)].as_py(), int(pair % num_classes))
            for pair in pairs[:shown]
        ]
        del keys, lines

        values = (entries & 1).astype(np.int8)
        entries >>= 1
        indptr = np.searchsorted(entries, np.arange(len(names) + 1, dtype=np.int64) * num_classes)
        entries %= max(num_classes, 1)
        labelled = np.diff(indptr) > 0
        indptr = np.concatenate((indptr[:1], indptr[1:][labelled]))
        return Collected(
            ImagePaths.from_names(names.filter(pa.array(labelled))),
            LabelMatrix(indptr, entries, values, num_classes, fill=-1),
            int(len(labelled) - labelled.sum()),
            len(pairs),
            examples,
        )

    def _keys(self, code, num_classes, order):
        """One int64 per label, which sorts by image, class and value."""
        keys = np.empty(sum(len(batch.classes) for batch in self._batches), np.int64)
        start = 0
        for batch in self._batches:
            part = keys[start : start + len(batch.classes)]
            part[:] = code[batch.image_of]
            part *= num_classes
            part += batch.classes if order is None else order[batch.classes]
            part *= 2
            part += batch.values
            start += len(part)
        return keys


def _distinct(chunks):
    """Names in the order of their first appearance, Arrow strings [N], and the number of each, int32 [all]."""
    # In one piece, as each chunk would get a dictionary; in a type that may hold more than 2 GB.
    names = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in chunks] or [pa.array([], pa.large_string())])
    names = names.dictionary_encode()
    return names.dictionary, np.asarray(names.indices)


def _first_of_each(sorted_array):
    """Where a sorted array has a value for the first time, bool."""
    first = np.ones(len(sorted_array), dtype=bool)
    np.not_equal(sorted_array[1:], sorted_array[:-1], out=first[1:])
    return first


def _last_line(keys, lines, pair):
    """The line of the last label of one (image, class)."""
    for start in reversed(range(0, len(keys), _BLOCK)):
        found = np.flatnonzero(keys[start : start + _BLOCK] >> 1 == pair)
        if len(found):
            return int(lines[start + found[-1]])
    raise AssertionError("a contradiction of no line")
