"""Precision, recall and F1 at a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csl.errors import InputError
from csl.metrics.arrays import POSITIVE, UNANNOTATED, in_rows, inputs

if TYPE_CHECKING:
    from csl.metrics.arrays import Array, Targets


def precision_recall_f1(scores: Array, targets: Targets, threshold: float | np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of `scores > threshold`, per class and overall, over annotated entries, in percent.

    P_C, R_C and F_C are taken per class and then averaged; F_C is the mean of the classes' F1 (as the original CSL and
    ASL code does, and not the harmonic mean of P_C and R_C, which some papers print). P_O, R_O and F_O are taken over
    all entries at once. An empty denominator counts 0, as in the original: the precision of a class never
    predicted, the recall of one without positives. A class without annotated entries is left out of the means.

    Args:
        scores: float [N, C].
        targets: [N, C] in {1, 0, -1}.
        threshold: on the scale of the scores, one or [C]; a score equal to it is not a prediction.

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


def averaged_scores(scores: Array, targets: Targets, threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """Micro, macro and samples averages of the precision, recall and F1 of `scores > threshold`.

    On complete labels they equal scikit-learn's `precision_recall_fscore_support(targets, scores > threshold,
    average=..., zero_division=0)`. Otherwise only annotated entries count, and a class (macro) or image (samples)
    without any is left out of the mean.

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
    scores, targets = inputs(scores, targets)
    num_samples, num_classes = scores.shape
    per_class = np.zeros((4, num_classes), np.int64)
    per_sample = np.zeros((4, num_samples), np.int64)
    for rows, chunk, labels in in_rows(scores, targets):
        annotated, positive = labels != UNANNOTATED, labels == POSITIVE
        bad = np.isnan(chunk) & annotated
        if bad.any():
            raise InputError(f"scores: found NaN in column {int(bad.argmax()) % num_classes}, expected numbers")
        predicted = (chunk > threshold) & annotated
        for k, mask in enumerate((predicted & positive, predicted, positive, annotated)):
            per_class[k] += mask.sum(0)
            per_sample[k, rows] = mask.sum(1)
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
