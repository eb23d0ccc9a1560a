"""The risk of CRISP: Liu et al., "Can Class-Priors Help Single-Positive Multi-Label Learning?" (arXiv 2309.13886).

    loss = B sum over classes  (2 pi / n1) sum over known positives (1 - p) + |mean p - pi|

with n1 the number of known positives, the first sum estimated from those of the batch, and the mean over the batch. The
second term sees every entry alike: what is known to be absent counts as unknown, as the paper knows positives alone.

pi is estimated at the beginning of each epoch from the scores p of all images ("best bin"). With q(z) the share of images and
q1(z) the share of known positives that score z or more, it is q / q1 at the score z at which

    q / q1 + (1 + tau) / q1 * (sqrt(log(4 / delta) / 2 N) + sqrt(log(4 / delta) / 2 n1))

is least. Scores are those that training saw last, where the paper predicts the training set anew. In the first `warm_up` epochs
the loss is cross-entropy in which un-annotated entries are negatives. Five bytes for each entry, N C of them: for small data.
The paper's variant with an exponent of its own (lambda) is not here.
"""

import math

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, softplus


class ClassPriorRisk(PartialLoss):
    """The absolute error of known positives and of the mean score against an estimated class prior, summed.

    Args:
        tau, delta: of the bound that chooses the threshold, in [0, 1] and (0, 1].
        warm_up: epochs of cross-entropy before it, 1 or more.
        shape: N images and C classes of the training set.

    Attributes:
        last: float32 [N, C], the last score of an entry, -1 before the first.
        positive: bool [N, C], the known positives among those.
        estimate: float32 [C], the class prior pi.
        weight: float32 [C], 2 pi N / n1 of a known positive.
        estimated_in: int64, the last epoch at whose beginning they were estimated.
    """

    by_image = True

    def __init__(self, tau: float = 0.01, delta: float = 0.01, warm_up: int = 1, shape: tuple[int, int] = (0, 0)):
        super().__init__()
        self.take(tau=(tau, 0, 1), delta=(delta, 1e-9, 1), warm_up=(warm_up, 1))
        self.register_buffer("last", torch.full(shape, -1.0))
        self.register_buffer("positive", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("estimate", torch.zeros(shape[1]))
        self.register_buffer("weight", torch.zeros(shape[1]))
        self.register_buffer("estimated_in", torch.tensor(0))

    def begin_epoch(self, epoch: int) -> None:
        """Estimate the class prior, once an epoch: a run that goes on within it has done so."""
        super().begin_epoch(epoch)
        if epoch <= self.warm_up or epoch <= self.estimated_in:
            return
        self.estimated_in.fill_(epoch)
        for c in range(self.last.shape[1]):
            seen = self.last[:, c] >= 0
            scores, known = self.last[seen, c], self.positive[seen, c]  # [n], [n]
            self.estimate[c] = best_bin(scores, scores[known], self.tau, self.delta)
            self.weight[c] = 2 * self.estimate[c] * len(scores) / known.sum().clamp_min(1)

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries, or the risk; notes the scores if there is a gradient to be taken."""
        positive, p = targets == 1, torch.sigmoid(s)
        if s.requires_grad:
            is_number = ~s.isnan()
            self.last[rows[0]] = torch.where(is_number, p.detach().to(self.last.dtype), -1.0)
            self.positive[rows[0]] = positive & is_number
        if self.epoch <= self.warm_up:
            return softplus(torch.where(positive, -s, s)).sum()
        pi, weight = self.estimate.to(s.dtype), self.weight.to(s.dtype)
        of_positives = (weight * torch.where(positive, 1 - p, 0)).sum()
        return of_positives + (p.sum(0) - len(p) * pi).abs().sum()


def best_bin(scores: Tensor, positives: Tensor, tau: float, delta: float) -> float:
    """The frequency of a class by the scores [n] of all images and [n1] of known positives; 0 where there are none."""
    if not len(positives):
        return 0.0
    n, n1 = len(scores), len(positives)
    z = positives.unique()  # between two of them q grows as z falls, and q1 does not: none other can be the least
    q = (n - torch.searchsorted(scores.sort().values, z)).double() / n
    q1 = (n1 - torch.searchsorted(positives.sort().values, z)).double() / n1
    spread = (math.sqrt(1 / n) + math.sqrt(1 / n1)) * math.sqrt(math.log(4 / delta) / 2)
    least = (q / q1 + (1 + tau) / q1 * spread).argmin()
    return min(float(q[least] / q1[least]), 1.0)
