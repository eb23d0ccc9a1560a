"""What every metric takes: arrays or tensors of scores and tri-state labels, checked and sliceable."""

import sys

import numpy as np

from csl.errors import InputError

POSITIVE, UNANNOTATED = 1, -1

# Entries read at a time where whole rows are.
CHUNK_ENTRIES = 2**24


def is_tensor(array) -> bool:
    """Whether `array` is a torch tensor."""
    torch = sys.modules.get("torch")  # who holds a tensor has imported torch; everyone else is spared it
    return torch is not None and isinstance(array, torch.Tensor)


def host(array) -> np.ndarray:
    """NumPy view of an array or of a CPU tensor, copy of a tensor on a device; bfloat16 becomes float32."""
    if not is_tensor(array):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def inputs(scores, targets):
    """Checked [N, C] scores and targets that can be sliced: NumPy arrays, or tensors where the scores are on CUDA."""
    on_device = is_tensor(scores) and scores.is_cuda
    scores = scores.detach() if on_device else host(scores)
    if scores.ndim != 2:
        raise InputError(f"scores: found shape {tuple(scores.shape)}, expected [samples, classes]")
    if not on_device and scores.dtype.kind not in "fiu":
        raise InputError(f"scores: found dtype {scores.dtype}, expected floats")
    if is_tensor(targets):
        targets = targets.detach() if on_device else host(targets)
    elif hasattr(targets, "to_dense"):
        targets = np.asarray(targets.to_dense())
    elif isinstance(targets, list | tuple) or hasattr(targets, "__array__"):
        targets = np.asarray(targets)
    else:
        targets = _gather_rows(targets, scores.shape)
    if tuple(targets.shape) != tuple(scores.shape):
        raise InputError(f"targets: found shape {tuple(targets.shape)}, expected {tuple(scores.shape)} as the scores")
    return scores, targets


def _gather_rows(targets, shape):
    """int8 [N, C] from labels that only answer `targets[indices]`, a few rows at a time."""
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


def as_int8(labels):
    """Labels as int8; a value that does not survive the cast (0.5, 257, NaN) raises InputError."""
    if str(labels.dtype).removeprefix("torch.") == "int8":
        return labels
    with np.errstate(invalid="ignore"):
        cast = labels.to(sys.modules["torch"].int8) if is_tensor(labels) else labels.astype(np.int8)
    wrong = cast != labels
    if wrong.any():
        raise InputError(f"targets: found {host(labels[wrong])[0]}, expected 1, 0 or -1")
    return cast


def check_labels(labels, classes):
    """Raise InputError unless int8 labels [B, N] of the columns `classes` are all 1, 0 or -1."""
    if 0 not in labels.shape and (labels.max() > POSITIVE or labels.min() < UNANNOTATED):
        wrong = host((labels > POSITIVE) | (labels < UNANNOTATED))
        c, n = np.argwhere(wrong)[0]
        raise InputError(
            f"targets: found {int(labels[c, n])} in row {n}, column {classes.start + c}, expected 1, 0 or -1"
        )
