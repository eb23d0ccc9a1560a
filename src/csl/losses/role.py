"""Online label estimation (ROLE): Cole et al., "Multi-Label Learning from Single Positive Labels" (arXiv 2106.09708).

    loss = (L(s | q) + L(theta | p)) / 2,    L(x | t) = sum of the cross-entropy of sigmoid(x) against t + EPR(x)

with an estimate q = sigmoid(theta) of every label of the training set, learned beside the network: each takes the other as its
target, without gradient. EPR is `csl.losses.expected_positives`: known labels, and the mean number of positives of an image.

The paper learns theta by Adam at ten times the network's rate; here it takes a plain gradient step of its own when its image
is seen, and begins at q = 1/2. A number for each entry, N C of them: for small data.
"""

import torch
from torch import Tensor

from csl.losses.expected_positives import ExpectedPositives
from csl.losses.partial import softplus
from csl.losses.targets import check_option


class OnlineLabelEstimation(ExpectedPositives):
    """Cross-entropy against estimates of all labels, which are learned with the network, summed.

    Args:
        k, weight: as `ExpectedPositives` takes them.
        rate: step of the estimates' logits along their gradient, 0 or more.
        shape: N images and C classes of the training set.

    Attributes:
        theta: float32 [N, C], the logits of the estimates.
    """

    by_image = True

    def __init__(self, k: float = 0.0, weight: float = 1.0, rate: float = 1.0, shape: tuple[int, int] = (0, 0)):
        super().__init__(k, weight)
        check_option("rate", rate, 0)
        self.rate = rate
        self.register_buffer("theta", torch.zeros(shape))

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries; moves the estimates of these images if there is a gradient to be taken."""
        theta = self.theta[rows[0]].to(s.dtype).requires_grad_()  # a copy
        with torch.enable_grad():
            of_estimates = self._given(theta, s, targets)
        if s.requires_grad:
            (gradient,) = torch.autograd.grad(of_estimates / 2, theta)
            step = -self.rate * torch.nan_to_num(
                gradient
            )  # a batch that is no number is reported, or skipped, elsewhere
            self.theta.index_add_(0, rows[0], step.to(self.theta.dtype))
        return (self._given(s, theta, targets) + of_estimates.detach()) / 2

    def _given(self, x, other, targets):
        t = torch.sigmoid(other.detach())
        return (t * softplus(-x) + (1 - t) * softplus(x)).sum() + super().value(x, targets)
