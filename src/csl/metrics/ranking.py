"""Average precision: every class at once, exact, ties in any order."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from csl.errors import InputError
from csl.metrics.arrays import POSITIVE, UNANNOTATED, as_int8, check_labels, inputs, is_tensor
from csl.metrics.counting import count_in_buckets

if TYPE_CHECKING:
    import pandas as pd

# Working memory of all threads together, and what one entry of a block may take of it: most of that for a positive, with
# its places, its threshold and their counts; a negative takes a tenth.
_BLOCK_BYTES = 2**30
_BYTES_PER_ENTRY = 80
# On a GPU: the score, its order and the running counts. Blocks this wide already fill a large GPU.
_DEVICE_BLOCK_BYTES = 2**31
_DEVICE_BYTES_PER_ENTRY = 64
# Rows transposed at a time: a tile that stays in the second-level cache is four times as fast as one long column.
_TILE_ROWS = 512
# From this share of annotated entries on, counting them among all is faster than picking and sorting them.
_CROWDED = 3 / 4
# Below this share of annotated entries, picking them one by one beats transposing all scores and then picking.
_SPARSE = 1 / 64


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
    scores, targets = inputs(scores, targets)
    num_samples, num_classes = scores.shape
    if block is not None and block < 1:
        raise InputError(f"block: found {block}, expected at least 1 class")
    if is_tensor(scores):
        rank_block, workers = _rank_block_on_device, 1
        width = _DEVICE_BLOCK_BYTES // (_DEVICE_BYTES_PER_ENTRY * max(num_samples, 1))
    else:
        rank_block, workers = _rank_block, _available_cpus()
        width = _BLOCK_BYTES // (workers * _BYTES_PER_ENTRY * max(num_samples, 1))
        width = min(width, -(-num_classes // (4 * workers)))  # several blocks a thread, so that all end together
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
    scores; the second is taken by whichever is faster of two ways that move no index or label along.
    """
    num_samples, num_classes = len(scores), classes.stop - classes.start
    labels = _class_major(targets, classes, np.dtype(np.int8))  # [B, N]
    check_labels(labels, classes)
    num_annotated, unannotated = np.full(num_classes, num_samples), None
    if not unannotated_is_negative and labels.size and labels.min() == UNANNOTATED:
        unannotated = labels == UNANNOTATED  # [B, N]
        num_annotated -= np.count_nonzero(unannotated, axis=1)
    # Flat positions in [B, N], class after class, and where each class begins and the last one ends: [B + 1].
    positive = np.flatnonzero(labels == POSITIVE)
    first_positive = np.searchsorted(positive, num_samples * np.arange(num_classes + 1))
    num_positives = np.diff(first_positive)

    way = _by_counting if _sortable(scores.dtype) == np.float32 else _by_sorting
    if unannotated is not None and num_annotated.sum() < _CROWDED * labels.size:
        way = _by_sorting
    hits, count_at_least = way(scores, classes, positive, unannotated, num_annotated)
    hits_of = _split(hits, first_positive)
    for c in range(num_classes):
        hits_of(c).sort()

    # One threshold per distinct score of a class's positives: K of them, of all B classes together.
    is_threshold = np.ones(len(hits), bool)
    np.not_equal(hits[1:], hits[:-1], out=is_threshold[1:])
    has_hits = num_positives > 0
    is_threshold[first_positive[:-1][has_hits]] = True
    starts = np.flatnonzero(is_threshold)  # [K]
    first_threshold = np.searchsorted(starts, first_positive)  # [B + 1]
    new_hits = np.diff(starts, append=len(hits))
    hits_above = np.repeat(first_positive[1:], np.diff(first_threshold)) - starts
    entries_above = count_at_least(hits[starts], first_threshold)

    ap = np.zeros(num_classes)
    if len(starts):
        terms = new_hits * hits_above / entries_above
        ap[has_hits] = np.add.reduceat(terms, first_threshold[:-1][has_hits]) / num_positives[has_hits]
    return ap, num_positives, num_annotated - num_positives


def _by_counting(scores, classes, positive, unannotated, _):
    """Scores of the positives, class after class, and a function that counts: see `count_in_buckets`."""
    entries = _class_major(scores, classes, np.dtype(np.float32))  # [B, N]
    _check_numbers(entries, unannotated, classes)
    return entries.take(positive), lambda thresholds, firsts: count_in_buckets(entries, unannotated, thresholds, firsts)


def _by_sorting(scores, classes, positive, unannotated, num_annotated):
    """The same of any dtype, by a binary search in the sorted scores of the annotated entries."""
    annotated = None if unannotated is None else np.flatnonzero(~unannotated)
    if annotated is not None and len(annotated) < _SPARSE * unannotated.size:
        hits, entries = _pick(scores, classes, positive), _pick(scores, classes, annotated)
    else:
        entries = _class_major(scores, classes, _sortable(scores.dtype)).reshape(-1)
        hits = entries.take(positive)
        entries = entries if annotated is None else entries.take(annotated)
    entries_of = _split(entries, np.append(0, np.cumsum(num_annotated)))
    for c in range(len(num_annotated)):
        entries_of(c).sort()
        _check_numbers(entries_of(c)[None, -1:], None, slice(classes.start + c, None))  # NaN sorts last

    def count(thresholds, firsts):
        counts = np.repeat(num_annotated, np.diff(firsts))
        counts_of, thresholds_of = _split(counts, firsts), _split(thresholds, firsts)
        for c in np.flatnonzero(np.diff(firsts)):
            counts_of(c)[:] -= entries_of(c).searchsorted(thresholds_of(c))
        return counts

    return hits, count


def _check_numbers(scores, ignored, classes):
    """Raise InputError where scores [B, N] of the columns `classes` hold a NaN that is not ignored."""
    if scores.size == 0 or not np.isnan(scores.max()):
        return
    bad = np.isnan(scores) if ignored is None else np.isnan(scores) & ~ignored
    if bad.any():
        raise InputError(
            f"scores: found NaN in column {classes.start + int(bad.any(axis=1).argmax())}, expected numbers"
        )


def _rank_block_on_device(scores, targets, classes, unannotated_is_negative):
    """`_ranked` for the columns `classes` (B of them) of a torch tensor, on its device; targets may be on the host.

    The plain form of the definition: sort, count along the ranking, read the counts where a run of equal scores ends.
    Un-annotated entries stay in the ranking and are not counted, which is the same as leaving them out.
    """
    import torch

    if len(scores) == 0:
        return 0.0, 0, 0
    labels = targets[:, classes]
    if not is_tensor(labels):
        labels = torch.from_numpy(np.ascontiguousarray(as_int8(labels)))
    labels = as_int8(labels).to(scores.device).t()  # [B, N]
    check_labels(labels, classes)
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


def _sortable(dtype):
    """The dtype to rank in: float32 for half precision, which few processors sort natively; else as it is."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _class_major(array, classes, dtype):
    """Columns `classes` of an [N, C] array as a new contiguous [B, N], in tiles that fit the cache."""
    out = np.empty((classes.stop - classes.start, len(array)), dtype)
    for first in range(0, len(array), _TILE_ROWS):
        tile = array[first : first + _TILE_ROWS, classes]
        out[:, first : first + _TILE_ROWS] = (as_int8(tile) if dtype == np.int8 else tile).T
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
