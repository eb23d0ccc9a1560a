"""Weak assumed negatives (WAN): Cole et al., "Multi-Label Learning from Single Positive Labels" (arXiv 2106.09708).

    loss = sum of the cross-entropy of known entries + weight * sum softplus(s) of un-annotated ones

With one positive an image and weight 1 / (C - 1), positives and assumed negatives pull with the same force.
"""

from torch import Tensor

from csl.losses.partial import PartialLoss, by_target, softplus
from csl.losses.targets import check_option


class WeakNegatives(PartialLoss):
    """Cross-entropy in which an un-annotated entry is a negative of little weight, summed.

    Args:
        weight: of un-annotated entries, 0 or more; 0 for 1 / (C - 1).
    """

    def __init__(self, weight: float = 0.0):
        super().__init__()
        check_option("weight", weight, 0)
        self.weight = weight

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        weight = self.weight or 1 / max(s.shape[1] - 1, 1)
        return by_target(targets, softplus(-s), softplus(s), weight * softplus(s)).sum()
