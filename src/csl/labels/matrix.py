"""LabelMatrix: sparse tri-state labels of N images by C classes.

Every entry is POSITIVE, NEGATIVE or UNANNOTATED. Only the entries that differ from one `fill` are stored (COCO: the
positives, with fill 0; OpenImages: the verified labels, with fill -1), so 9 million images by 9,605 classes with 60
million labels take 0.25 GB.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from csl.errors import InputError
from csl.labels.cache import pickled, unpickled
from csl.machine.files import replacing

POSITIVE = 1
NEGATIVE = 0
UNANNOTATED = -1

_BLOCK = 1 << 22  # entries at a time, where a step needs a larger type or a dense array


class ClassCounts(NamedTuple):
    """How many images are positive, negative and un-annotated, per class: three int64 arrays [C]."""

    positives: np.ndarray
    negatives: np.ndarray
    unannotated: np.ndarray


class LabelMatrix:
    """Labels of N images by C classes, each 1 (positive), 0 (negative) or -1 (un-annotated).

    Rows are stored as in a CSR matrix: the listed entries of image i are `indices[indptr[i]:indptr[i + 1]]` (class
    ids, strictly increasing) with their `values`, none of which is `fill`; all other entries are `fill`. The arrays are
    not meant to be written to: `select`, `simulate` and their kin return a new matrix.

    Args:
        indptr: int64 [N + 1], from 0 to nnz, never decreasing.
        indices: class ids [nnz], kept in the smallest unsigned type that holds C - 1.
        values: labels [nnz] in {1, 0, -1}, kept as int8.
        num_classes: C.
        fill: the label of every entry that is not listed.

    Raises:
        InputError: the arrays do not fit together, or a label is not 1, 0 or -1.
    """

    def __init__(self, indptr: ArrayLike, indices: ArrayLike, values: ArrayLike, num_classes: int, fill: int):
        self.num_classes = int(num_classes)
        self.fill = int(_tri_state(fill, "the fill"))
        self.indptr = np.asarray(indptr, dtype=np.int64)
        self.values = _tri_state(values, "the values")
        indices = np.asarray(indices)
        _check_rows(self.indptr, indices, self.values, self.num_classes)
        self.indices = indices.astype(_index_dtype(self.num_classes), copy=False)
        if (self.values == self.fill).any():  # so that equal labels are stored alike
            listed = self.values != self.fill
            self.indptr = _indptr(listed)[self.indptr]
            self.indices, self.values = self.indices[listed], self.values[listed]

    @classmethod
    def from_dense(cls, array: ArrayLike, fill: int = UNANNOTATED) -> "LabelMatrix":
        """The matrix of a dense array [N, C] of 1, 0 and -1 (any numeric type); entries equal to `fill` take no room.

        Raises:
            InputError: the array is not two-dimensional, or holds another value.
        """
        array = np.asarray(array)
        if array.ndim != 2:
            raise InputError(f"labels: found an array of shape {array.shape}, expected [images, classes]")
        array = _tri_state(array, "the labels")
        num_classes = array.shape[1]
        listed = array != fill  # [N, C]
        classes = np.broadcast_to(np.arange(num_classes, dtype=_index_dtype(num_classes)), array.shape)
        return cls(_indptr(listed.sum(axis=1)), classes[listed], array[listed], num_classes, fill)

    @classmethod
    def from_entries(
        cls,
        rows: Sequence[int] | np.ndarray,
        classes: Sequence[int] | np.ndarray,
        values: ArrayLike,
        shape: tuple[int, int],
        fill: int = UNANNOTATED,
    ) -> "LabelMatrix":
        """The matrix of listed entries in any order: `rows` [n], `classes` [n], `values` [n] or one label for all.

        An entry that is listed more than once gets its highest label, whatever the order: positive beats negative,
        and negative beats un-annotated.

        Args:
            shape: (N, C).
            fill: the label of every entry that is not listed.

        Raises:
            InputError: a row or class is outside `shape`, the lengths differ, or a label is not 1, 0 or -1.
        """
        num_images, num_classes = (int(size) for size in shape)
        rows, classes = (np.asarray(a) if len(a) else np.zeros(0, np.int64) for a in (rows, classes))
        values = _tri_state(values, "the values")
        if rows.shape != classes.shape or rows.ndim != 1 or values.shape not in ((), rows.shape):
            raise InputError(
                f"labels: found {rows.shape} rows, {classes.shape} classes and {values.shape} values, "
                "expected three arrays of one length"
            )
        _check_range(rows, num_images, "row")
        _check_range(classes, num_classes, "class")

        # One int64 holds row, class and label: sorting it in place is all the memory this needs.
        entries = (rows.astype(np.int64) * num_classes + classes) * 4 + (values + 1)
        entries.sort()
        last = np.ones(len(entries), dtype=bool)  # of its (row, class), thus the highest label
        np.not_equal(entries[1:] >> 2, entries[:-1] >> 2, out=last[:-1])
        entries = entries[last]

        values = (entries & 3).astype(np.int8) - np.int8(1)
        entries >>= 2
        indptr = np.searchsorted(entries, np.arange(num_images + 1, dtype=np.int64) * num_classes)
        indices = (entries % max(num_classes, 1)).astype(_index_dtype(num_classes))
        return cls(indptr, indices, values, num_classes, fill)

    @classmethod
    def stacked(cls, parts: "Sequence[LabelMatrix]") -> "LabelMatrix":
        """The matrix of these, all of C classes and one fill, one below the other."""
        listed = np.concatenate([np.diff(part.indptr) for part in parts])
        indices, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("indices", "values"))
        return cls(_indptr(listed), indices, values, parts[0].num_classes, parts[0].fill)

    def __len__(self):
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(N, C)."""
        return len(self), self.num_classes

    def __repr__(self):
        return f"LabelMatrix({len(self)} x {self.num_classes}, {len(self.indices)} listed, fill {self.fill})"

    def __getitem__(self, rows):
        """Dense labels: `m[i]` is int8 [C]; `m[index array, list, slice or boolean mask]` is int8 [B, C].

        A negative number raises IndexError, as one past the end does: here -1 is a label, hardly ever "the last row".
        """
        if not isinstance(rows, slice) and np.ndim(rows) == 0:
            row = row_numbers([rows], len(self))[0]
            listed = slice(self.indptr[row], self.indptr[row + 1])
            dense = np.full(self.num_classes, self.fill, dtype=np.int8)
            dense[self.indices[listed]] = self.values[listed]
            return dense
        rows = row_numbers(rows, len(self))
        lengths, listed = stretches(self.indptr, rows)
        dense = np.full((len(rows), self.num_classes), self.fill, dtype=np.int8)
        dense[np.repeat(np.arange(len(rows)), lengths), self.indices[listed]] = self.values[listed]
        return dense

    def to_dense(self) -> np.ndarray:
        """All labels, int8 [N, C]."""
        return self[:]

    def select(self, rows: ArrayLike | slice) -> "LabelMatrix":
        """A new matrix of these rows (index array, list, slice or boolean mask), in their order; repeats are kept."""
        rows = row_numbers(rows, len(self))
        lengths, listed = stretches(self.indptr, rows)
        return LabelMatrix(_indptr(lengths), self.indices[listed], self.values[listed], self.num_classes, self.fill)

    def with_rows(self, rows: np.ndarray, parts: "Sequence[LabelMatrix]") -> "LabelMatrix":
        """A new matrix in which other labels [n, C], those of `parts` one below the other, stand in `rows`, int64 [n]."""
        if any(part.fill != self.fill or part.num_classes != self.num_classes for part in parts):
            raise InputError(
                f"labels: found rows of another form, expected {self.num_classes} classes, fill {self.fill}"
            )
        order = np.arange(len(self))
        order[rows] = len(self) + np.arange(len(rows))
        return LabelMatrix.stacked([self, *parts]).select(order)

    def rearranged(self, classes: Sequence[int], num_classes: int) -> "LabelMatrix":
        """A new matrix [N, num_classes] in which class c is `classes[c]`, or left out (-1); others are un-annotated."""
        classes = np.asarray(classes)
        rows = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        entries = rows, classes[self.indices], self.values
        entries = [part[entries[1] >= 0] for part in entries]
        new = np.setdiff1d(np.arange(num_classes), classes) if self.fill != UNANNOTATED else np.zeros(0, np.int64)
        unknown = np.repeat(np.arange(len(self)), len(new)), np.tile(new, len(self)), np.full(len(self) * len(new), -1)
        rows, columns, values = (np.concatenate(parts) for parts in zip(entries, unknown, strict=True))
        return LabelMatrix.from_entries(rows, columns, values, (len(self), num_classes), self.fill)

    @property
    def T(self) -> "LabelMatrix":
        """A new matrix [C, N] of the labels of each class: `m.T[classes]` is int8 [B, N]."""
        by_class = np.argsort(self.indices, kind="stable")
        rows = np.repeat(np.arange(len(self), dtype=_index_dtype(len(self))), np.diff(self.indptr))
        listed = np.bincount(self.indices, minlength=self.num_classes)
        return LabelMatrix(_indptr(listed), rows[by_class], self.values[by_class], len(self), self.fill)

    def counts(self) -> ClassCounts:
        """ClassCounts: positives, negatives and un-annotated images of each class, int64 [C] each."""
        listed = np.zeros(3 * self.num_classes, dtype=np.int64)
        for start in range(0, len(self.indices), _BLOCK):
            block = slice(start, start + _BLOCK)
            slots = self.indices[block].astype(np.int64) * 3 + (self.values[block] + 1)
            listed += np.bincount(slots, minlength=len(listed))
        listed = listed.reshape(self.num_classes, 3)  # columns: un-annotated, negative, positive
        listed[:, self.fill + 1] += len(self) - listed.sum(axis=1)
        unannotated, negatives, positives = (np.ascontiguousarray(column) for column in listed.T)
        return ClassCounts(positives, negatives, unannotated)

    def __eq__(self, other):
        """The same labels everywhere, however they are stored."""
        if not isinstance(other, LabelMatrix):
            return NotImplemented
        if self.shape != other.shape:
            return False
        if self.fill == other.fill:
            names = ("indptr", "indices", "values")
            return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)
        rows = max(1, _BLOCK // max(self.num_classes, 1))
        return all(
            np.array_equal(self[start : start + rows], other[start : start + rows])
            for start in range(0, len(self), rows)
        )

    __hash__ = None

    def __getstate__(self):
        return {name: pickled(value) for name, value in vars(self).items()}

    def __setstate__(self, state):
        vars(self).update({name: unpickled(value) for name, value in state.items()})

    def save(self, path: str | Path) -> None:
        """Write an .npz file at exactly this path, atomically: to a temporary file beside it, which is then renamed."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                indptr=self.indptr,
                indices=self.indices,
                values=self.values,
                num_classes=np.int64(self.num_classes),
                fill=np.int8(self.fill),
            )

    @classmethod
    def load(cls, path: str | Path) -> "LabelMatrix":
        """Read a file of `save`; nothing in it is executed.

        Raises:
            InputError: there is no such file, or it is not a label matrix.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                fields = [arrays[name] for name in ("indptr", "indices", "values", "num_classes", "fill")]
            return cls(*fields)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file, expected labels in .npz form") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # a broken zip or array fails in ways that NumPy does not list
            raise InputError(f"{path}: not a label matrix in .npz form ({error})") from None


def row_numbers(rows: ArrayLike | slice, length: int) -> np.ndarray:
    """Row numbers int64 [B] of an index array, a list, a slice or a boolean mask [length].

    Raises:
        IndexError: a number below 0 or not below `length`, or something that is no index.
    """
    if isinstance(rows, slice):
        return np.arange(length, dtype=np.int64)[rows]
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (length,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise IndexError(f"found an index of shape {rows.shape} and type {rows.dtype}, expected row numbers")
    if rows.size and not (rows.min() >= 0 and rows.max() < length):
        outside = rows[(rows < 0) | (rows >= length)][0]
        raise IndexError(f"row {outside} of {length} rows, expected 0 to {length - 1}")
    return rows.astype(np.int64)


def stretches(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [B] of the stretches `offsets[row]` to `offsets[row + 1]`, and all positions in them, row after row."""
    starts = offsets[rows].astype(np.int64)
    lengths = offsets[rows + 1].astype(np.int64) - starts
    before = np.cumsum(lengths) - lengths
    return lengths, np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def _index_dtype(num_classes):
    return np.min_scalar_type(max(num_classes - 1, 0))


def _indptr(lengths):
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _tri_state(labels, what):
    """Labels as int8; InputError where one is not 1, 0 or -1."""
    labels = np.asarray(labels)
    if labels.size == 0:
        return labels.astype(np.int8)
    if labels.dtype.kind not in "biuf":
        raise InputError(f"labels: found {what} of type {labels.dtype}, expected 1, 0 or -1")
    if labels.min() >= UNANNOTATED and labels.max() <= POSITIVE:  # False for NaN
        exact = labels.astype(np.int8, copy=False)
        if labels.dtype.kind != "f" or np.array_equal(exact, labels):
            return exact
    wrong = labels[~np.isin(labels, (POSITIVE, NEGATIVE, UNANNOTATED))].flat[0]
    raise InputError(f"labels: found {wrong!s} in {what}, expected 1, 0 or -1")


def _check_range(numbers, size, what):
    if not numbers.size:
        return
    if numbers.dtype.kind not in "iu":
        raise InputError(f"labels: found {what} numbers of type {numbers.dtype}, expected integers")
    if numbers.min() < 0 or numbers.max() >= size:
        outside = numbers[(numbers < 0) | (numbers >= size)][0]
        raise InputError(f"labels: found {what} {outside}, expected 0 to {size - 1}")


def _check_rows(indptr, indices, values, num_classes):
    if indptr.ndim != 1 or not len(indptr) or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise InputError("labels: found a row index that is not [N + 1] rising from 0")
    if not indices.shape == values.shape == (indptr[-1],):
        raise InputError(
            f"labels: found {indices.shape} class ids and {values.shape} values, expected {indptr[-1]} of each"
        )
    _check_range(indices, num_classes, "class")
    starts = np.zeros(len(indices) + 1, dtype=bool)
    starts[indptr] = True
    unsorted = (indices[1:] <= indices[:-1]) & ~starts[1:-1]
    if unsorted.any():
        row = np.searchsorted(indptr, np.argmax(unsorted), side="right") - 1
        raise InputError(f"labels: row {row} has a class id that is not above the one before, expected rising ids")
