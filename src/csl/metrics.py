"""Scores and tri-state labels in, numbers out.

Everywhere `scores` is [N, C], one score per image and class, larger meaning more likely. Only the order matters to
average precision, so logits and probabilities serve alike; where a `threshold` is asked for, it is on the scale of the
scores. They come as a NumPy array of any float or integer dtype (memory-mapped too) or as a torch tensor of any dtype.
`targets` is [N, C] of 1 (positive), 0 (negative) and -1 (un-annotated): a NumPy array, a torch tensor, or labels that
know `to_dense() -> int8 [N, C]` or `m[indices] -> int8 [B, C]`, such as `csl.labels.LabelMatrix`.

Un-annotated entries take no part in any number below, with the single exception of
`mean_average_precision(..., unannotated="negative")`, whose name says so. Bad input raises `csl.errors.InputError`:
shapes that do not match, targets other than 1, 0 and -1, a NaN among the scores of annotated entries. Infinite scores
are fine, they have an order.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from csl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

POSITIVE, UNANNOTATED = 1, -1

# Working memory of all threads together, and what one entry of a block may take of it: its score, label and two masks,
# and in a partly annotated block the index (8 bytes) and a copy of the score as well.
_BLOCK_BYTES = 2**30
_BYTES_PER_ENTRY = 24
# On a GPU: the score, its order and the running counts. Blocks this wide already fill a large GPU.
_DEVICE_BLOCK_BYTES = 2**31
_DEVICE_BYTES_PER_ENTRY = 64
# Rows transposed at a time: a tile that stays in the second-level cache is four times as fast as one long column.
_TILE_ROWS = 512
# Entries read at a time where whole rows are.
_CHUNK_ENTRIES = 2**24
# Below this share of annotated entries, picking them one by one beats transposing all scores and then picking.
_SPARSE = 1 / 64


# ---------------------------------------------------------------------------------------------------------------------
# Average precision


def average_precision(scores, targets, *, block: int | None = None) -> np.ndarray:
    """Average precision of every class, over its annotated entries.

    AP = sum over thresholds k of (R_k - R_{k-1}) P_k, with precision P_k and recall R_k of the entries that score at
    least k, and one threshold per distinct score. Entries with equal scores therefore enter together, and their order
    in the input does not matter: exactly `sklearn.metrics.average_precision_score`
    (https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html). Without ties it is
    the mean of the precision at each positive, as in the original CSL and ASL code, which divides by the
    number of positives plus 1e-8.

    The result is exact, whatever the dtype: half precision is widened, nothing else is converted. Memory beyond the
    input stays near 1 GiB; labels that are not an array are made dense first (one byte per entry), bfloat16 tensors
    on the CPU become float32. Scores on a CUDA device are ranked there.

    Args:
        scores: float [N, C], any scale.
        targets: [N, C] in {1, 0, -1}.
        block: classes ranked at a time, at least 1; by default as many as the memory above allows. It
            does not change the result.

    Returns:
        float64 [C] in [0, 1]; NaN for a class that has no positive or no negative among its annotated entries.

    Raises:
        InputError: shapes differ, a target is not 1, 0 or -1, or an annotated entry's score is NaN.
    """
    ap, positives, negatives = _ranked(scores, targets, block=block)
    return np.where((positives > 0) & (negatives > 0), ap, np.nan)


def mean_average_precision(scores, targets, unannotated: str = "drop") -> float:
    """Mean average precision in percent.

    Args:
        scores: float [N, C], any scale.
        targets: [N, C] in {1, 0, -1}.
        unannotated: "drop" leaves un-annotated entries out and averages over the classes whose AP is defined, those
            with a positive and a negative (the partial mAP of LVIS and OpenImages in Ben-Baruch et al.,
            "Multi-label Classification with Partial Annotations using Class-aware Selective Loss", CVPR 2022,
            https://arxiv.org/abs/2110.10955). "negative" ranks them as negatives and averages over all classes: one
            without positives counts 0, one with nothing but positives 1. This is the original code's mAP. On
            complete labels the two differ by such classes alone.

    Returns:
        A percentage in [0, 100]; NaN where no class has a defined AP ("drop") or there is no class at all.

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


def class_table(scores, targets, classes) -> pd.DataFrame:
    """One row per class: what was measured and on how much.

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


def _ranked(scores, targets, *, unannotated_is_negative=False, block=None):
    """AP of every class, positives and negatives it was taken over: float64, int64, int64 [C].

    AP is 0 for a class without positives and 1 for one that has nothing else: callers decide what is defined.
    """
    scores, targets = _inputs(scores, targets)
    num_samples, num_classes = scores.shape
    if block is not None and block < 1:
        raise InputError(f"block: found {block}, expected at least 1 class")
    if _is_tensor(scores):
        rank_block, workers = _rank_block_on_device, 1
        width = _DEVICE_BLOCK_BYTES // (_DEVICE_BYTES_PER_ENTRY * max(num_samples, 1))
    else:
        rank_block, workers = _rank_block, _available_cpus()
        width = _BLOCK_BYTES // (workers * _BYTES_PER_ENTRY * max(num_samples, 1))
        width = min(width, -(-num_classes // (8 * workers)))  # several blocks a thread, so that all end together
    width = block or max(width, 1)
    blocks = [slice(first, min(first + width, num_classes)) for first in range(0, num_classes, width)]

    ap = np.zeros(num_classes)
    positives = np.zeros(num_classes, np.int64)
    negatives = np.zeros(num_classes, np.int64)

    def rank(classes):
        ap[classes], positives[classes], negatives[classes] = rank_block(
            scores, targets, classes, unannotated_is_negative
        )

    if workers > 1 and len(blocks) > 1:
        # Threads, not processes: sorting, copying and searching release the interpreter lock, and nothing is pickled.
        with ThreadPoolExecutor(min(workers, len(blocks))) as pool:
            list(pool.map(rank, blocks))
    else:
        for classes in blocks:
            rank(classes)
    return ap, positives, negatives


def _rank_block(scores, targets, classes, unannotated_is_negative):
    """`_ranked` for the columns `classes` (B of them) of NumPy arrays.

    The precision at a threshold s is #{positives >= s} / #{entries >= s}, and only thresholds at a positive's score
    add to AP, each as often as positives have that score. The first count is a place among the positives' sorted
    scores, the second a binary search in all sorted scores. So bare scores are sorted and no index or label moves
    along: NumPy does this with vector instructions, several times as fast as any argsort.
    """
    num_samples, num_classes = len(scores), classes.stop - classes.start
    labels = _class_major(targets, classes, np.dtype(np.int8))  # [B, N]
    _check_labels(labels, classes)
    complete = unannotated_is_negative or labels.size == 0 or labels.min() != UNANNOTATED
    # Flat positions in [B, N], class after class, and where each class begins and the last one ends: [B + 1].
    boundaries = num_samples * np.arange(num_classes + 1)
    positive = np.flatnonzero(labels == POSITIVE)
    first_positive = np.searchsorted(positive, boundaries)
    annotated = None if complete else np.flatnonzero(labels != UNANNOTATED)
    first_annotated = boundaries if complete else np.searchsorted(annotated, boundaries)
    num_positives, num_annotated = np.diff(first_positive), np.diff(first_annotated)

    if complete or len(annotated) >= _SPARSE * labels.size:
        flat = _class_major(scores, classes, _sortable(scores.dtype)).reshape(-1)
        hits = flat.take(positive)
        entries = flat if complete else flat.take(annotated)
    else:
        hits, entries = _pick(scores, classes, positive), _pick(scores, classes, annotated)
    if complete:
        entries.reshape(num_classes, num_samples).sort(axis=1)
    hits_of, entries_of = _split(hits, first_positive), _split(entries, first_annotated)
    for c in range(num_classes):
        hits_of(c).sort()
        if not complete:
            entries_of(c).sort()
        if num_annotated[c] and np.isnan(entries_of(c)[-1]):  # NaN sorts last
            raise InputError(f"scores: found NaN in column {classes.start + c}, expected numbers")

    # One threshold per distinct score of a class's positives: K of them, of all B classes together.
    is_threshold = np.ones(len(hits), bool)
    np.not_equal(hits[1:], hits[:-1], out=is_threshold[1:])
    has_hits = num_positives > 0
    is_threshold[first_positive[:-1][has_hits]] = True
    starts = np.flatnonzero(is_threshold)  # [K]
    first_threshold = np.searchsorted(starts, first_positive)  # [B + 1]
    thresholds = hits[starts]
    new_hits = np.diff(starts, append=len(hits))
    num_thresholds = np.diff(first_threshold)
    hits_above = np.repeat(first_positive[1:], num_thresholds) - starts
    entries_below = np.empty(len(starts), np.int64)
    thresholds_of, entries_below_of = _split(thresholds, first_threshold), _split(entries_below, first_threshold)
    for c in np.flatnonzero(has_hits):
        entries_below_of(c)[:] = np.searchsorted(entries_of(c), thresholds_of(c))
    entries_above = np.repeat(num_annotated, num_thresholds) - entries_below

    ap = np.zeros(num_classes)
    if len(starts):
        terms = new_hits * hits_above / entries_above
        ap[has_hits] = np.add.reduceat(terms, first_threshold[:-1][has_hits]) / num_positives[has_hits]
    return ap, num_positives, num_annotated - num_positives


def _rank_block_on_device(scores, targets, classes, unannotated_is_negative):
    """`_ranked` for the columns `classes` (B of them) of a torch tensor, on its device; targets may be on the host.

    The plain form of the definition: sort, count along the ranking, read the counts where a run of equal scores ends.
    Un-annotated entries stay in the ranking and are not counted, which is the same as leaving them out.
    """
    import torch

    if len(scores) == 0:
        return 0.0, 0, 0
    labels = targets[:, classes]
    if not _is_tensor(labels):
        labels = torch.from_numpy(np.ascontiguousarray(_as_int8(labels)))
    labels = _as_int8(labels).to(scores.device).t()  # [B, N]
    _check_labels(labels, classes)
    if unannotated_is_negative:
        labels = labels.clamp_min(0)
    values = scores[:, classes].t().contiguous()  # [B, N]
    if values.is_floating_point():
        bad = (values.isnan() & (labels != UNANNOTATED)).any(dim=1)
        if bad.any():
            raise InputError(f"scores: found NaN in column {classes.start + int(bad.int().argmax())}, expected numbers")

    values, order = values.sort(dim=1, descending=True)
    labels = labels.gather(1, order)
    del order
    hits = (labels == POSITIVE).cumsum(dim=1, dtype=torch.int32)
    entries = (labels != UNANNOTATED).cumsum(dim=1, dtype=torch.int32)
    run_ends = torch.ones_like(labels, dtype=torch.bool)
    run_ends[:, :-1] = values[:, 1:] != values[:, :-1]
    del values, labels
    hits_at_ends = hits * run_ends
    new_hits = hits_at_ends.clone()
    new_hits[:, 1:] -= hits_at_ends.cummax(dim=1).values[:, :-1]  # minus the hits where the run before ended
    # hits_at_ends is 0 inside a run, so that only the runs' ends add to the sum
    ap = (new_hits.double() * hits_at_ends / entries.clamp_min(1)).sum(dim=1)
    positives = hits[:, -1].cpu().numpy().astype(np.int64)
    annotated = entries[:, -1].cpu().numpy().astype(np.int64)
    return ap.cpu().numpy() / np.maximum(positives, 1), positives, annotated - positives


# ---------------------------------------------------------------------------------------------------------------------
# At a threshold


def precision_recall_f1(scores, targets, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of `scores > threshold`, per class and overall, over annotated entries, in percent.

    P_C, R_C and F_C are taken per class and then averaged; F_C is the mean of the classes' F1 (as the original CSL and
    ASL code does, and not the harmonic mean of P_C and R_C, which some papers print). P_O, R_O and F_O are taken over
    all entries at once. An empty denominator counts 0, as in the original: the precision of a class never
    predicted, the recall of one without positives. A class without a single annotated entry is left out of the means,
    since nothing is known of it.

    Args:
        scores: float [N, C].
        targets: [N, C] in {1, 0, -1}.
        threshold: on the scale of the scores; a score equal to it is not a prediction.

    Returns:
        {"P_C", "R_C", "F_C", "P_O", "R_O", "F_O"}, each in [0, 100]; NaN if nothing is annotated.

    Raises:
        InputError: as `average_precision`.
    """
    per_class, _ = _counts(scores, targets, threshold)
    names = ("P", "R", "F")
    macro, micro = _mean_of_ratios(per_class), _ratio_of_sums(per_class)
    return {
        **{f"{name}_C": 100 * value for name, value in zip(names, macro, strict=True)},
        **{f"{name}_O": 100 * value for name, value in zip(names, micro, strict=True)},
    }


def averaged_scores(scores, targets, threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """Micro, macro and samples averages of the precision, recall and F1 of `scores > threshold`.

    On complete labels they equal scikit-learn's `precision_recall_fscore_support(targets, scores > threshold,
    average=..., zero_division=0)`. Otherwise only annotated entries count, and a class (macro) or image (samples)
    without a single one is left out of the mean.

    Args:
        scores: float [N, C].
        targets: [N, C] in {1, 0, -1}.
        threshold: on the scale of the scores; a score equal to it is not a prediction.

    Returns:
        {"micro": {"precision", "recall", "f1"}, "macro": {...}, "samples": {...}}, each in [0, 1]; NaN if nothing is
        annotated.

    Raises:
        InputError: as `average_precision`.
    """
    per_class, per_sample = _counts(scores, targets, threshold)
    averages = {
        "micro": _ratio_of_sums(per_class),
        "macro": _mean_of_ratios(per_class),
        "samples": _mean_of_ratios(per_sample),
    }
    return {name: dict(zip(("precision", "recall", "f1"), values, strict=True)) for name, values in averages.items()}


def _counts(scores, targets, threshold):
    """Hits, predictions, positives and annotated entries: int64 [4, C] per class and [4, N] per sample."""
    scores, targets = _inputs(scores, targets)
    num_samples, num_classes = scores.shape
    per_class = np.zeros((4, num_classes), np.int64)
    per_sample = np.zeros((4, num_samples), np.int64)
    step = max(1, _CHUNK_ENTRIES // max(num_classes, 1))
    for first in range(0, num_samples, step):
        rows = slice(first, min(first + step, num_samples))
        chunk, labels = scores[rows], _as_int8(targets[rows])
        if _is_tensor(chunk) and not _is_tensor(labels):
            import torch

            labels = torch.from_numpy(np.ascontiguousarray(labels))
        if _is_tensor(chunk):
            labels = labels.to(chunk.device)
        _check_labels(labels.T, slice(0, num_classes))
        annotated, positive = labels != UNANNOTATED, labels == POSITIVE
        bad = (chunk != chunk) & annotated  # NaN, the one value that differs from itself
        if bad.any():
            raise InputError(f"scores: found NaN in column {int(_host(bad).argmax()) % num_classes}, expected numbers")
        predicted = (chunk > threshold) & annotated
        for k, mask in enumerate((predicted & positive, predicted, positive, annotated)):
            per_class[k] += _host(mask.sum(0))
            per_sample[k, rows] = _host(mask.sum(1))
    return per_class, per_sample


def _ratios(hits, predictions, positives):
    """Precision, recall and F1 of counts, an empty denominator giving 0.

    F1 is 2 hits / (predictions + positives), which is the harmonic mean of the two without its 0 / 0.
    """
    return (
        hits / np.maximum(predictions, 1),
        hits / np.maximum(positives, 1),
        2 * hits / np.maximum(predictions + positives, 1),
    )


def _mean_of_ratios(counts):
    """Mean precision, recall and F1 over the classes, or samples, that have an annotated entry."""
    counts = counts[:, counts[3] > 0]
    if counts.shape[1] == 0:
        return (float("nan"),) * 3
    return tuple(float(ratio.mean()) for ratio in _ratios(*counts[:3]))


def _ratio_of_sums(counts):
    """Precision, recall and F1 over all entries together."""
    hits, predictions, positives, annotated = counts.sum(axis=1)
    if annotated == 0:
        return (float("nan"),) * 3
    return tuple(float(ratio) for ratio in _ratios(hits, predictions, positives))


# ---------------------------------------------------------------------------------------------------------------------
# Attributes


def group_accuracy(scores, targets, groups: dict[str, slice], threshold: float = 0.5) -> pd.DataFrame:
    """Accuracy of each attribute's predicted value, on the images where its value is known.

    An attribute is a slice of classes of which one is true: its prediction is the class with the highest score (the
    first of equals), and its value is known where one class is positive. An attribute of a single class is a yes/no
    question: the prediction is `score > threshold`, and the value is known where the entry is annotated.

    Args:
        scores: float [N, C]; probabilities, or logits with a `threshold` that suits them.
        targets: [N, C] in {1, 0, -1}.
        groups: attribute name -> slice of classes (`Annotations.groups`).
        threshold: for attributes of a single class alone, on the scale of the scores.

    Returns:
        A table with one row per attribute, in the order of `groups`: `attribute`; `known`, the number of images it was
        measured on; and in percent `accuracy`; `balanced_accuracy`, the mean recall of the values that occur
        (`sklearn.metrics.balanced_accuracy_score`); `majority`, the accuracy of always guessing the most frequent
        value. Percentages are NaN where no image is known.

    Raises:
        InputError: as `average_precision`, an image has two positives in one attribute, or a slice is empty.
    """
    import pandas as pd

    scores, targets = _inputs(scores, targets)
    rows = []
    for name, group in groups.items():
        values, labels = _host(scores[:, group]), _as_int8(_host(targets[:, group]))  # [N, G]
        size = values.shape[1]
        if size == 0:
            raise InputError(f"groups: attribute {name!r} has no classes ({group}), expected at least 1")
        _check_labels(labels.T, slice(*group.indices(scores.shape[1])))
        positive = labels == POSITIVE
        if size == 1:
            known = labels[:, 0] != UNANNOTATED
            truth, guess = positive[known, 0].astype(np.int64), values[known, 0] > threshold
        else:
            several = positive.sum(axis=1) > 1
            if several.any():
                raise InputError(
                    f"targets: row {int(several.argmax())} has several positives in attribute {name!r}, expected one"
                )
            known = positive.any(axis=1)
            truth, guess = positive[known].argmax(axis=1), values[known].argmax(axis=1)
        if np.isnan(values[known]).any():
            raise InputError(f"scores: found NaN in attribute {name!r}, expected numbers")
        support = np.bincount(truth, minlength=max(size, 2))
        right = np.bincount(truth[truth == guess], minlength=max(size, 2))
        total, occurring = int(support.sum()), support > 0
        rows.append(
            {
                "attribute": name,
                "known": total,
                "accuracy": 100 * right.sum() / total if total else np.nan,
                "balanced_accuracy": 100 * (right[occurring] / support[occurring]).mean() if total else np.nan,
                "majority": 100 * support.max() / total if total else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["attribute", "known", "accuracy", "balanced_accuracy", "majority"])


# ---------------------------------------------------------------------------------------------------------------------
# Arrays and tensors


def _is_tensor(array) -> bool:
    torch = sys.modules.get("torch")  # who holds a tensor has imported torch; everyone else is spared it
    return torch is not None and isinstance(array, torch.Tensor)


def _host(array) -> np.ndarray:
    """NumPy view of an array or of a CPU tensor, copy of a tensor on a device; bfloat16 becomes float32."""
    if not _is_tensor(array):
        return np.asarray(array)
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def _inputs(scores, targets):
    """Checked [N, C] scores and targets that can be sliced: NumPy arrays, or tensors where the scores are on CUDA."""
    on_device = _is_tensor(scores) and scores.is_cuda
    scores = scores.detach() if on_device else _host(scores)
    if scores.ndim != 2:
        raise InputError(f"scores: found shape {tuple(scores.shape)}, expected [samples, classes]")
    if not on_device and scores.dtype.kind not in "fiu":
        raise InputError(f"scores: found dtype {scores.dtype}, expected floats")
    if _is_tensor(targets):
        targets = targets.detach() if on_device else _host(targets)
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
    step = max(1, _CHUNK_ENTRIES // max(shape[1], 1))
    for first in range(0, len(dense), step):
        rows = np.arange(first, min(first + step, len(dense)))
        found = _host(targets[rows])
        if found.shape != (len(rows), shape[1]):
            raise InputError(f"targets: found {found.shape} for {len(rows)} rows, expected {(len(rows), shape[1])}")
        dense[rows[0] : rows[-1] + 1] = found
    return dense


def _as_int8(labels):
    """Labels as int8; a value that does not survive the cast (0.5, 257, NaN) raises InputError."""
    if str(labels.dtype).removeprefix("torch.") == "int8":
        return labels
    with np.errstate(invalid="ignore"):
        cast = labels.to(sys.modules["torch"].int8) if _is_tensor(labels) else labels.astype(np.int8)
    wrong = cast != labels
    if wrong.any():
        raise InputError(f"targets: found {_host(labels[wrong])[0]}, expected 1, 0 or -1")
    return cast


def _check_labels(labels, classes):
    """Raise InputError unless int8 labels [B, N] of the columns `classes` are all 1, 0 or -1."""
    if 0 not in labels.shape and (labels.max() > POSITIVE or labels.min() < UNANNOTATED):
        wrong = _host((labels > POSITIVE) | (labels < UNANNOTATED))
        c, n = np.argwhere(wrong)[0]
        raise InputError(
            f"targets: found {int(labels[c, n])} in row {n}, column {classes.start + c}, expected 1, 0 or -1"
        )


def _sortable(dtype):
    """The dtype to rank in: float32 for half precision, which few processors sort natively; else as it is."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _class_major(array, classes, dtype):
    """Columns `classes` of an [N, C] array as a new contiguous [B, N], in tiles that fit the cache."""
    out = np.empty((classes.stop - classes.start, len(array)), dtype)
    for first in range(0, len(array), _TILE_ROWS):
        tile = array[first : first + _TILE_ROWS, classes]
        out[:, first : first + _TILE_ROWS] = (_as_int8(tile) if dtype == np.int8 else tile).T
    return out


def _split(flat, firsts):
    """c -> the view of part c of `flat`, which runs from `firsts[c]` to `firsts[c + 1]`."""
    firsts = firsts.tolist()
    return lambda c: flat[firsts[c] : firsts[c + 1]]


def _pick(scores, classes, index):
    """Scores at flat positions `index` into the class-major [B, N] of the columns `classes`."""
    columns, rows = np.divmod(index, max(len(scores), 1))
    return scores[rows, columns + classes.start].astype(_sortable(scores.dtype), copy=False)


def _available_cpus() -> int:
    """CPUs this process may use, which in a container or under taskset are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
