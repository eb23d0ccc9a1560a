"""What a random sample of the unknown entries says of a network: prior, precision, recall, F1 and mAP with all labels known.

Known entries (image, class) are no fair sample of all: they are those that somebody chose to look at. Here unknown ones are
drawn at random, entry j with the probability q_j at each of n draws, and answered. A sum over all entries is then that over the
known ones, which are certain, and the mean over the draws of value / q, however the known labels came about (Hansen and
Hurwitz, 1943; for rankings Aslam, Pavlu and Yilmaz, 2006, statAP). What makes few answers do:

1. Only their surprises are summed. With p_j a guess of the label y_j, the sum of g_j y_j over unknown entries is the sum of
   g_j p_j over all of them plus the mean of g_j (y_j - p_j) / q_j over the draws: right for any p, sure where p is good
   (Cassel, Sarndal and Wretman, 1976, the difference estimator).
2. The guess is a curve over the rank, common to all classes and losses: logit p = a + b log(prior N / rank) + u_class. The
   answers fit it, u shrunk by what they show of its spread (`fit_curve`).
3. Where an answer moves a number most is asked most: q is proportional to the deviation sqrt(p (1 - p)) and to the share of an
   entry in the labels of all classes and of its own (`shares`), spread evenly over score and class (`draw`).

Scores are counted in `BINS` bins of their logits (`ScoreCounts`), all that is needed of 86 thousand million of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

from csl.errors import InputError

BINS = 256
"""Of the scores of a class: an eighth of a logit each, from -16 to 16, and what lies beyond in the outer ones."""

_LEAST, _WIDTH = -16.0, 0.125
EDGES = expit(_LEAST + _WIDTH * np.arange(BINS))
"""float64 [BINS] the least score of each bin."""

_CURVE = np.array([-0.75, 1.9]), np.array([1.0, 0.5])
"""a and b before any answer, and their deviations: about what networks that learned from partial labels of any kind have."""

_SPREADS = (0.0, 0.25, 0.5, 1.0, 2.0)  # of u: that of the greatest evidence
FOLDS = 5
"""Of the answers: the curve that each is compared with is fitted to the other folds."""

_FLOOR = 0.1  # of a class's prior: an entry of the lowest rank is not impossible, the prior may be wrong
_NORMAL = float(norm.ppf(0.975))


@dataclass(frozen=True)
class ScoreCounts:
    """How many entries of each class and bin of scores there are, by label.

    Attributes:
        by_label: int64 [3, C, BINS]: unknown, known negative, known positive.
    """

    by_label: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> ScoreCounts:
        """Of no image."""
        return cls(np.zeros((3, num_classes, BINS), np.int64))

    def add(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Count a block of images; returns the bins, uint8 [B, C].

        Args:
            scores: float [B, C] in [0, 1].
            labels: [B, C] in {1, 0, -1}.

        Raises:
            InputError: a score that is NaN or outside [0, 1].
        """
        bins = bins_of(scores)
        cells = ((labels.astype(np.int64) + 1) * bins.shape[1] + np.arange(bins.shape[1])) * BINS + bins
        np.add.at(self.by_label.reshape(-1), cells.reshape(-1), 1)
        return bins

    @property
    def unknown(self) -> np.ndarray:
        """int64 [C, BINS]."""
        return self.by_label[0]

    @property
    def positives(self) -> np.ndarray:
        """int64 [C, BINS], known ones."""
        return self.by_label[2]

    @property
    def all(self) -> np.ndarray:
        """int64 [C, BINS]."""
        return self.by_label.sum(0)

    @property
    def images(self) -> int:
        """N."""
        return int(self.by_label[:, 0].sum())

    def mean_scores(self) -> np.ndarray:
        """float64 [C] the mean score of each class, by the middles of the bins."""
        return self.all @ expit(_LEAST + _WIDTH * (np.arange(BINS) + 0.5)) / self.images


def bins_of(scores: np.ndarray) -> np.ndarray:
    """The bin, uint8, of each score in [0, 1].

    Raises:
        InputError: a score that is NaN or outside [0, 1].
    """
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError("scores: found one that is NaN or outside [0, 1], expected probabilities")
    logits = logit(scores)  # [...] of the dtype of the scores; infinite at 0 and 1
    return np.clip((logits - _LEAST) / _WIDTH, 0, BINS - 1).astype(np.uint8)


def places(counts: ScoreCounts, prior: np.ndarray) -> np.ndarray:
    """float64 [C, BINS] log(prior N / rank): how far up in its class a bin is, 0 where prior N images are above it."""
    total = counts.all
    return np.log(np.clip(prior, 1e-5, 1)[:, None] * counts.images) - np.log(_above(total) + (total + 1) / 2)


def shares(counts: ScoreCounts, prior: np.ndarray, questions: int, most: int | None = None) -> np.ndarray:
    """The share of each class and bin in the draws, float64 [C, BINS]; they sum to 1, and where nothing is unknown are 0.

    Args:
        counts: of all images.
        prior: [C] in [0, 1], how frequent each class is, roughly.
        questions: n draws, at most as many as there are unknown entries.
        most: entries of one class and bin that can be drawn, None for all of them.
    """
    prior = np.clip(prior, 1e-5, 1)
    p = np.maximum(expit(_CURVE[0][0] + _CURVE[0][1] * places(counts, prior)), _FLOOR * prior[:, None])
    of_class = (counts.positives + counts.unknown * p).sum(1, keepdims=True)  # [C, 1] positives to expect
    weight = 1 / of_class.sum() + 1 / (len(prior) * np.maximum(of_class, 1))
    wanted = counts.unknown * np.sqrt(p * (1 - p)) * weight
    return _within(wanted, np.minimum(counts.unknown, most or questions) / questions)


def _within(wanted, room):
    """Shares proportional to `wanted`, none over its `room`: what is cut off goes to the others."""
    full = np.zeros(wanted.shape, bool)
    while True:
        free = 1 - room[full].sum()
        share = np.where(full, room, free * wanted / max(wanted[~full].sum(), 1e-300))
        over = ~full & (share > room)
        if not over.any():
            return share
        full |= over


def draw(share: np.ndarray, questions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Class and bin, int64 [n] each, of every draw in the order in which they are asked.

    Systematic: n places at equal distances, after a random first one, along all cells in a row, those of equal scores and
    then classes beside each other. The order of asking is that of the reversed bits of the places from a random one on: the
    first k are spread nearly as evenly, and each falls into a cell with the probability `share`: they are a sample, too.
    """
    row = _row(len(share))
    ends = np.cumsum(share.reshape(-1)[row])
    found = row[np.searchsorted(ends, (np.arange(questions) + rng.random()) / questions * ends[-1], side="right")]
    bits = max(int(questions) - 1, 1).bit_length()
    turned = [int(f"{k:0{bits}b}"[::-1], 2) for k in range(1 << bits)]
    order = (np.array([k for k in turned if k < questions]) + int(rng.integers(questions))) % questions
    return np.divmod(found[order], BINS)


def _row(num_classes):
    """All cells [C * BINS], bin by bin, the classes of every other bin backwards, so that neighbours are alike."""
    cells = np.arange(num_classes * BINS).reshape(num_classes, BINS).T.copy()
    cells[1::2] = cells[1::2, ::-1]
    return cells.reshape(-1)


@dataclass(frozen=True)
class Curve:
    """logit p = a + b place + u of the class, for an unknown entry.

    Attributes:
        a, b: of all classes.
        u: float64 [C].
        spread: deviation of u that was chosen.
    """

    a: float
    b: float
    u: np.ndarray
    spread: float

    def probabilities(self, at: np.ndarray) -> np.ndarray:
        """float64 [C, BINS] at `places`."""
        return expit(self.a + self.b * at + self.u[:, None])


def fit_curve(
    at: np.ndarray, classes: np.ndarray, answers: np.ndarray, num_classes: int, spread: float | None = None
) -> Curve:
    """The curve by answers: most likely with normal priors of a, b and u.

    Args:
        at: float [n] `places` of the entries.
        classes: int [n].
        answers: [n] 1 or 0.
        num_classes: C.
        spread: deviation of u; None for the one of `_SPREADS` with the greatest evidence (Laplace's approximation).
    """
    present, c = np.unique(classes, return_inverse=True)
    best = None
    for width in _SPREADS if spread is None else (spread,):
        theta, u, evidence = _most_likely(at, c, answers, len(present), width)
        if best is not None and evidence <= best[0]:
            break
        best = evidence, theta, u, width
    _, theta, u, width = best
    of_class = np.zeros(num_classes)
    of_class[present] = u
    return Curve(*theta.tolist(), of_class, width)


def _most_likely(at, c, y, num, spread):
    """a and b [2], u [num] and the logarithm of the evidence: Newton's method, u taken out of the system by its diagonal."""
    x = np.stack([np.ones(len(at)), at], 1)  # [n, 2]
    middle, precision = _CURVE[0], 1 / _CURVE[1] ** 2
    loose = 1 / spread**2 if spread else np.inf
    theta, u = middle.copy(), np.zeros(num)

    def objective(theta, u):
        e = x @ theta + u[c]
        prior = (precision * (theta - middle) ** 2).sum() + (loose * u @ u if spread else 0)
        return (np.logaddexp(0, e) - y * e).sum() + prior / 2

    value = objective(theta, u)
    for _ in range(50):
        p = expit(x @ theta + u[c])
        v = p * (1 - p)
        slope = x.T @ (p - y) + precision * (theta - middle)
        hessian = (x * v[:, None]).T @ x + np.diag(precision)
        step_u = np.zeros(num)
        if spread:
            diagonal = np.bincount(c, v, num) + loose
            slope_u = np.bincount(c, p - y, num) + loose * u
            cross = np.stack([np.bincount(c, v * column, num) for column in x.T], 1) / diagonal[:, None]  # [num, 2]
            hessian = hessian - (cross * diagonal[:, None]).T @ cross
            slope = slope - cross.T @ slope_u
        step = np.linalg.solve(hessian, slope)
        if spread:
            step_u = slope_u / diagonal - cross @ step
        size = 1.0
        while (new := objective(theta - size * step, u - size * step_u)) > value and size > 1e-6:
            size /= 2
        theta, u, before, value = theta - size * step, u - size * step_u, value, new
        if before - value < 1e-7:
            break
    determinant = np.linalg.slogdet(hessian)[1] + (np.log(diagonal).sum() - num * np.log(loose) if spread else 0)
    return theta, u, -value + (np.log(precision).sum() - determinant) / 2


def expected_average_precision(
    known: np.ndarray, unknown: np.ndarray, total: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision of each class of which labels are known in part, and what one of its unknown labels moves it by.

    Entries of one bin are in any order. The precision at a positive is taken over what lies above, itself and half of its bin.

    Args:
        known, unknown, total: [C, BINS] known positives, unknown entries and all entries.
        p: [C, BINS] the probability that an unknown entry is positive.

    Returns:
        float64 [C] in [0, 1], and float64 [C, BINS]: the derivative by the label of an unknown entry.
    """
    positives = known + unknown * p  # m
    depth = _above(total) + (total + 1) / 2
    pairs = (positives**2 - known - unknown * p**2) / 2  # of two positives in the bin
    over, all_of_class = _above(positives), positives.sum(1, keepdims=True)
    ap = ((positives * (over + 1) + pairs) / depth).sum(1, keepdims=True) / all_of_class
    below = np.cumsum(positives / depth, 1) - positives / depth
    return ap[:, 0], ((over + 1 + positives - p) / depth + below - ap) / all_of_class


def estimate(
    counts: ScoreCounts,
    prior: np.ndarray,
    share: np.ndarray,
    classes: np.ndarray,
    bins: np.ndarray,
    answers: np.ndarray,
    least: np.ndarray | None = None,
) -> dict[str, Any]:
    """The numbers of a network with all labels known, by the answers to a sample, with intervals that hold 95 %.

    Args:
        counts: of all images.
        prior: [C] as `shares` took it.
        share: [C, BINS] of the draws; of n of them the first k may be given.
        classes, bins: int [k] of the draws.
        answers: float [k]: 1 there, 0 not there, NaN nobody can say: then it counts as the curve has it.
        least: int [K] the bins from which on precision, recall and F1 are wanted; None for all `BINS`.

    Returns:
        `labels_an_image` and `mAP` (a fraction): (estimate, low, high). `precision`, `recall`, `f1`: float64 [K, 3] of
        the same for all entries that score at least `EDGES`, NaN where there is none. `best_f1`: int64 [3], the bin from which
        on F1 is highest, and the first and last that may be no worse. `prior`: float64 [C], estimated. `curve`.

    Raises:
        InputError: fewer than two answers.
    """
    said = ~np.isnan(answers)
    if said.sum() < 2:
        raise InputError(f"answers: found {int(said.sum())}, expected 2 or more that are yes or no")
    images, unknown, total = counts.images, counts.unknown, counts.all
    at = places(counts, prior)
    position = np.empty(share.size, np.int64)
    position[_row(len(share))] = np.arange(share.size)
    order = np.argsort(position[classes * BINS + bins], kind="stable")  # neighbours of the design beside each other
    c, b, y, said = classes[order], bins[order], answers[order], said[order]
    curve = fit_curve(at[c, b][said], c[said], y[said], len(prior))
    # An answer is no surprise to a curve that was fitted to it: each is held against the curve of the others.
    fold, p, surprise = np.arange(len(c)) % FOLDS, np.zeros(at.shape), np.zeros(len(c))  # p [C, BINS], surprise [k]
    for number in range(FOLDS):
        out = fold == number
        fitted = said & ~out
        of_others = fit_curve(at[c, b][fitted], c[fitted], y[fitted], len(prior), curve.spread).probabilities(at)
        p += of_others * out.mean()
        surprise[out] = np.where(said[out], y[out] - of_others[c[out], b[out]], 0)
    surprise *= unknown[c, b] / share[c, b]  # (y - p) / q
    spread = np.zeros(p.shape)  # of one draw's surprise, squared, by the curve
    np.divide(unknown**2 * p * (1 - p), share, out=spread, where=share > 0)
    of_bin = spread.sum(0)  # [BINS]

    def variance(moves, of_curve):
        """Of the mean of `moves` [..., k]: from neighbours in the design, or by the curve where that is more."""
        return np.maximum((np.diff(moves) ** 2).sum(-1) / (2 * (len(c) - 1) * len(c)), of_curve / len(c))

    def of_scores(gradient):
        """Variance [K] of sums over entries of the gradient [K, BINS] by their labels, and how many draws bear on each [K]."""
        of_draws = gradient[:, b]
        return variance(of_draws * surprise, gradient**2 @ of_bin), (of_draws != 0).sum(1)

    positives = counts.positives + unknown * p  # [C, BINS] by the curve
    guessed = _from(positives.sum(0))  # [BINS] in this bin and over it
    found = guessed + _from(np.bincount(b, surprise, BINS) / len(c))
    fewest, most = _from(counts.positives.sum(0)), _from((counts.positives + unknown).sum(0))
    found = np.clip(found, np.maximum(fewest, 1e-9), most)
    every, guess = found[0], guessed[0]

    wanted = np.arange(BINS) if least is None else least
    inside = wanted[:, None] <= np.arange(BINS)  # [K, BINS]: what scores at least EDGES[wanted]
    taken, found, guessed = _from(total.sum(0))[wanted], found[wanted], guessed[wanted]
    some = np.maximum(taken, 1)
    recall, f1 = found / every, 2 * found / (taken + every)
    tables = {
        "precision": (found / some, guessed / some, inside / some[:, None]),
        "recall": (recall, guessed / guess, (inside - recall[:, None]) / every),
        "f1": (f1, 2 * guessed / (taken + guess), (2 * inside - f1[:, None]) / (taken + every)[:, None]),
    }
    numbers = {name: _of_share(value, first, *of_scores(g)) for name, (value, first, g) in tables.items()}
    for table in numbers.values():
        table[taken == 0] = np.nan
    best, gradient = int(f1.argmax()), tables["f1"][2]
    no_worse = np.flatnonzero(
        (f1[best] - f1 <= _NORMAL * np.sqrt(of_scores(gradient - gradient[best])[0])) & (taken > 0)
    )
    numbers["best_f1"] = wanted[[best, no_worse[0], no_worse[-1]]]

    deviation = np.sqrt(of_scores(np.full((1, BINS), 1 / images))[0][0]) / (every / images)
    low = max(every * np.exp(-_NORMAL * deviation), fewest[0])
    numbers["labels_an_image"] = np.array([every, low, min(every * np.exp(_NORMAL * deviation), most[0])]) / images

    ap, gradient = expected_average_precision(counts.positives, unknown, total, p)
    expected = (counts.positives + unknown * expit(_CURVE[0] @ np.stack([np.ones_like(at), at], 1))).sum(1)
    # The derivative holds near the curve: a class that it finds nearly empty would be moved by one answer beyond all sense.
    gradient *= np.minimum(1, 3 * positives.sum(1) / expected)[:, None] / len(ap)
    moves = gradient[c, b] * surprise
    error = variance(moves, (gradient**2 * spread).sum())
    correction = moves.mean() * max(0, 1 - error / max(moves.mean() ** 2, 1e-300))  # none, where it may be chance
    numbers["mAP"] = _of_logit(ap.mean() + correction, error + (moves.mean() - correction) ** 2)
    prior = (counts.positives + unknown * curve.probabilities(at)).sum(1) / images
    return numbers | {"prior": prior, "curve": curve}


def threshold_for(table: np.ndarray, target: float) -> np.ndarray:
    """The first bin, int64 [3], from which on a rising share reaches a target: by its estimate, its high and its low end.

    Args:
        table: [K, 3] as `estimate` returns it.
        target: in [0, 1].

    Returns:
        Estimate, low and high end of the place; K where it is not reached.
    """
    reached = np.nan_to_num(table[:, [0, 2, 1]], nan=-1) >= target
    return np.where(reached.any(0), reached.argmax(0), len(table))


def _of_share(value, first, variance, draws):
    """[K, 3] shares in [0, 1] and their intervals: Jeffreys' of as many independent answers as have the variance, fewer where
    few draws tell of it (Korn and Graubard, 1998).
    """
    value, first = np.clip(value, 0, 1), np.clip(first, 1e-4, 1 - 1e-4)
    middle = np.clip(
        value, np.minimum(first, 0.02), np.maximum(first, 0.98)
    )  # none of few answers would seem to be sure
    size = middle * (1 - middle) / np.maximum(variance, 1e-12) * (_NORMAL / t.ppf(0.975, np.maximum(draws - 1, 1))) ** 2
    yes, no = size * value + 0.5, size * (1 - value) + 0.5
    low, high = beta.ppf(0.025, yes, no), beta.ppf(0.975, yes, no)
    return np.stack([value, np.minimum(low, value), np.maximum(high, value)], 1)


def _of_logit(value, variance):
    value = np.clip(value, 1e-4, 1 - 1e-4)
    around = _NORMAL * np.sqrt(variance) / (value * (1 - value))
    return np.array([value, expit(logit(value) - around), expit(logit(value) + around)])


def _from(counts):
    """Sums over this bin and all above it, along the last axis."""
    return counts[..., ::-1].cumsum(-1)[..., ::-1]


def _above(counts):
    return _from(counts) - counts
