"""Average precision with all labels known, estimated from known positives and the scores of all images.

The average precision over annotated entries ranks networks wrongly where annotation depends on the label, and does not
exist where no negative is known. But if within a class annotation depends on the label alone, the known positives are a fair
sample of its positives, and all images together are one of the scores. With pi the frequency of the class,

    TPR(s) = share of its known positives that score at least s,    Q(s) = share of all images that score at least s,
    precision(s) = pi TPR(s) / Q(s),    AP = mean of precision(s_i) over the known positives i.

No negative is needed. Two corrections for few of them: the k-th of m known positives is taken to lie at k - (1 - m / P) / 2
of them, P = pi N, for its own place counts half among those that are not known (and whole where all are: then the result is
the average precision); and a precision may come out as 1.25 before the mean, which 1 ends, for what chance adds is to
balance what it takes away. AP is about proportional to pi where precision is low: an error of the prior moves it as much, for
every network alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csl.errors import InputError
from csl.metrics.arrays import POSITIVE, host, inputs
from csl.metrics.bootstrap import DRAWS, drawn_images, spread
from csl.metrics.ranking import columns, found_nan, in_blocks

if TYPE_CHECKING:
    from csl.metrics.arrays import Array, Targets

ESTIMATES = ("mAP_estimated", "mAP_estimated_half_prior", "mAP_estimated_twice_prior")
"""With the prior, and with half and twice of it."""

_MOST = 1.25  # precision at one positive, before the mean
_BLOCK = 1 << 22  # entries of the draws of a class at a time


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
    return _estimates(scores, targets, prior, (1,), 0)[:, 0, 0]


def estimated_mean_average_precision(
    scores: Array, targets: Targets, prior: Array, draws: int = DRAWS
) -> dict[str, float]:
    """The mean of `estimated_average_precision` over the classes that have a known positive, and how sure it is.

    Args:
        scores, targets, prior: as `estimated_average_precision`.
        draws: of N images with replacement, for the interval: the estimate and 1.645 standard deviations over the draws
            on each side. It holds for errors of sampling, not of the prior. 0 for none.

    Returns:
        In percent, NaN if no class has a known positive: `mAP_estimated`; `mAP_estimated_half_prior` and
        `mAP_estimated_twice_prior`, with every prior half and twice as high; with draws `mAP_estimated_low` and
        `mAP_estimated_high`, which hold 90 % of a normal distribution.

    Raises:
        InputError: as `estimated_average_precision`.
    """
    by_class = _estimates(scores, targets, prior, (1, 0.5, 2), draws)  # [C, 1 + draws, 3]
    by_class = 100 * by_class[~np.isnan(by_class[:, 0, 0])]
    numbers = dict.fromkeys([*ESTIMATES, "mAP_estimated_low", "mAP_estimated_high"][: 5 if draws else 3], float("nan"))
    if not len(by_class):
        return numbers
    numbers |= zip(ESTIMATES, by_class[:, 0].mean(0).tolist(), strict=True)
    if draws:
        drawn = by_class[:, 1:, 0]  # NaN where a draw has no known positive of the class
        half = float(spread(np.ma.masked_invalid(drawn).mean(0)))
        middle = numbers["mAP_estimated"]
        numbers |= {"mAP_estimated_low": max(middle - half, 0.0), "mAP_estimated_high": min(middle + half, 100.0)}
    return numbers


def estimated_f1(scores: Array, targets: Targets, prior: Array, threshold: Array | float) -> np.ndarray:
    """F1 of `scores > threshold` with all labels known, 2 pi TPR / (pi + Q), estimated from known positives and all scores.

    Args:
        scores, targets, prior: as `estimated_average_precision`.
        threshold: one, or [C].

    Returns:
        float64 [C] in [0, 1]; NaN for a class without known positives.

    Raises:
        InputError: as `estimated_average_precision`.
    """
    scores, targets, prior = _inputs(scores, targets, prior)
    threshold, by_class = np.broadcast_to(threshold, prior.shape), targets.T

    def f1(classes):
        values, labels = columns(scores, by_class, classes)  # [B, N] both
        above, known = values > threshold[classes, None], labels == POSITIVE
        with np.errstate(invalid="ignore"):  # no known positive
            found = (above & known).sum(1) / known.sum(1)  # TPR
        predicted, pi = above.mean(1), np.maximum(prior[classes], known.mean(1))
        return 2 * np.minimum(pi * found, predicted) / np.maximum(pi + predicted, 1e-12)

    blocks = in_blocks(f1, scores.shape[1])
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _inputs(scores, targets, prior):
    """Scores [N, C] and targets of one shape, and a prior [C]."""
    scores, targets = inputs(scores, targets)
    prior = np.asarray(host(prior), dtype=np.float64)
    if prior.shape != scores.shape[1:]:
        raise InputError(f"prior: found shape {prior.shape}, expected {scores.shape[1:]}, one value for each class")
    if not ((prior >= 0) & (prior <= 1)).all():
        raise InputError("prior: expected frequencies in [0, 1]")
    return scores, targets, prior


def _estimates(scores, targets, prior, factors, draws):
    """float64 [C, 1 + draws, F]: of all images first, then of each draw; with the prior times each of the factors."""
    scores, targets, prior = _inputs(scores, targets, prior)
    images, by_class = len(scores), targets.T
    weights = drawn_images(images, draws)
    expected = np.minimum(np.multiply.outer(prior, factors), 1) * images  # [C, F] positives

    def estimate(classes):
        values, labels = columns(scores, by_class, classes)  # [B, N] both
        if np.isnan(values).any():
            raise found_nan(classes.start + int(np.isnan(values).any(1).argmax()))
        return [
            _estimate(v, y == POSITIVE, weights, p) for v, y, p in zip(values, labels, expected[classes], strict=True)
        ]

    blocks = in_blocks(estimate, scores.shape[1])
    return np.array([ap for block in blocks for ap in block]).reshape(-1, 1 + draws, len(factors))


def _estimate(values, known, weights, expected):
    """float64 [D, F] of one class: values and known [N], weights [D, N], expected positives [F]."""
    ap = np.full((len(weights), len(expected)), np.nan)
    if not known.any():
        return ap
    order = np.argsort(values)
    values, places = values[order], np.flatnonzero(known[order])
    first = values.searchsorted(values[places])  # of the entries that score as much or more
    equal = values[places].searchsorted(values[places])
    step = max(_BLOCK // len(values), 1)
    for start in range(0, len(weights), step):
        block = slice(start, start + step)
        above = _from(weights[block][:, order], first)  # [S, m] entries
        times = weights[block][:, order[places]]  # [S, m]
        found = _from(times, equal)
        total = found[:, :1]  # known positives
        for f, positives in enumerate(expected):
            everywhere = np.maximum(positives, total)
            with np.errstate(invalid="ignore", divide="ignore"):  # a draw without any
                precision = everywhere * (found - (1 - total / everywhere) / 2) / total / above
                ap[block, f] = np.minimum((times * np.minimum(precision, _MOST)).sum(1) / total[:, 0], 1)
    return ap


def _from(times, places):
    """The sums of times [S, N] from each of the places [m] to the end: int64 [S, m]."""
    sums = times.cumsum(1, dtype=np.int64)
    return sums[:, -1:] - sums[:, places] + times[:, places]
