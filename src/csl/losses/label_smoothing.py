"""Label smoothing (AN-LS): Cole et al., "Multi-Label Learning from Single Positive Labels" (arXiv 2106.09708).

    loss = sum  w (t softplus(-s) + (1 - t) softplus(s)),    t = 1 - eps / 2 of a positive, eps / 2 of a negative or unknown

with w = alpha_unann of the unknown: 1 assumes that they are negative (AN-LS), 0 leaves them out.
"""

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, softplus
from csl.losses.targets import check_option


class LabelSmoothing(PartialLoss):
    """Cross-entropy against targets that are smoothed, summed.

    Args:
        eps: share of smoothing, in [0, 1].
        alpha_unann: weight of un-annotated entries, 0 or more.
    """

    def __init__(self, eps: float = 0.1, alpha_unann: float = 1.0):
        super().__init__()
        check_option("eps", eps, 0, 1)
        check_option("alpha_unann", alpha_unann, 0)
        self.eps, self.alpha_unann = eps, alpha_unann

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        t = (1 - self.eps) * (targets == 1).to(s.dtype) + self.eps / 2  # [B, C]
        loss = t * softplus(-s) + (1 - t) * softplus(s)
        return torch.where(targets == -1, self.alpha_unann * loss, loss).sum()
