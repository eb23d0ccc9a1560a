"""Large loss rejection and correction: Kim et al., "Large Loss Matters in Weakly Supervised Multi-Label Classification"
(arXiv 2206.03740).

Cross-entropy in which un-annotated entries are negatives, softplus(s), but for the k of a batch with the largest losses,

    k = ceil(B C (t - 1) delta),    t the epoch from 1,

which LL-R leaves out and LL-Ct counts as positives in this step. LL-Cp counts k = ceil(B C delta) of each batch as positives
for good, from the second epoch on.
"""

import math

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, softplus


class LargeLossRejection(PartialLoss):
    """LL-R: the un-annotated entries of a batch with the largest losses are left out, more of them each epoch; summed.

    The batch is that of one call: with gradient accumulation or several processes, one of several in a step.

    Args:
        delta: what the share of these among all entries grows by in an epoch, in [0, 1]; the paper has 0.001 to 0.005.
    """

    def __init__(self, delta: float = 0.002):
        super().__init__()
        self.take(delta=(delta, 0, 1))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        large = self.large(s, targets == -1, (self.epoch - 1) * self.delta)
        return torch.where(large, 0, softplus(torch.where(targets == 1, -s, s))).sum()

    def large(self, s: Tensor, unknown: Tensor, share: float) -> Tensor:
        """bool [B, C]: the `share` of all entries that are unknown and have the largest losses, so the largest logits."""
        k = min(math.ceil(round(s.numel() * share, 6)), s.numel())  # rounded, as 3 * 0.002 is a little more than 0.006
        ranked = s.detach().masked_fill(~unknown, -torch.inf).flatten()
        chosen = torch.zeros_like(ranked, dtype=torch.bool)
        chosen[ranked.topk(k).indices] = True
        return chosen.view_as(s) & unknown & ~s.isnan()


class TemporaryCorrection(LargeLossRejection):
    """LL-Ct: the un-annotated entries of a batch with the largest losses are positives in this step; else as LL-R."""

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        large = self.large(s, targets == -1, (self.epoch - 1) * self.delta)
        return softplus(torch.where(large | (targets == 1), -s, s)).sum()


class PermanentCorrection(LargeLossRejection):
    """LL-Cp: the un-annotated entries of a batch with the largest losses become positives, and stay it; else as LL-R.

    Args:
        delta: the share of these among all entries of a batch, in [0, 1].
        shape: N images and C classes of the training set.

    Attributes:
        corrected: int8 [N, C], more than 0 where an entry has become a positive.
    """

    by_image = True

    def __init__(self, delta: float = 0.002, shape: tuple[int, int] = (0, 0)):
        super().__init__(delta)
        self.register_buffer("corrected", torch.zeros(shape, dtype=torch.int8))

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries; corrects some of them if there is a gradient to be taken."""
        positive = (targets == 1) | ((targets == -1) & (self.corrected[rows[0]] > 0))
        large = self.large(s, (targets == -1) & ~positive, self.delta if self.epoch > 1 else 0)
        if s.requires_grad:
            self.corrected.index_add_(0, rows[0], large.to(torch.int8))  # adds up where a batch has an image twice
        return softplus(torch.where(large | positive, -s, s)).sum()
