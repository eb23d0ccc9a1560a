"""Cross-entropy of probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csl.metrics.arrays import POSITIVE, UNANNOTATED, in_rows, inputs

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
    total, entries = 0.0, 0
    for _, p, labels in in_rows(*inputs(probabilities, targets)):  # [B, C] both
        p = p.astype(np.float64)
        likelihood = np.where(labels == POSITIVE, p, 1 - p)[labels != UNANNOTATED]
        total -= np.log(np.maximum(likelihood, _FLOOR)).sum()
        entries += likelihood.size
    return float(total / entries) if entries else float("nan")
