"""Average precision with all labels known, estimated from known positives and the scores of all images.

The average precision over annotated entries ranks networks wrongly where annotation depends on the label, and does not
exist where no negative is known. But if within a class annotation depends on the label alone, the known positives are a fair
sample of its positives, and all images together are one of the scores. With pi the frequency of the class,

    TPR(s) = share of its known positives that score at least s,    Q(s) = share of all images that score at least s,
    precision(s) = min(1, pi TPR(s) / Q(s)),    AP = mean of precision(s_i) over the known positives i.

No negative is needed. It is about proportional to pi where precision is low: an error of the prior moves it as much, for
every network alike. From a handful of positives it comes out too high, for the first of them is ahead of the others by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csl.errors import InputError
from csl.metrics.arrays import POSITIVE, host, inputs, is_tensor
from csl.metrics.ranking import columns, found_nan, in_blocks

if TYPE_CHECKING:
    from csl.metrics.arrays import Array, Targets


def estimated_average_precision(scores: Array, targets: Targets, prior: Array) -> np.ndarray:
    """Average precision of every class with all labels known, estimated from its known positives and all scores.

    Args:
        scores: float [N, C], any scale, of images that the network was not trained on.
        targets: [N, C] in {1, 0, -1}; negatives are not looked at.
        prior: [C] in [0, 1], the frequency of each class among all images.

    Returns:
        float64 [C] in [0, 1]; NaN for a class without known positives.

    Raises:
        InputError: shapes differ, a target is not 1, 0 or -1, a score is NaN, or a prior lies outside [0, 1].
    """
    scores, targets = inputs(host(scores), host(targets) if is_tensor(targets) else targets)
    prior = np.asarray(host(prior), dtype=np.float64)
    if prior.shape != scores.shape[1:]:
        raise InputError(f"prior: found shape {prior.shape}, expected {scores.shape[1:]}, one value for each class")
    if not ((prior >= 0) & (prior <= 1)).all():
        raise InputError("prior: expected frequencies in [0, 1]")
    by_class = targets.T
    blocks = in_blocks(lambda classes: _estimate(scores, by_class, classes, prior), scores.shape[1])
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _estimate(scores, by_class, classes, prior):
    """float64 [B] the estimates of some classes."""
    values, labels = columns(scores, by_class, classes)  # [B, N] both
    ap = np.full(len(labels), np.nan)
    for c in range(len(labels)):
        entries = np.sort(values[c])
        if np.isnan(entries[-1:]).any():  # NaN sorts last
            raise found_nan(classes.start + c)
        if len(hits := np.sort(values[c, labels[c] == POSITIVE])):
            found = (len(hits) - hits.searchsorted(hits)) / len(hits)  # TPR at each known positive's score
            marginal = (len(entries) - entries.searchsorted(hits)) / len(entries)  # Q
            ap[c] = np.minimum(1, prior[classes.start + c] * found / marginal).mean()
    return ap
