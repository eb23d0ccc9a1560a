"""Checks of scores and tri-state labels, which come as NumPy arrays, torch tensors or labels that give rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from csl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    Array = np.ndarray | torch.Tensor

POSITIVE, UNANNOTATED = 1, -1

# Entries of the rows that are read at a time.
CHUNK_ENTRIES = 2**24


class Rows(Protocol):
    """Labels that give their rows, such as `csl.labels.LabelMatrix`."""

    def __getitem__(self, indices: np.ndarray) -> Array:
        """int8 [B, C] of the rows `indices` [B]."""


if TYPE_CHECKING:
    Targets = Array | Sequence[Sequence[int]] | Rows


def host(array: Array) -> np.ndarray:
    """NumPy view of an array or of a CPU tensor, copy of a tensor on a device; bfloat16 becomes float32."""
    if not hasattr(array, "detach"):  # torch is not imported to tell
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def inputs(scores: Array, targets: Targets) -> tuple[np.ndarray, np.ndarray | Rows]:
    """Scores and targets [N, C] of one shape, as NumPy arrays.

    Labels that give the labels of their classes besides (`targets.T`) stay what they are: blocks are made dense.

    Raises:
        InputError: shapes that do not match, or scores that are not numbers.
    """
    scores = host(scores)
    if scores.ndim != 2:
        raise InputError(f"scores: found shape {scores.shape}, expected [samples, classes]")
    if scores.dtype.kind not in "fiu":
        raise InputError(f"scores: found dtype {scores.dtype}, expected floats")
    if isinstance(targets, list | tuple) or hasattr(targets, "__array__"):
        targets = host(targets)
    elif not hasattr(targets, "T"):
        targets = _gather_rows(targets, scores.shape)
    if tuple(targets.shape) != scores.shape:
        raise InputError(f"targets: found shape {tuple(targets.shape)}, expected {scores.shape} as the scores")
    return scores, targets


def _gather_rows(targets, shape):
    """int8 [N, C] from `Rows`, a few rows at a time."""
    dense = np.empty(shape, np.int8)
    if hasattr(targets, "__len__") and len(targets) != len(dense):
        raise InputError(f"targets: found {len(targets)} rows, expected {len(dense)} as the scores")
    for rows in _blocks(shape):
        found = host(targets[np.arange(rows.start, rows.stop)])
        if found.shape != dense[rows].shape:
            raise InputError(f"targets: found {found.shape} for {len(dense[rows])} rows, expected {dense[rows].shape}")
        dense[rows] = found
    return dense


def in_rows(scores: np.ndarray, targets: np.ndarray | Rows) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Some rows after the others: which, their scores [B, C] and their labels int8 [B, C]; what is read of `inputs`.

    Raises:
        InputError: a label that is not 1, 0 or -1.
    """
    for rows in _blocks(scores.shape):
        yield rows, scores[rows], tri_state(host(targets[rows]).T, slice(0, scores.shape[1])).T


def _blocks(shape):
    """Slices of the rows of an array [N, C], of `CHUNK_ENTRIES` each."""
    step = max(1, CHUNK_ENTRIES // max(shape[1], 1))
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0]))


def tri_state(labels: np.ndarray, classes: slice) -> np.ndarray:
    """Labels [B, N] of the columns `classes`, as int8.

    Raises:
        InputError: a label that is not 1, 0 or -1.
    """
    if labels.dtype != np.int8:
        with np.errstate(invalid="ignore"):
            cast = labels.astype(np.int8)
        wrong = cast != labels  # 0.5, 257, NaN
        if wrong.any():
            raise InputError(f"targets: found {labels[wrong][0]}, expected 1, 0 or -1")
        labels = cast
    if labels.size and (labels.max() > POSITIVE or labels.min() < UNANNOTATED):
        c, n = np.argwhere((labels > POSITIVE) | (labels < UNANNOTATED))[0]
        raise InputError(f"targets: found {labels[c, n]} in row {n}, column {classes.start + c}, expected 1, 0 or -1")
    return labels
