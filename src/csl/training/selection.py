"""Which evaluation of a run is the best, so that its weights become `best.ckpt`."""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from csl.errors import InputError
from csl.labels import LabelMatrix
from csl.metrics import cross_entropy, estimated_mean_average_precision, mean_average_precision

CHOICES = ("annotated", "estimated", "auto")
"""What `--select_by` may be."""

LIKELIER = 2.0
"""How many times likelier a label is to be known where its class is there, or is not, before annotation depends on it."""

WORDS = {
    "mAP": "the mAP on annotated entries",
    "mAP_estimated": "the estimated mAP",
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


def not_estimated(labels: LabelMatrix, prior: Tensor | None) -> str | None:
    """Why there is no estimated mAP on these labels with this prior [C], None where there is one."""
    counts = labels.counts()
    if prior is None:
        return "no class prior"
    if not counts.unannotated.any():
        return "every label of the validation images is known"
    return None if counts.positives.any() else "no known positive among the validation images"


def choose(labels: LabelMatrix, prior: Tensor | None, select_by: str) -> tuple[str | None, str]:
    """The criterion of `best.ckpt`, and why in words.

    Args:
        labels: of the validation images.
        prior: [C] the frequency of each class, None without one.
        select_by: one of `CHOICES`; "auto" takes the estimated mAP where known negatives are missing, or where in the
            middle class a label is more than `LIKELIER` times as likely to be known with the class as without, or the
            other way round.

    Raises:
        InputError: "estimated" where there is no estimate.
    """
    off = not_estimated(labels, prior)
    if select_by == "estimated":
        if off:
            raise InputError(f"--select_by estimated: {off}, expected auto or annotated")
        return "mAP_estimated", "--select_by estimated"
    if select_by == "annotated" or off:
        return criterion(labels), "--select_by annotated" if select_by == "annotated" else off or ""
    counts, pi = labels.counts(), np.clip(np.asarray(prior.cpu(), float), 1e-6, 1 - 1e-6)
    both = (counts.positives > 0) & (counts.negatives > 0)
    if 2 * both.sum() < (counts.positives > 0).sum():
        return "mAP_estimated", "known negatives are missing"
    odds = np.log(counts.positives[both] / counts.negatives[both]) - np.log(pi / (1 - pi))[both]
    times = math.exp(np.median(np.abs(odds)))
    depends = f"{times:.2g} times likelier to be known on one side of its class than on the other (median; random is 1)"
    return "mAP_estimated" if times > LIKELIER else criterion(labels), f"a label is {depends}"


def validation_numbers(
    probabilities: np.ndarray, targets: np.ndarray, criterion: str | None, prior: Tensor | None = None
) -> dict[str, float]:
    """The mAPs in percent, and the cross-entropy where it is the criterion, of probabilities and targets [N, C].

    With a prior [C] the estimated mAP is one of them.
    """
    numbers = {
        "mAP": mean_average_precision(probabilities, targets),
        "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
    }
    if prior is not None:
        numbers |= estimated_mean_average_precision(probabilities, targets, prior, draws=0)
    return numbers | ({"cross_entropy": cross_entropy(probabilities, targets)} if criterion == "cross_entropy" else {})


def rank(numbers: Mapping[str, float], criterion: str | None) -> float:
    """The greater the better; minus infinity where the criterion is NaN."""
    value = numbers.get(criterion, math.nan) if criterion else math.nan
    return -math.inf if math.isnan(value) else -value if criterion == "cross_entropy" else value
