"""Partial BCE: Durand et al., "Learning a Deep ConvNet for Multi-label Classification with Partial Labels" (arXiv 1902.09720).

    loss = sum over images  g(r) * sum of the cross-entropy of known entries,    g(r) = a r ^ gamma + b

with r the share of the image's entries that is known; un-annotated ones are left out. The paper's g has g(1) = 1 and
g(0.1) = 5. With a = 1, b = 0, gamma = -1 it is the mean over the known entries, times C. The paper divides by C: with SGD its
learning rate is C times the one here.
"""

from torch import Tensor

from csl.losses.partial import PartialLoss, by_target, softplus


class PartialBCE(PartialLoss):
    """Cross-entropy of known entries, weighed by the share of its image's entries that is known, summed.

    Args:
        a, b, gamma: of the weight g(r) = a r ^ gamma + b.
    """

    def __init__(self, a: float = -4.45, b: float = 5.45, gamma: float = 1.0):
        super().__init__()
        self.take(a=(a, -1e3, 1e3), b=(b, -1e3, 1e3), gamma=(gamma, -1e3, 1e3))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        share = (targets != -1).to(s.dtype).mean(1).clamp_min(1 / s.shape[1])  # [B]; without labels there is no loss
        known = by_target(targets, softplus(-s), softplus(s), s.new_zeros(()))
        return ((self.a * share**self.gamma + self.b) * known.sum(1)).sum()
