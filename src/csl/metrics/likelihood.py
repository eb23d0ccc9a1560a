"""Cross-entropy of probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csl.metrics import arrays
from csl.metrics.arrays import POSITIVE, UNANNOTATED, check_labels, host, inputs, labels_beside

if TYPE_CHECKING:
    from csl.metrics.arrays import Array, Targets

_FLOOR = 1e-12  # least probability inside a logarithm


def cross_entropy(probabilities: Array, targets: Targets) -> float:
    """Mean over annotated entries of - log p of what is annotated: p of a positive, 1 - p of a negative.

    Args:
        probabilities: float [N, C] in [0, 1].
        targets: [N, C] in {1, 0, -1}.

    Returns:
        0 or more, in nats; NaN if nothing is annotated.

    Raises:
        InputError: shapes that do not match, or a target that is not 1, 0 or -1.
    """
    probabilities, targets = inputs(probabilities, targets)
    total, entries, step = 0.0, 0, max(1, arrays.CHUNK_ENTRIES // max(probabilities.shape[1], 1))
    for first in range(0, len(probabilities), step):
        p = host(probabilities[first : first + step]).astype(np.float64)  # [B, C]
        labels = host(labels_beside(p, host(targets[first : first + step])))  # [B, C]
        check_labels(labels.T, slice(0, labels.shape[1]))
        likelihood = np.where(labels == POSITIVE, p, 1 - p)[labels != UNANNOTATED]
        total -= np.log(np.maximum(likelihood, _FLOOR)).sum()
        entries += likelihood.size
    return float(total / entries) if entries else float("nan")
