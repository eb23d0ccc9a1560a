"""Checks of scores and tri-state labels, which come as NumPy arrays, torch tensors or labels that give rows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import numpy as np

from csl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def is_tensor(array: object) -> bool:
    """Whether `array` is a torch tensor."""
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported torch; it is not imported for others
    return torch is not None and isinstance(array, torch.Tensor)


def host(array: Array) -> np.ndarray:
    """NumPy view of an array or of a CPU tensor, copy of a tensor on a device; bfloat16 becomes float32."""
    if not is_tensor(array):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def inputs(scores: Array, targets: Targets) -> tuple[Array, Array]:
    """Scores and targets [N, C] of one shape: NumPy arrays, or tensors if the scores are on CUDA.

    Labels that give the labels of their classes besides (`targets.T`) stay what they are: blocks are made dense.

    Raises:
        InputError: shapes that do not match, or scores that are not numbers.
    """
    on_device = is_tensor(scores) and scores.is_cuda
    scores = scores.detach() if on_device else host(scores)
    if scores.ndim != 2:
        raise InputError(f"scores: found shape {tuple(scores.shape)}, expected [samples, classes]")
    if not on_device and scores.dtype.kind not in "fiu":
        raise InputError(f"scores: found dtype {scores.dtype}, expected floats")
    if is_tensor(targets):
        targets = targets.detach() if on_device else host(targets)
    elif isinstance(targets, list | tuple) or hasattr(targets, "__array__"):
        targets = np.asarray(targets)
    elif not hasattr(targets, "T"):
        targets = _gather_rows(targets, scores.shape)
    if tuple(targets.shape) != tuple(scores.shape):
        raise InputError(f"targets: found shape {tuple(targets.shape)}, expected {tuple(scores.shape)} as the scores")
    return scores, targets


def _gather_rows(targets, shape):
    """int8 [N, C] from `Rows`, a few rows at a time."""
    dense = np.empty(shape, np.int8)
    if hasattr(targets, "__len__") and len(targets) != len(dense):
        raise InputError(f"targets: found {len(targets)} rows, expected {len(dense)} as the scores")
    step = max(1, CHUNK_ENTRIES // max(shape[1], 1))
    for first in range(0, len(dense), step):
        rows = np.arange(first, min(first + step, len(dense)))
        found = host(targets[rows])
        if found.shape != (len(rows), shape[1]):
            raise InputError(f"targets: found {found.shape} for {len(rows)} rows, expected {(len(rows), shape[1])}")
        dense[rows[0] : rows[-1] + 1] = found
    return dense


def as_int8(labels: Array) -> Array:
    """Labels as int8; a value that the cast changes (0.5, 257, NaN) raises InputError."""
    if str(labels.dtype).removeprefix("torch.") == "int8":
        return labels
    with np.errstate(invalid="ignore"):
        cast = labels.to(sys.modules["torch"].int8) if is_tensor(labels) else labels.astype(np.int8)
    wrong = cast != labels
    if wrong.any():
        raise InputError(f"targets: found {host(labels[wrong])[0]}, expected 1, 0 or -1")
    return cast


def labels_beside(scores: Array, labels: Array) -> Array:
    """Labels as int8 of the kind of the scores: an array, or a tensor on their device."""
    labels = as_int8(labels)
    if not is_tensor(scores):
        return labels
    if not is_tensor(labels):
        labels = sys.modules["torch"].from_numpy(np.ascontiguousarray(labels))
    return labels.to(scores.device)


def check_labels(labels: Array, classes: slice) -> None:
    """Raise InputError unless int8 labels [B, N] of the columns `classes` are all 1, 0 or -1."""
    if 0 not in labels.shape and (labels.max() > POSITIVE or labels.min() < UNANNOTATED):
        wrong = host((labels > POSITIVE) | (labels < UNANNOTATED))
        c, n = np.argwhere(wrong)[0]
        raise InputError(
            f"targets: found {int(labels[c, n])} in row {n}, column {classes.start + c}, expected 1, 0 or -1"
        )
