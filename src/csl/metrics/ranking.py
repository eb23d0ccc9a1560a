"""Average precision: every class at once, exact, ties in any order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from csl.errors import InputError
from csl.machine.processes import available_cores
from csl.metrics.arrays import POSITIVE, UNANNOTATED, host, inputs, tri_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from csl.metrics.arrays import Array, Targets

# Classes that a thread ranks at a time: their columns are copied row by row, so that several share a cache line.
_BLOCK = 32
# Rows that are turned at a time.
_ROWS = 512


def average_precision(scores: Array, targets: Targets) -> np.ndarray:
    """Average precision of every class, over its annotated entries.

    AP = sum over thresholds k of (R_k - R_{k-1}) P_k, with precision P_k and recall R_k of the entries that score at
    least k, and one threshold per distinct score. Entries with equal scores therefore enter together, and their order
    in the input does not matter: exactly `sklearn.metrics.average_precision_score`
    (https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html). Without ties it is
    the mean of the precision at each positive, as in the original CSL and ASL code, which divides by the
    number of positives plus 1e-8.

    The result is exact, whatever the dtype: half precision is widened, nothing else is converted. Labels that only
    give rows are made dense first (one byte per entry), bfloat16 tensors become float32. Scores on a device are copied
    to the CPU.

    Args:
        scores: float [N, C], any scale.
        targets: [N, C] in {1, 0, -1}.

    Returns:
        float64 [C] in [0, 1]; NaN for a class that has no positive or no negative among its annotated entries.

    Raises:
        InputError: shapes differ, a target is not 1, 0 or -1, or an annotated entry's score is NaN.
    """
    ap, positives, negatives = _ranked(scores, targets)
    return np.where((positives > 0) & (negatives > 0), ap, np.nan)


def mean_average_precision(scores: Array, targets: Targets, unannotated: str = "drop") -> float:
    """Mean average precision in percent.

    Args:
        scores: float [N, C], any scale.
        targets: [N, C] in {1, 0, -1}.
        unannotated: "drop" leaves un-annotated entries out and averages over the classes whose AP is defined, those
            with a positive and a negative (the partial mAP of LVIS and OpenImages in Ben-Baruch et al.,
            "Multi-label Classification with Partial Annotations using Class-aware Selective Loss", CVPR 2022,
            https://arxiv.org/abs/2110.10955). "negative" ranks them as negatives and averages over all classes: one
            without positives counts 0, one of positives alone 1. This is the original code's mAP. On
            complete labels the two differ by such classes alone.

    Returns:
        A percentage in [0, 100]; NaN if no class has a defined AP ("drop") or there are no classes.

    Raises:
        InputError: as `average_precision`, or another value of `unannotated`.
    """
    if unannotated == "drop":
        ap = average_precision(scores, targets)
        ap = ap[~np.isnan(ap)]
    elif unannotated == "negative":
        ap, _, _ = _ranked(scores, targets, unannotated_is_negative=True)
    else:
        raise InputError(f'unannotated: found {unannotated!r}, expected "drop" or "negative"')
    return 100 * float(ap.mean()) if ap.size else float("nan")


def class_table(scores: Array, targets: Targets, classes: Iterable[str]) -> pd.DataFrame:
    """A table of each class's AP and its numbers of positives, negatives and un-annotated entries.

    Args:
        scores: float [N, C], any scale.
        targets: [N, C] in {1, 0, -1}.
        classes: C class names.

    Returns:
        A table with the columns `class`, `AP` (percent, NaN where undefined, see `average_precision`), `positives`,
        `negatives` and `unannotated` (numbers of entries, which add up to N), in the order of `classes`.

    Raises:
        InputError: as `average_precision`, or the number of names is not C.
    """
    import pandas as pd

    classes = list(classes)
    ap, positives, negatives = _ranked(scores, targets)
    if len(classes) != len(ap):
        raise InputError(f"classes: found {len(classes)} names, expected {len(ap)}, one per column of the scores")
    return pd.DataFrame(
        {
            "class": classes,
            "AP": np.where((positives > 0) & (negatives > 0), 100 * ap, np.nan),
            "positives": positives,
            "negatives": negatives,
            "unannotated": len(scores) - positives - negatives,
        }
    )


def _ranked(scores, targets, *, unannotated_is_negative=False):
    """AP of every class, positives and negatives it was taken over: float64, int64, int64 [C].

    AP is 0 for a class without positives and 1 for a class of positives alone: callers decide what is defined.
    """
    scores, targets = inputs(scores, targets)
    num_samples, num_classes = scores.shape
    by_class = targets.T
    blocks = in_blocks(
        lambda classes: _rank(scores, by_class, classes, unannotated_is_negative), num_classes if num_samples else 0
    )
    if not blocks:
        return np.zeros(num_classes), np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    ap, positives, annotated = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return ap, positives, annotated - positives


def in_blocks(rank: Callable[[slice], Any], num_classes: int) -> list[Any]:
    """What `rank` returns for each slice of up to `_BLOCK` of the classes, in order; several are ranked at once."""
    starts = range(0, num_classes, _BLOCK)
    # Threads, not processes: copying and sorting release the interpreter lock, and nothing is pickled. More of them than
    # cores would only wait for that lock.
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(lambda first: rank(slice(first, min(first + _BLOCK, num_classes))), starts))


def columns(scores: np.ndarray, by_class: Any, classes: slice) -> tuple[np.ndarray, np.ndarray]:
    """Scores and int8 labels, both [B, N], of some classes of scores [N, C] and labels [C, N].

    Raises:
        InputError: a label that is not 1, 0 or -1.
    """
    labels = tri_state(_turned(host(by_class[classes]).T), classes)  # [B, N]
    values = _turned(scores[:, classes])  # [B, N]
    return (values.astype(np.float32) if values.dtype == np.float16 else values), labels  # which sorts faster


def _turned(array: np.ndarray) -> np.ndarray:
    """[N, B] -> [B, N], contiguous. NumPy's own copy, column by column, takes three times as long as one by tiles of rows."""
    if array.T.flags.c_contiguous:
        return array.T
    turned = np.empty(array.shape[::-1], array.dtype)
    for first in range(0, len(array), _ROWS):
        turned[:, first : first + _ROWS] = array[first : first + _ROWS].T
    return turned


def _rank(scores, by_class, classes, unannotated_is_negative):
    """AP, positives and annotated entries of some classes of scores [N, C] and labels [C, N]: float64, int64, int64 [B].

    The precision at a threshold s is #{positives >= s} / #{entries >= s}, and only thresholds at a positive's score
    add to AP. Both counts are places in sorted scores, so that no labels have to follow the sorting.
    """
    values, labels = columns(scores, by_class, classes)  # [B, N] both
    ap = np.zeros(len(labels))
    positives, annotated = np.zeros((2, len(labels)), np.int64)
    takes_all = unannotated_is_negative or (labels != UNANNOTATED).all()
    for c in range(len(labels)):
        hits = np.sort(values[c, labels[c] == POSITIVE])
        entries = np.sort(values[c] if takes_all else values[c, labels[c] != UNANNOTATED])
        positives[c], annotated[c] = len(hits), len(entries)
        if np.isnan(entries[-1:]).any():  # NaN sorts last
            raise found_nan(classes.start + c)
        if not len(hits):
            continue
        starts = np.flatnonzero(np.append(True, hits[1:] != hits[:-1]))  # one threshold per distinct score
        new_hits = np.diff(starts, append=len(hits))
        entries_above = len(entries) - entries.searchsorted(hits[starts])
        ap[c] = (new_hits * (len(hits) - starts) / entries_above).sum() / len(hits)
    return ap, positives, annotated


def found_nan(column: int) -> InputError:
    """The error of a score that has no order."""
    return InputError(f"scores: found NaN in column {column}, expected numbers")
