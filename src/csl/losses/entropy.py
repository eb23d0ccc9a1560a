"""Entropy maximisation (EM): Zhou et al., "Acknowledging the Unknown for Multi-label Learning with Single Positive Labels"
(arXiv 2203.16219).

    known:     cross-entropy
    unknown:   -alpha H(p),    H(p) = -p log p - (1 - p) log(1 - p)

An un-annotated entry is drawn to p = 1/2, weakly where it is far from it.
"""

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, by_target, softplus
from csl.losses.targets import check_option


class EntropyMaximisation(PartialLoss):
    """Cross-entropy of known entries, less the entropy of the others, summed.

    Args:
        alpha: weight of the entropy, 0 or more; the paper has 0.2 for VOC, 0.1 for COCO and NUS-WIDE, 0.01 for CUB.
    """

    def __init__(self, alpha: float = 0.1):
        super().__init__()
        check_option("alpha", alpha, 0)
        self.alpha = alpha

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        return by_target(targets, softplus(-s), softplus(s), -self.alpha * entropy(s)).sum()


def entropy(s: Tensor) -> Tensor:
    """The entropy of sigmoid(s), in nats."""
    return torch.sigmoid(s) * softplus(-s) + torch.sigmoid(-s) * softplus(s)
