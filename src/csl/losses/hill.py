"""The Hill loss and self-paced loss correction (SPLC): Zhang et al., "Simple and Robust Loss Design for Multi-Label Learning
with Missing Labels" (arXiv 2112.07368).

    positive:                     (1 - p_m) ^ gamma_pos * softplus(m - s),    p_m = sigmoid(s - m), m = margin
    negative and unknown, Hill:   (lam - p) p ^ 2
    negative and unknown, SPLC:   p ^ gamma_neg * softplus(s)

The gradient flows through all weights. At lam = 1.5 the hill is flat at p = 1: an entry that looks like a positive is left
alone. With SPLC an unknown entry with p > tau counts as a positive after `change_epoch` epochs.
"""

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, softplus


class HillLoss(PartialLoss):
    """Focal cross-entropy of positives with a margin, and a hill of everything else, summed.

    Args:
        lam: lambda, in [1, 10]; the hill is flat at p = 0 and p = 2/3 lam.
        margin: of positives' logits, 0 or more.
        gamma_pos: focusing exponent of positives, 0 or more.
    """

    def __init__(self, lam: float = 1.5, margin: float = 1.0, gamma_pos: float = 2.0):
        super().__init__()
        self.take(lam=(lam, 1, 10), margin=(margin, 0), gamma_pos=(gamma_pos, 0))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        p = torch.sigmoid(s)
        positive = focal(s - self.margin, self.gamma_pos)
        return torch.where(targets == 1, positive, (self.lam - p) * p**2).sum()


class SelfPacedLossCorrection(PartialLoss):
    """Focal cross-entropy with a margin, in which unknown entries that the network is sure of become positives, summed.

    Args:
        tau: probability from which on an un-annotated entry is a positive, in [0, 1].
        change_epoch: epochs before that, 0 or more.
        margin: of positives' logits, 0 or more.
        gamma_pos, gamma_neg: focusing exponents of positives, and of negatives and unknown entries, 0 or more.
    """

    def __init__(
        self,
        tau: float = 0.6,
        change_epoch: int = 1,
        margin: float = 1.0,
        gamma_pos: float = 2.0,
        gamma_neg: float = 2.0,
    ):
        super().__init__()
        self.take(tau=(tau, 0, 1), change_epoch=(change_epoch, 0), margin=(margin, 0))
        self.take(gamma_pos=(gamma_pos, 0), gamma_neg=(gamma_neg, 0))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        positive = targets == 1
        if self.epoch > self.change_epoch:
            positive = positive | ((targets == -1) & (torch.sigmoid(s.detach()) > self.tau))
        return torch.where(positive, focal(s - self.margin, self.gamma_pos), focal(-s, self.gamma_neg)).sum()


def focal(s: Tensor, gamma: float) -> Tensor:
    """(1 - p) ^ gamma * -log p of positives at the logits s, of negatives at -s; the gradient flows through the weight."""
    return torch.exp(-gamma * softplus(s)) * softplus(-s)
