"""The table of a report: a row for each class, and what is drawn of it on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from csl.labels.matrix import ClassCounts
from csl.metrics import KnownScores, average_precision_of_draws
from csl.metrics.bootstrap import DRAWS, spread
from csl.report.charts import BINS

FEW = 5
"""Known positives, or negatives, under which no interval is given: the draws repeat the same few images."""

MOST_DRAWN = 200_000_000
"""Known entries times draws, a minute or so of work; of more labels there are no intervals."""

_POINTS = 400_000  # of all curves together: a few megabytes of page


@dataclass(frozen=True)
class Column:
    """A column of a table on a page.

    Attributes:
        title: short.
        help: what it says, in a sentence.
        kind: "text", "count", or "percent", "share" and "change" for numbers that are shown with their digits.
        values: C of them; None where there is none.
    """

    title: str
    help: str
    kind: str
    values: list


@dataclass(frozen=True)
class Precision:
    """Average precision on annotated entries.

    Attributes:
        of_draws: float64 [C, 1 + draws] in percent, on all images first; no draws where they would take too long.
        positives, negatives: int64 [C] known.
    """

    of_draws: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def of(cls, known: KnownScores) -> "Precision":
        """Of the scores of known entries."""
        draws = DRAWS if len(known) * DRAWS <= MOST_DRAWN else 0
        return cls(100 * average_precision_of_draws(known, draws), *known.counts())

    @property
    def ap(self) -> np.ndarray:
        """[C] in percent, NaN where it is not defined."""
        return self.of_draws[:, 0]

    def half(self) -> np.ndarray:
        """[C] half the width of the 90 % interval; NaN where `FEW` say nothing, or without draws."""
        half = spread(self.of_draws[:, 1:]) if self.of_draws.shape[1] > 1 else np.full(len(self.of_draws), np.nan)
        return np.where(np.minimum(self.positives, self.negatives) < FEW, np.nan, half)

    def mean(self) -> tuple[float, float]:
        """mAP in percent, and half the width of its 90 % interval; NaN where no class has one, or without draws."""
        of_draws = mean_of_draws(self.of_draws[~np.isnan(self.ap)])
        return float(of_draws[0]), float(spread(of_draws[1:])) if len(of_draws) > 1 else float("nan")


def mean_of_draws(ap: np.ndarray) -> np.ndarray:
    """[1 + draws] the mean over classes of [C, 1 + draws], those left out of a draw that have no AP in it."""
    return np.ma.filled(np.ma.masked_invalid(ap).mean(0), np.nan) if len(ap) else np.full(ap.shape[1], np.nan)


def reliability_bins(known: KnownScores) -> np.ndarray:
    """[C, BINS, 3] number, sum of scores and number of positives of the known entries in each part of [0, 1]."""
    place = np.minimum((known.scores * BINS).astype(np.int64), BINS - 1).clip(0) + BINS * known.classes
    size = BINS * known.num_classes
    parts = [np.bincount(place, weights, minlength=size) for weights in (None, known.scores, known.labels)]
    return np.stack(parts, 1).reshape(-1, BINS, 3)


def calibration_error(bins: np.ndarray) -> np.ndarray:
    """[...] expected calibration error in [0, 1] of bins [..., BINS, 3] (Naeini et al., AAAI 2015); NaN without entries."""
    total = bins[..., 0].sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(bins[..., 1] - bins[..., 2]).sum(-1) / total


def columns(
    classes: Sequence[str],
    groups: Mapping[str, slice] | None,
    num_images: int,
    precision: Precision | None,
    bins: np.ndarray | None,
    train: ClassCounts | None,
    prior: np.ndarray | None,
    estimated: np.ndarray | None,
    mean_score: np.ndarray | None,
) -> list[Column]:
    """The columns of the class table.

    Args:
        classes: C names.
        groups: attributes.
        num_images: of validation.
        precision, bins: of validation, None without known labels.
        train: counts of the labels trained on.
        prior: [C] the class prior that training used.
        estimated: [C] AP estimated as if all labels were known, in [0, 1].
        mean_score: [C] the mean prediction on validation images.
    """
    made = [Column("class", "", "text", list(classes))]
    attribute = {c: name for name, group in (groups or {}).items() for c in range(group.start, group.stop)}
    if attribute:
        made.append(
            Column("attribute", "whose value the class is", "text", [attribute.get(c) for c in range(len(classes))])
        )
    if precision is not None:
        half = precision.half()
        made += [
            Column("AP", "average precision on known validation labels, %", "percent", precision.ap),
            Column("from", "90 % of draws of the images: lower end", "percent", np.maximum(precision.ap - half, 0)),
            Column("to", "90 % of draws of the images: upper end", "percent", np.minimum(precision.ap + half, 100)),
        ]
    if estimated is not None:
        made.append(
            Column("AP est.", "average precision estimated as if all labels were known, %", "percent", 100 * estimated)
        )
    if precision is not None:
        unknown = num_images - precision.positives - precision.negatives
        made += [
            Column("val +", "validation images known to have the class", "count", precision.positives),
            Column("val −", "validation images known to lack the class", "count", precision.negatives),
            Column("val ?", "validation images where nobody knows", "count", unknown),
        ]
    if train is not None:
        known = train.positives + train.negatives
        with np.errstate(invalid="ignore", divide="ignore"):
            frequency = train.positives / known
        made += [
            Column("train +", "training images known to have the class", "count", train.positives),
            Column("train −", "training images known to lack the class", "count", train.negatives),
            Column("train ?", "training images where nobody knows", "count", train.unannotated),
            Column("known freq.", "share of positives among the known training labels, %", "share", 100 * frequency),
        ]
    if prior is not None:
        made.append(Column("prior", "class prior that training used, %", "share", 100 * prior))
    if mean_score is not None:
        made.append(Column("mean score", "mean prediction on validation images, %", "share", 100 * mean_score))
    if bins is not None:
        error = 100 * calibration_error(bins)
        made.append(
            Column("calib. error", "expected calibration error of the scores on known labels, %", "percent", error)
        )
    return made


def plain(values: Sequence | np.ndarray) -> list:
    """Values of a column for JSON: floats of four digits after the point, None for NaN."""
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.dtype.kind != "f":
        return values.tolist()
    return [None if np.isnan(value) else round(value, 4) for value in values.tolist()]


def curves(known: KnownScores) -> list[list[int]]:
    """The precision-recall curve of each class as recall, precision, recall, ... in thousandths; [] where there is none.

    A point for each score that is a threshold, as scikit-learn's `precision_recall_curve`, which takes a millisecond a class;
    of long curves some points, spread evenly, and no others.
    """
    most = int(np.clip(_POINTS // max(known.num_classes, 1), 12, 100))
    found = []
    for _, scores, labels in known:
        total = int(labels.sum())
        if total in (0, len(labels)):
            found.append([])
            continue
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], labels[order].cumsum(dtype=np.int64)
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of the runs of equal scores
        if len(ends) > most:
            ends = ends[np.linspace(0, len(ends) - 1, most).round().astype(int)]
        pairs = np.stack([hits[ends] / total, hits[ends] / (ends + 1)], 1)
        found.append((1000 * pairs).round().astype(int).ravel().tolist())
    return found


def diagrams(bins: np.ndarray) -> list[list[int]]:
    """The reliability diagram of each class: mean score and share of positives in thousandths, and number, of bins with any."""
    found = []
    for total, of_scores, hits in bins.transpose(0, 2, 1):
        there = np.flatnonzero(total)
        parts = 1000 * of_scores[there] / total[there], 1000 * hits[there] / total[there], total[there]
        found.append(np.stack(parts, 1).round().astype(int).ravel().tolist())
    return found
