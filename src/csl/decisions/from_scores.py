"""From the scores of held-out images, and what is known of them, to calibration and thresholds."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from csl.decisions.calibration import as_it_is, calibrate, logits
from csl.decisions.decisions import COMMON, FEW, OWN, Decisions, Rows
from csl.decisions.thresholds import FEWEST, Curve, Goal, common_threshold, interval
from csl.errors import InputError
from csl.labels import LabelMatrix
from csl.labels.class_set import several_values
from csl.losses.annotation import annotated_shares, annotation_delta
from csl.prior import estimate_prior

MOST_ENTRIES = 1 << 25
"""Entries (images times classes) that are looked at: of more images as many, spread evenly."""


def undecidable(labels: LabelMatrix, prior: Tensor | None = None) -> str | None:
    """Why labels give no decisions, None where they do; a prior [C] stands in for negatives that nobody annotated."""
    counts = labels.counts()
    if not counts.positives.any():
        return "no positive is known"
    if ((counts.positives > 0) & (counts.negatives > 0)).any() or prior is not None:
        return None
    return "no class has a known positive and a known negative, and there is no class prior"


def decide(
    probabilities: np.ndarray,
    labels: LabelMatrix,
    groups: Mapping[str, slice] | None = None,
    goal: Goal | None = None,
    prior: Tensor | np.ndarray | None = None,
) -> Decisions:
    """Calibrate a network and choose the thresholds of its classes and attributes.

    Known labels are calibrated first as they are: then the scores are those of a network that was trained on known labels, as
    `csl.prior.estimate_prior` wants them, whatever the network was trained with. With the prior that it finds, all entries
    are calibrated under the annotation model.

    Args:
        probabilities: float [N, C] in [0, 1], scores of images that the network was not trained on.
        labels: [N, C] what is known of them.
        groups: attribute -> slice of classes.
        goal: of the thresholds; None for the best F1.
        prior: [C] in (0, 1) frequencies of the classes, taken only where no class has a known positive and a known negative.

    Raises:
        InputError: `undecidable`, shapes that do not fit, or a score that is no number in [0, 1].
    """
    goal = goal or Goal()
    if (why := undecidable(labels, None if prior is None else torch.as_tensor(prior))) is not None:
        raise InputError(f"thresholds: {why}, expected some known labels")
    if probabilities.shape != labels.shape:
        raise InputError(
            f"thresholds: scores {probabilities.shape} and labels {labels.shape}, expected one shape [N, C]"
        )
    images, classes = probabilities.shape
    if images * classes > MOST_ENTRIES:
        rows = np.unique(np.linspace(0, images - 1, max(MOST_ENTRIES // classes, 1)).astype(np.int64))
        probabilities, labels = probabilities[rows], labels.select(rows)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN is neither
        raise InputError("thresholds: a score outside of [0, 1], expected probabilities")
    s, y = logits(probabilities).astype(np.float32), labels.to_dense()  # [N, C]
    shows = (y == 1).any(0) & ((y == 0).any(0) | (prior is not None))
    calibration, pi, shares, shown = _calibrated(s, y, shows, prior)
    common = common_threshold((Curve(calibration.of_class(c, s[:, c])) for c in np.flatnonzero(shows)), goal)
    rows = [
        _row(calibration.of_class(c, s[:, c]), y[:, c], shares[c], goal, None if shows[c] else common)
        for c in range(classes)
    ]
    attributes, names = _attributes(s, y, calibration, groups, goal)
    return Decisions(str(goal), shown, _table(calibration, rows), pi.tolist(), common, len(s), attributes, names)


def _calibrated(s, y, shows, prior):
    """The calibration, the prior [C], the annotated share of positives [C], and what the probabilities are of, in words."""
    positives, negatives = (y == 1).sum(0), (y == 0).sum(0)  # [C]
    both, images = (positives > 0) & (negatives > 0), len(y)
    if not (y == -1).any():
        pi, shown = positives / images, "as annotated: every label is known"
    elif both.any():
        among_known = np.log(positives.clip(1) / negatives.clip(1))
        as_known = calibrate(s, y, np.zeros(len(both)), np.where(both, among_known, 0.0), both)
        pi = np.asarray(estimate_prior(as_known.slope * s + as_known.bias, y), np.float64)
        random = np.allclose(pi[both], (positives / (positives + negatives).clip(1))[both], rtol=1e-4)
        shown = "as annotated: annotation is random" if random else "of all images, by the estimated prior"
    else:
        pi, shown = np.asarray(prior, np.float64), "of all images, by the prior of the run"
    known = torch.from_numpy(np.stack([positives, negatives]) / images)
    shares = annotated_shares(torch.from_numpy(pi), known)
    e1, e0 = (share.numpy() for share in shares)
    odds = np.where(both, np.log(e1.clip(1e-9) / e0.clip(1e-9)), 0.0)
    calibration = calibrate(s, y, annotation_delta(*shares).numpy(), odds, shows)
    for c in np.flatnonzero(~shows):  # nothing but its scores tells how frequent it is
        pi[c] = calibration.of_class(c, s[:, c]).mean()
    return calibration, pi, e1, shown


def _row(q, labels, share, goal, common):
    """threshold, reached, low, high and basis of a class; with the common threshold where this is given."""
    curve = Curve(q)
    threshold = _threshold(curve, goal, curve.hits[-1]) if common is None else common
    hits, predictions = curve.above(threshold)
    reached = float(goal.reached(hits, predictions, curve.hits[-1])) if predictions else np.nan
    if common is not None:
        return threshold, reached, np.nan, np.nan, COMMON
    few = min((labels == 1).sum(), (labels == 0).sum()) < FEWEST
    return threshold, reached, *interval(q > threshold, labels == 1, share, goal), FEW if few else OWN


def _threshold(curve, goal, positives):
    place = goal.place(curve.hits, curve.predictions, positives)
    # Not even the highest has the wished precision: what comes later may.
    return goal.value if place is None else curve.threshold(place)


def _table(calibration, rows):
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 5
    return Rows(calibration.slope.tolist(), calibration.bias.tolist(), *columns)


def _attributes(s, y, calibration, groups, goal):
    """The same of the best value of each attribute of several classes, on the images where its value is known; and their names.

    The best value is right, wrong, or unknown: these are labels, of which the calibration makes probabilities as of a class.
    """
    values = several_values(groups)
    names = list(values)
    if not names:
        return Rows([], [], [], [], [], [], []), []
    share, right = np.empty((len(s), len(names))), np.full((len(s), len(names)), -1, np.int8)  # [N, A]
    for a, group in enumerate(values.values()):
        q = np.stack([calibration.of_class(c, s[:, c]) for c in range(group.start, group.stop)], 1)  # [N, K]
        best = q.argmax(1)
        share[:, a] = q.max(1) / q.sum(1).clip(1e-12)
        known = (y[:, group] == 1).any(1)
        right[known, a] = (y[known, group.start + best[known]] == 1).astype(np.int8)
    s, known = logits(share), right != -1
    shows = (right == 1).any(0) & (right == 0).any(0)
    nothing = np.zeros(len(names))
    calibration = calibrate(s, right, nothing, nothing, shows) if shows.any() else as_it_is(len(names))
    rows = [_row_of_attribute(calibration.of_class(a, s[:, a])[known[:, a]], right[known[:, a], a], goal)
            for a in range(len(names))]  # fmt: skip
    return _table(calibration, rows), names


def _row_of_attribute(q, labels, goal):
    """Of the images where the value is known: how many of the best values that are sure enough are right."""
    if not len(q):
        return 0.0, np.nan, np.nan, np.nan, COMMON
    curve, images = Curve(q), len(q)
    threshold = _threshold(curve, goal, images)
    threshold = 0.0 if threshold < curve.q[-1] else threshold  # nothing is unsure
    hits, predictions = curve.above(threshold)
    reached = float(goal.reached(hits, predictions, images)) if predictions else np.nan
    low, high = interval(q > threshold, labels == 1, 1.0, goal, all_are=True)
    return threshold, reached, low, high, FEW if images < FEWEST else OWN
