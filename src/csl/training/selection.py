"""Which evaluation of a run is the best, so that its weights become `best.ckpt`."""

import math
from collections.abc import Mapping

import numpy as np

from csl.labels import LabelMatrix
from csl.metrics import cross_entropy, mean_average_precision

WORDS = {
    "mAP": "the mAP on annotated entries",
    "mAP_negative": "the mAP with un-annotated as negative (no class has both a known positive and a known negative)",
    "cross_entropy": "the least cross-entropy on annotated entries (no class has positives and other labels)",
    None: "the last one (no label is known)",
}
"""What each criterion of `criterion` takes for the best evaluation."""


def criterion(labels: LabelMatrix) -> str | None:
    """The number that tells which of two evaluations on these labels is the better: the first that is defined.

    An mAP needs a class with positives and negatives. Without one it is NaN, or the same whatever the scores are.
    """
    counts = labels.counts()
    if ((counts.positives > 0) & (counts.negatives > 0)).any():
        return "mAP"
    if ((counts.positives > 0) & (counts.positives < len(labels))).any():
        return "mAP_negative"
    return "cross_entropy" if (counts.unannotated < len(labels)).any() else None


def validation_numbers(probabilities: np.ndarray, targets: np.ndarray, criterion: str | None) -> dict[str, float]:
    """Both mAPs in percent, and the cross-entropy where it is the criterion, of probabilities and targets [N, C]."""
    numbers = {
        "mAP": mean_average_precision(probabilities, targets),
        "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
    }
    return numbers | ({"cross_entropy": cross_entropy(probabilities, targets)} if criterion == "cross_entropy" else {})


def rank(numbers: Mapping[str, float], criterion: str | None) -> float:
    """The greater the better; minus infinity where the criterion is NaN."""
    value = numbers.get(criterion, math.nan) if criterion else math.nan
    return -math.inf if math.isnan(value) else -value if criterion == "cross_entropy" else value
