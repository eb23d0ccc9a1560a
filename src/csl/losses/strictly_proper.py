"""The strictly proper asymmetric loss (SPA): Cheng and Vasconcelos, "Towards Calibrated Multi-label Deep Neural Networks"
(CVPR 2024, pages 27589 to 27599).

    positive:   softplus(-k_pos (v - b_pos)) / z_pos
    negative:   softplus( k_neg (v - b_neg)) / z_neg

An entry that is positive with probability p has the least expected loss at the v where both slopes cancel, and at no other:

    log p / (1 - p) = log (k_neg z_pos / (k_pos z_neg)) + softplus(k_pos (v - b_pos)) - softplus(-k_neg (v - b_neg)).

Here v is what this link makes of the logit s, so that sigmoid(s) is that p: asymmetric as a focal loss is, yet its scores are
probabilities. With k = z = 1 and b = 0 it is cross-entropy. Un-annotated entries are left out; the paper knows all labels, and
adds a regulariser of pairs of labels, which is not here.
"""

import math

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, softplus

STEPS = 40
"""Of halving an interval that holds v; a step of Newton's method after them makes it exact."""


class StrictlyProperLoss(PartialLoss):
    """Asymmetric loss of known entries whose minimum is the probability itself, summed.

    Args:
        k_pos, b_pos, z_pos: slope in [0.01, 100], offset in [-100, 100] and divisor in [0.01, 100] of positives.
        k_neg, b_neg, z_neg: of negatives, b_neg at least b_pos: the link is flat between them where it is less.
    """

    def __init__(
        self,
        k_pos: float = 1.0,
        b_pos: float = 0.0,
        z_pos: float = 1.0,
        k_neg: float = 3.0,
        b_neg: float = 1.0,
        z_neg: float = 5.0,
    ):
        super().__init__()
        self.take(k_pos=(k_pos, 0.01, 100), b_pos=(b_pos, -100, 100), z_pos=(z_pos, 0.01, 100))
        self.take(k_neg=(k_neg, 0.01, 100), b_neg=(b_neg, b_pos, 100), z_neg=(z_neg, 0.01, 100))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        known = targets != -1
        v, positive = self.linked(s[known]), targets[known] == 1
        of_positive = softplus(-self.k_pos * (v - self.b_pos)) / self.z_pos
        of_negative = softplus(self.k_neg * (v - self.b_neg)) / self.z_neg
        return torch.where(positive, of_positive, of_negative).sum()

    def linked(self, s: Tensor) -> Tensor:
        """The v of logits s, with its gradient."""
        shift = math.log(self.k_neg * self.z_pos / (self.k_pos * self.z_neg))

        def logit(v):
            return shift + softplus(self.k_pos * (v - self.b_pos)) - softplus(-self.k_neg * (v - self.b_neg))

        with torch.no_grad():
            # softplus(x) is between max(x, 0) and that and log 2, which bounds v on either side.
            far = (s.double() - shift).abs() + math.log(2)
            low, high = self.b_pos - far / self.k_neg, self.b_neg + far / self.k_pos
            for _ in range(STEPS):
                middle = (low + high) / 2
                less = logit(middle) < s
                low, high = torch.where(less, middle, low), torch.where(less, high, middle)
            v = (low + high) / 2
            slope = self.k_pos * torch.sigmoid(self.k_pos * (v - self.b_pos))
            slope = slope + self.k_neg * torch.sigmoid(-self.k_neg * (v - self.b_neg))
            start = v - (logit(v) - s) / slope
        return start.to(s.dtype) + (s - s.detach()) / slope.to(s.dtype)
