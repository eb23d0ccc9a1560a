"""The Hill loss: Zhang et al., "Simple and Robust Loss Design for Multi-Label Learning with Missing Labels" (arXiv 2112.07368).

    positive:               (1 - p_m) ^ gamma_pos * softplus(m - s),    p_m = sigmoid(s - m), m = margin
    negative and unknown:   (lam - p) p ^ 2

At lam = 1.5 the second is flat at p = 1: an entry that looks like a positive is left alone. The gradient flows through both
weights.
"""

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, softplus
from csl.losses.targets import check_option


class HillLoss(PartialLoss):
    """Focal cross-entropy of positives with a margin, and a hill of everything else, summed.

    Args:
        lam: lambda, in [1, 10]; the hill is flat at p = 0 and p = 2/3 lam.
        margin: of positives' logits, 0 or more.
        gamma_pos: focusing exponent of positives, 0 or more.
    """

    def __init__(self, lam: float = 1.5, margin: float = 1.0, gamma_pos: float = 2.0):
        super().__init__()
        check_option("lam", lam, 1, 10)
        check_option("margin", margin, 0)
        check_option("gamma_pos", gamma_pos, 0)
        self.lam, self.margin, self.gamma_pos = lam, margin, gamma_pos

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        p = torch.sigmoid(s)
        positive = focal(s - self.margin, self.gamma_pos)
        return torch.where(targets == 1, positive, (self.lam - p) * p**2).sum()


def focal(s: Tensor, gamma: float) -> Tensor:
    """(1 - p) ^ gamma * -log p of positives at the logits s, of negatives at -s; the gradient flows through the weight."""
    return torch.exp(-gamma * softplus(s)) * softplus(-s)
