"""The generalised robust loss (GR): Chen et al., "Boosting Single Positive Multi-label Classification with Generalized Robust
Loss" (arXiv 2405.03501).

    known:     cross-entropy
    unknown:   V (K (1 - p ^ q2) / q2 + (1 - K) (1 - (1 - p) ^ q3) / q3),
               K = sigmoid(w p + b),  V = exp(-(p - mu) ^ 2 / (2 sigma ^ 2)),  no gradient through K and V

K is the probability that the entry is a positive, V how far it is trusted. Over the first `ramp` epochs w goes from 0, mu from
0.5 and sigma from 2 to the values named, in equal steps.
"""

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, by_target, softplus


class GeneralizedRobustLoss(PartialLoss):
    """Cross-entropy of known entries, and a robust loss against soft labels of the others, summed.

    Args:
        ramp: epochs until w, mu and sigma have the values below, 1 or more.
        w, b: slope and offset of K, in [-100, 100].
        mu, sigma: centre and width of V, in [0, 1] and [0.01, 100].
        q2, q3: exponents in [0.001, 1]: towards 0 cross-entropy, at 1 the absolute error.
    """

    def __init__(
        self,
        ramp: int = 10,
        w: float = 2.0,
        b: float = -2.0,
        mu: float = 0.8,
        sigma: float = 0.5,
        q2: float = 0.01,
        q3: float = 1.0,
    ):
        super().__init__()
        self.take(ramp=(ramp, 1), w=(w, -100, 100), b=(b, -100, 100))
        self.take(mu=(mu, 0, 1), sigma=(sigma, 0.01, 100), q2=(q2, 0.001, 1), q3=(q3, 0.001, 1))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        positive, negative, p = softplus(-s), softplus(s), torch.sigmoid(s.detach())
        done = min((self.epoch - 1) / max(self.ramp - 1, 1), 1)
        mu, sigma = 0.5 + done * (self.mu - 0.5), 2 + done * (self.sigma - 2)
        k = torch.sigmoid(done * self.w * p + self.b)
        v = torch.exp(-((p - mu) ** 2) / (2 * sigma**2))
        robust_positive = -torch.expm1(-self.q2 * positive) / self.q2  # (1 - p ^ q2) / q2
        robust_negative = -torch.expm1(-self.q3 * negative) / self.q3
        return by_target(targets, positive, negative, v * (k * robust_positive + (1 - k) * robust_negative)).sum()
