"""Thresholds of classes: the best F1, or a wished precision or recall, among all images.

Above a threshold t of calibrated probabilities q a class has as many predictions as there are images with q > t, and among them
hits(t), the sum of their q, as many positives as are to be expected. Then

    precision(t) = hits(t) / predictions(t),  recall(t) = hits(t) / hits(0),  F1(t) = 2 hits(t) / (predictions(t) + hits(0)).

The known labels have their say through the calibration, which for a class of few leans on the other classes, and so does its
threshold. Counting the known positives above t instead, or beside, fits their noise: docs/decisions.md has both.

The interval is another matter: it is what the known labels alone bear out. With e1 the share of positives that is annotated
(`csl.losses.annotation`) each known positive stands for 1 / e1, so that precision is pi TPR / Q as in `csl.metrics.estimated`.
An image is a known positive or not, above t or not, and the four shares are drawn from a Dirichlet distribution with Jeffreys'
prior, a Bayesian bootstrap over images (Rubin, Annals of Statistics 1981). It holds for errors of sampling, not of the prior.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from csl.errors import InputError
from csl.machine.draws import generator

INTERVAL = 0.9
"""The share of the draws that an interval holds, as many on each side."""

FEWEST = 9
"""Known positives, and known negatives, below which a class has few: if half of 8 are above the threshold, the interval of the
share that is above (a beta distribution with Jeffreys' prior) is wider than half of all shares."""

DRAWS = 500
STEPS = np.linspace(0.005, 0.995, 199)
"""The common thresholds that are tried."""

MEASURES = ("f1", "precision", "recall")


@dataclass(frozen=True)
class Goal:
    """What thresholds are to reach: the best F1, or at least so much precision or recall.

    Attributes:
        measure: one of `MEASURES`.
        value: in (0, 1); None for the best F1.
    """

    measure: str = "f1"
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Goal":
        """ "precision=0.9" or "recall=0.8"; "f1" for the best F1.

        Raises:
            InputError: anything else.
        """
        measure, equals, number = text.strip().lower().partition("=")
        if measure == "f1" and not equals:
            return cls()
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if measure not in MEASURES[1:] or not 0 < value < 1:
            raise InputError(f"--target {text}: expected precision=P or recall=R, a share between 0 and 1, or f1")
        return cls(measure, value)

    def __str__(self) -> str:
        return "best F1" if self.value is None else f"{self.measure} {self.value:g}"

    def reached(self, hits: np.ndarray, predictions: np.ndarray, positives: np.ndarray | float) -> np.ndarray:
        """The measure in [0, 1] of numbers of hits, predictions and positives; 0 of none."""
        whole = {"f1": (predictions + positives) / 2, "precision": predictions, "recall": positives}[self.measure]
        return np.minimum(hits / np.maximum(whole, 1e-12), 1.0)

    def place(self, hits: np.ndarray, predictions: np.ndarray, positives: float) -> int | None:
        """Which of rising numbers of predictions reaches the goal best; None if none does, which only a precision can be.

        For a precision that is the one of the most predictions, for a recall of the fewest.
        """
        values = self.reached(hits, predictions, positives)
        if self.value is None:
            return int(values.argmax())
        there = np.flatnonzero(values >= self.value)
        return None if not len(there) else int(there[-1 if self.measure == "precision" else 0])


class Curve:
    """One class: the predictions and the hits of each threshold.

    Args:
        q: [N] calibrated probabilities, N > 0.

    Attributes:
        q: those that differ, from the highest.
        predictions: int64, how many are as high or higher.
        hits: float64, the sum of these; the last is all positives.
    """

    def __init__(self, q: np.ndarray):
        q = np.sort(q)[::-1]
        ends = np.flatnonzero(np.append(q[1:] < q[:-1], True))  # of a run of equal ones, which enter together
        self.q, self.predictions, self.hits = q[ends], ends + 1, np.cumsum(q, dtype=np.float64)[ends]

    def threshold(self, place: int) -> float:
        """Half way between one of the probabilities, which is above, and the next."""
        below = self.q[place + 1] if place + 1 < len(self.q) else 0.0
        return float((self.q[place] + below) / 2)

    def above(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hits and predictions of any thresholds [...]."""
        places = np.searchsorted(-self.q, -np.asarray(thresholds), side="left")
        return np.append(0.0, self.hits)[places], np.append(0, self.predictions)[places]


def common_threshold(curves: Iterable[Curve], goal: Goal) -> float:
    """The threshold of `STEPS` that reaches the goal best for all classes: the mean F1, or all predictions together.

    Where no step has the wished precision it is the one with the most.
    """
    counts, f1 = np.zeros((3, len(STEPS))), np.zeros(len(STEPS))  # hits, predictions, positives of all classes
    for curve in curves:
        hits, predictions = curve.above(STEPS)
        counts += np.stack([hits, predictions, np.full(len(STEPS), curve.hits[-1])])
        f1 += Goal().reached(hits, predictions, curve.hits[-1])
    if goal.value is None:
        return float(STEPS[f1.argmax()])
    values = goal.reached(*counts)
    there = np.flatnonzero((values >= goal.value) & (counts[1] > 0))
    if not len(there):
        return float(STEPS[values.argmax()])
    return float(STEPS[there[0 if goal.measure == "precision" else -1]])  # the steps rise


def interval(
    above: np.ndarray, known: np.ndarray, share: float, goal: Goal, all_are: bool = False
) -> tuple[float, float]:
    """What a threshold reaches in `INTERVAL` of the draws of images: lowest and highest, in [0, 1].

    Args:
        above: bool [N], the images above the threshold.
        known: bool [N], the known positives.
        share: e1, the share of positives that is annotated, more than 0.
        goal: what is to be reached.
        all_are: whether every image is a positive, known to be a hit or not: of attributes.
    """
    cells = np.bincount(2 * above + known, minlength=4)
    drawn = generator("bootstrap", 0).dirichlet(cells + 0.5, DRAWS)  # [D, 4] of images
    hits, missed = drawn[:, 3] / share, drawn[:, 1] / share
    values = goal.reached(hits, drawn[:, 2] + drawn[:, 3], 1.0 if all_are else hits + missed)
    low, high = np.quantile(values, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)
