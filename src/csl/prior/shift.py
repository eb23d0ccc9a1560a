"""The class prior by label-shift expectation maximisation on held-out images.

Among annotated entries a class is as frequent as its annotation made it, n1 / (n1 + n0), and a network trained on them takes
that frequency for granted. If within a class annotation depends on the label alone, its evidence for a label is the same in
all images, so that the frequency pi among them is what makes the mean posterior equal to itself (Saerens, Latinne and
Decaestecker, 2002):

    1. calibrate: on known entries p = sigmoid(a s + b_c) of logits s, one slope for all classes and an offset for each;
    2. evidence: l = a s + b_c - log(n1 / n0);
    3. repeat: q = the label where it is known, else sigmoid(l + logit(pi)); pi = mean of q over all images.

Without the calibration the third step runs away: a network is surer of what it has not seen than it is right.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csl.errors import InputError
from csl.metrics.arrays import host

ROUNDS, CHANGE = 500, 1e-5
"""Of the third step: the most, and the change of logit(pi) in any class that ends it."""

_RIDGE = 1e-3  # of the offsets
_LEAST = 1e-6  # frequency: a class of which no image shows any evidence is not impossible


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
    s = torch.from_numpy(np.asarray(host(logits), np.float32))  # [N, C]
    y = torch.from_numpy(np.ascontiguousarray(host(targets)))  # [N, C]
    if s.shape != y.shape or s.dim() != 2 or not len(s):
        raise InputError(
            f"prior: logits {tuple(s.shape)} and targets {tuple(y.shape)}, expected one shape [N, C], N > 0"
        )
    if not torch.isfinite(s).all():
        raise InputError("prior: a logit that is not finite")
    positives, negatives = (y == 1).sum(0), (y == 0).sum(0)  # [C]
    odds = torch.log(positives + 0.5) - torch.log(negatives + 0.5)
    evidence = _calibrated(s, y) - odds  # [N, C]
    pi = torch.sigmoid(odds)
    unknown = y == -1
    for _ in range(ROUNDS):
        before = torch.logit(pi)
        posterior = torch.where(unknown, torch.sigmoid(evidence + before), (y == 1).float())
        pi = posterior.mean(0).clamp(_LEAST, 1 - _LEAST)
        if (torch.logit(pi) - before).abs().max() < CHANGE:
            break
    return torch.where((positives > 0) & (negatives > 0), pi, torch.sigmoid(odds))


def _calibrated(s, y):
    """a s + b_c of the slope a and the offsets b [C] that known entries have the least cross-entropy with."""
    rows, classes = torch.nonzero(y != -1, as_tuple=True)
    known, labels = s[rows, classes], (y[rows, classes] == 1).float()  # [K]
    if not len(known):
        return s
    slope, offsets = torch.ones((), requires_grad=True), torch.zeros(s.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([slope, offsets], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(slope * known + offsets[classes], labels)
        loss = loss + _RIDGE * offsets.square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return slope.detach() * s + offsets.detach()
