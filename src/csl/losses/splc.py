"""Self-paced loss correction (SPLC): Zhang et al., "Simple and Robust Loss Design for Multi-Label Learning with Missing Labels"
(arXiv 2112.07368).

    positive:               (1 - p_m) ^ gamma_pos * softplus(m - s),    p_m = sigmoid(s - m), m = margin
    negative and unknown:   p ^ gamma_neg * softplus(s)

and after `change_epoch` epochs an unknown entry with p > tau counts as a positive. The gradient flows through both weights.
"""

import torch
from torch import Tensor

from csl.losses.hill import focal
from csl.losses.partial import PartialLoss
from csl.losses.targets import check_option


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
        check_option("tau", tau, 0, 1)
        for name, value in (("change_epoch", change_epoch), ("margin", margin)):
            check_option(name, value, 0)
        check_option("gamma_pos", gamma_pos, 0)
        check_option("gamma_neg", gamma_neg, 0)
        self.tau, self.change_epoch, self.margin = tau, change_epoch, margin
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        positive = targets == 1
        if self.epoch > self.change_epoch:
            positive = positive | ((targets == -1) & (torch.sigmoid(s.detach()) > self.tau))
        return torch.where(positive, focal(s - self.margin, self.gamma_pos), focal(-s, self.gamma_neg)).sum()
