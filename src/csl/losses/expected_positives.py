"""Expected positive regularisation (EPR): Cole et al., "Multi-Label Learning from Single Positive Labels" (arXiv 2106.09708).

    loss = sum of the cross-entropy of known entries + weight * B / C * (mean over images of sum_c p - k) ^ 2

with k the mean number of positives of an image; un-annotated entries take part in the second term alone. The paper's loss is
this, divided by B C.
"""

import torch
from torch import Tensor

from csl.errors import InputError
from csl.losses.partial import PartialLoss, by_target, softplus
from csl.losses.targets import check_option


class ExpectedPositives(PartialLoss):
    """Cross-entropy of known entries, and what a batch's expected number of positives is off by, summed.

    Args:
        k: the mean number of positives of an image, more than 0: a person has it after looking at 30 photos.
        weight: of the second term, 0 or more.
    """

    def __init__(self, k: float = 0.0, weight: float = 1.0):
        super().__init__()
        if k <= 0:
            raise InputError(
                f"--loss_options k={k:g}: expected the mean number of positives of an image, such as k=2.9"
            )
        check_option("k", k, 0)
        check_option("weight", weight, 0)
        self.k, self.weight = k, weight

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries, and the term of the batch."""
        known = by_target(targets, softplus(-s), softplus(s), s.new_zeros(()))
        return known.sum() + self.weight * self.excess(torch.sigmoid(s))

    def excess(self, p: Tensor) -> Tensor:
        """B / C (mean over images of sum_c p - k) ^ 2 of probabilities [B, C]."""
        return (p.sum() - len(p) * self.k) ** 2 / max(p.numel(), 1)
