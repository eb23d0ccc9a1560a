"""The class prior by label-shift expectation maximisation on held-out images.

Among annotated entries a class is as frequent as its annotation made it, n1 / (n1 + n0), and a network trained on them takes
that frequency for granted. If within a class annotation depends on the label alone, its evidence for a label is the same in
all images, so that the frequency pi among them is what makes the mean posterior equal to itself (Saerens, Latinne and
Decaestecker, 2002):

    1. calibrate: on known entries p = sigmoid(a_c s + b_c) of logits s, with slopes near one for all classes;
    2. evidence: l = a_c s + b_c - log(n1 / n0);
    3. repeat: q = the label where it is known, else sigmoid(l + logit(pi)); pi = mean of q over all images;
    4. shrink: d = log(n1 / n0) - logit(pi) says how much likelier a known label is where the class is there. Its error is
       seen in two halves of the images; by as much, each class is drawn towards the mean of d over classes.

Without the calibration the third step runs away: a network is surer of what it has not seen than it is right. Where d is
about 0 in all classes annotation is random, and the best estimate is the share among known entries.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csl.errors import InputError
from csl.metrics.arrays import host

ROUNDS, CHANGE = 500, 1e-5
"""Of the third step: the most, and the change of logit(pi) in any class that ends it."""

RANDOM = float(np.log(1.5))
"""The root of the mean of d squared, without its error, up to which annotation is taken to be random."""

_RIDGE, _SLOPE_RIDGE = 1e-3, 0.1  # of the offsets, and of the logarithms of slopes around the common one
_LEAST = 1e-6  # frequency: a class of which no image shows any evidence is not impossible


class PriorEstimate(NamedTuple):
    """The frequency of each class, float32 [C] in (0, 1), and the ends of its interval."""

    prior: Tensor
    low: Tensor
    high: Tensor


def estimate_prior(logits: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    """The frequency of each class among all images, from the logits of images that the network was not trained on.

    Args:
        logits: float [N, C], of a network trained on annotated entries alone with cross-entropy.
        targets: [N, C] in {1, 0, -1}, what is known of these images.

    Returns:
        float32 [C] in (0, 1). A class of which no negative or no positive is known shows no evidence to go by: it has
        its share among known entries, (n1 + 0.5) / (n1 + n0 + 1).

    Raises:
        InputError: shapes that do not fit, no images, or a logit that is not finite.
    """
    return estimate_prior_interval(logits, targets).prior


def estimate_prior_interval(
    logits: Tensor | np.ndarray, targets: Tensor | np.ndarray, level: float = 0.9
) -> PriorEstimate:
    """The same with an interval: of the mean of d and what a class is off it, by the error seen in two halves of the images.

    Where annotation is taken to be random it is that of the share among known entries. That annotation depends on the label
    alone is taken for granted: an error of this is not in the interval.

    Args:
        logits, targets: as `estimate_prior` takes them.
        level: the share of intervals that should hold the truth, in (0, 1).

    Raises:
        InputError: as `estimate_prior`.
    """
    s = torch.from_numpy(np.asarray(host(logits), np.float32))  # [N, C]
    y = torch.from_numpy(np.ascontiguousarray(host(targets)))  # [N, C]
    if s.shape != y.shape or s.dim() != 2 or not len(s):
        raise InputError(
            f"prior: logits {tuple(s.shape)} and targets {tuple(y.shape)}, expected one shape [N, C], N > 0"
        )
    if not torch.isfinite(s).all():
        raise InputError("prior: a logit that is not finite")
    positives, negatives = (y == 1).sum(0), (y == 0).sum(0)  # [C]
    shows = (positives > 0) & (negatives > 0)
    more = torch.where(shows, 0.0, 0.5)
    counted = torch.log(positives + more) - torch.log(negatives + more)  # logit of the share among known entries
    variance = (1 / (positives + more) + 1 / (negatives + more)).double()
    likelier = (counted - _by_evidence(s, y))[shows].double()  # d
    if len(likelier) > 1:
        halves = _by_evidence(s[::2], y[::2]) - _by_evidence(s[1::2], y[1::2])
        # A mean of two has a quarter of their difference's variance; twice that, for the halves share their networks.
        error = halves[shows].double().square().mean() / 2
        middle, spread = likelier.mean(), (likelier.var() - error).clamp_min(0)
        kept = spread / (spread + error).clamp_min(1e-12)
        likelier = middle + kept * (likelier - middle)
        if (middle.square() + spread).sqrt() < RANDOM:
            likelier = torch.zeros_like(likelier)
        else:
            variance[shows] = kept * error + (spread + error) / len(likelier)
    estimate = counted.double()
    estimate[shows] -= likelier
    reach = -NormalDist().inv_cdf((1 - level) / 2) * variance.sqrt()
    ends = [torch.sigmoid(estimate + side * reach).clamp(_LEAST, 1 - _LEAST).float() for side in (0, -1, 1)]
    return PriorEstimate(*ends)


def _by_evidence(s, y):
    """[C] logit(pi) by the first three steps, of logits s and labels y [N, C]."""
    odds = torch.log((y == 1).sum(0) + 0.5) - torch.log((y == 0).sum(0) + 0.5)  # [C]
    evidence = _calibrated(s, y) - odds  # [N, C]
    unknown, known = y == -1, (y == 1).float()
    logit = odds
    for _ in range(ROUNDS):
        before = logit
        pi = torch.where(unknown, torch.sigmoid(evidence + before), known).mean(0).clamp(_LEAST, 1 - _LEAST)
        logit = torch.logit(pi)
        if (logit - before).abs().max() < CHANGE:
            break
    return logit


def _calibrated(s, y):
    """a_c s + b_c of the slopes and the offsets that known entries have the least cross-entropy with."""
    rows, classes = torch.nonzero(y != -1, as_tuple=True)
    known, labels = s[rows, classes], (y[rows, classes] == 1).float()  # [K]
    if not len(known):
        return s
    slope, *each = parameters = torch.ones(()), torch.zeros(s.shape[1]), torch.zeros(s.shape[1])
    for parameter in parameters:
        parameter.requires_grad_()
    slopes, offsets = each  # of a class: slope * exp(slopes)
    optimizer = torch.optim.LBFGS(parameters, max_iter=150, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = slope * slopes.exp()[classes] * known + offsets[classes]
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        loss = loss + _RIDGE * offsets.square().mean() + _SLOPE_RIDGE * slopes.square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return slope * slopes.exp() * s + offsets
