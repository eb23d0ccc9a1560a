"""Calibration: the probability of each class that a score stands for, among all images.

A score p with the logit s = logit(p) becomes sigmoid(a_c s + b_c), a temperature 1 / a_c and a bias b_c for each class. They
have the greatest likelihood of all that is known of the held-out images, under the annotation model (`csl.losses.annotation`):
with z = a_c s + b_c a known positive costs softplus(-z), a known negative softplus(z), and an entry that nobody annotated
softplus(z) - softplus(z - delta_c), which is nothing where annotation is random (delta 0). So the probability is that of the
population, whatever was annotated.

A class with few known labels leans on the others by empirical Bayes: log a_c and b_c are taken to be normally distributed over
classes, log a_c around a common value and b_c around a line in log(e1 / e0), by which a network that knows the annotated share
of a class alone is wrong. Mean, line and variances are the most likely ones, found by expectation maximisation with Laplace's
approximation of each class (Morris, Parametric empirical Bayes inference, JASA 1983): no strength is set by hand.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

BINS = 256
"""Parts of the range of a class's logits: the entries of one label in one part count as one entry at their mean."""

ROUNDS, CHANGE = 100, 0.02
"""Of expectation maximisation: the most, and the relative change of the variances that ends it."""

_NEWTON, _HALVINGS = 3, 20  # steps in a round, which go on where the last round ended; and of the length of one
_LEAST = 1e-6  # variance over classes: of a single class there is none
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Calibration:
    """The map from scores to probabilities of each class.

    Attributes:
        slope: float64 [C] a, more than 0.
        bias: float64 [C] b.
        own: float64 [C] in [0, 1], how much of a class's bias its own labels decided, and not the common line.
    """

    slope: np.ndarray
    bias: np.ndarray
    own: np.ndarray

    def of_class(self, c: int, s: np.ndarray) -> np.ndarray:
        """float64 [N] the probabilities of class c that logits [N] stand for."""
        return expit(self.slope[c] * s + self.bias[c])


def as_it_is(classes: int) -> Calibration:
    """The calibration that changes nothing."""
    return Calibration(np.ones(classes), np.zeros(classes), np.zeros(classes))


def logits(probabilities: np.ndarray) -> np.ndarray:
    """float64 [..., C] the logits of scores in [0, 1], of which 0 and 1 count as the numbers next to them in float32."""
    p = np.clip(np.asarray(probabilities, np.float64), _EPS, 1 - _EPS)
    return np.log(p) - np.log1p(-p)


def calibrate(s: np.ndarray, y: np.ndarray, delta: np.ndarray, odds: np.ndarray, shows: np.ndarray) -> Calibration:
    """The calibration of each class, by what is known of held-out images.

    Args:
        s: float [N, C] logits.
        y: int8 [N, C] in {1, 0, -1}.
        delta: [C] log((1 - e0) / (1 - e1)) of the annotation model.
        odds: [C] log(e1 / e0), how much likelier a label is to be known where the class is there; finite.
        shows: bool [C], the classes with known positives and known negatives: the others have the common calibration.
    """
    entries = _Entries(s, y, np.where(shows, delta, 0.0), shows)
    line = np.stack([np.ones(len(odds)), np.where(shows, odds, odds[shows].mean())], 1)  # [C, 2]
    theta, mean = np.zeros((len(odds), 2)), np.zeros((len(odds), 2))  # (log a, b)
    variance = np.full(2, 4.0)
    for _ in range(ROUNDS):
        theta, error = _most_likely(entries, theta, mean, 1 / variance)
        mean[:, 0] = theta[shows, 0].mean()
        mean[:, 1] = line @ np.linalg.lstsq(line[shows], theta[shows, 1], rcond=None)[0]
        before, variance = variance, ((theta - mean) ** 2 + error)[shows].mean(0).clip(_LEAST)
        if np.abs(variance / before - 1).max() < CHANGE:
            break
    theta[~shows] = mean[~shows]
    own = np.where(shows, 1 - error[:, 1] / variance[1], 0.0)
    return Calibration(np.exp(theta[:, 0]), theta[:, 1], own.clip(0, 1))


class _Entries:
    """Logits and labels of all classes, in bins, and their cost under theta [C, 2]."""

    def __init__(self, s, y, delta, shows):
        parts = [_binned(c, s[:, c], y[:, c], delta[c] != 0) for c in np.flatnonzero(shows)]
        self.classes, self.label, self.s, self.n = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.delta, self.count = delta[self.classes], len(delta)
        self.unknown = self.label == -1

    def cost(self, theta):
        """[C] minus the log-likelihood."""
        z = self._z(theta)
        cost = np.where(self.label == 1, _softplus(-z), _softplus(z))
        return self._sum(cost - np.where(self.unknown, _softplus(z - self.delta), 0.0))

    def slopes(self, theta):
        """[C, 2] the gradient and [C, 2, 2] the curvature of the cost, without what makes it bend down."""
        z = self._z(theta)
        u, p = np.exp(theta[self.classes, 0]) * self.s, expit(z)  # u: the derivative of z by log a
        expected = np.where(self.unknown, expit(z - self.delta), self.label)  # of the label
        bend = np.maximum(p * (1 - p) - np.where(self.unknown, expected * (1 - expected), 0.0), 0.0)
        gradient = np.stack([self._sum((p - expected) * u), self._sum(p - expected)], 1)
        by_a, mixed, by_b = self._sum(bend * u * u), self._sum(bend * u), self._sum(bend)
        return gradient, np.stack([by_a, mixed, mixed, by_b], 1).reshape(-1, 2, 2)

    def _z(self, theta):
        return np.exp(theta[self.classes, 0]) * self.s + theta[self.classes, 1]

    def _sum(self, values):
        return np.bincount(self.classes, self.n * values, minlength=self.count)


def _binned(c, s, y, with_unknown):
    """Class, label, mean logit and number of the entries in each bin that has any."""
    low, high = s.min(), s.max()
    bins = np.minimum((s - low) / max(high - low, 1e-12) * BINS, BINS - 1).astype(np.int64)
    bins = bins + BINS * (y.astype(np.int64) + 1)
    bins, s = (bins, s) if with_unknown else (bins[y != -1], s[y != -1])
    n = np.bincount(bins)
    there = np.flatnonzero(n)
    mean = np.bincount(bins, s)[there] / n[there]
    return np.full(len(there), c), there // BINS - 1, mean, n[there]


def _most_likely(entries, theta, mean, precision):
    """A few Newton steps of every class at once, each as long as it helps; theta [C, 2], and its variances [C, 2]."""

    def cost(theta):
        return entries.cost(theta) + ((theta - mean) ** 2 * precision).sum(1) / 2

    for _ in range(_NEWTON):
        gradient, curvature = entries.slopes(theta)
        gradient = gradient + (theta - mean) * precision
        step = np.linalg.solve(curvature + np.diag(precision), gradient[:, :, None])[:, :, 0]
        length, now = np.ones((len(theta), 1)), cost(theta)
        for _ in range(_HALVINGS):
            worse = cost(theta - length * step) > now
            if not worse.any():
                break
            length[worse] /= 2
        theta = theta - np.where(worse[:, None], 0.0, length) * step
    _, curvature = entries.slopes(theta)
    return theta, np.linalg.inv(curvature + np.diag(precision)).diagonal(axis1=1, axis2=2)


def _softplus(z):
    return np.logaddexp(0, z)
