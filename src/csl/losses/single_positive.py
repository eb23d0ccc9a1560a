"""The losses of Cole et al., "Multi-Label Learning from Single Positive Labels" (arXiv 2106.09708).

Label smoothing (AN-LS), with w = alpha_unann of the unknown, else 1 (1 assumes that they are negative, 0 leaves them out):

    loss = sum  w (t softplus(-s) + (1 - t) softplus(s)),    t = 1 - eps / 2 of a positive, eps / 2 of a negative or unknown

Weak assumed negatives (WAN): with one positive an image and weight 1 / (C - 1), positives and assumed negatives pull with the
same force.

    loss = sum of the cross-entropy of known entries + weight * sum softplus(s) of un-annotated ones

Expected positive regularisation (EPR), with k the mean number of positives of an image; un-annotated entries take part in the
second term alone. The paper's loss is this, divided by B C.

    loss = sum of the cross-entropy of known entries + weight * B / C * (mean over images of sum_c p - k) ^ 2

Online label estimation (ROLE), with an estimate q = sigmoid(theta) of every label of the training set, learned beside the
network: each takes the other as its target, without gradient.

    loss = (L(s | q) + L(theta | p)) / 2,    L(x | t) = sum of the cross-entropy of sigmoid(x) against t + EPR(x)

The paper learns theta by Adam at ten times the network's rate; here it takes a plain gradient step of its own when its image
is seen, and begins at q = 1/2. A number for each entry, N C of them: for small data.
"""

import torch
from torch import Tensor

from csl.errors import InputError
from csl.losses.partial import PartialLoss, by_target, softplus


class LabelSmoothing(PartialLoss):
    """Cross-entropy against targets that are smoothed, summed.

    Args:
        eps: share of smoothing, in [0, 1].
        alpha_unann: weight of un-annotated entries, 0 or more.
    """

    def __init__(self, eps: float = 0.1, alpha_unann: float = 1.0):
        super().__init__()
        self.take(eps=(eps, 0, 1), alpha_unann=(alpha_unann, 0))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        t = (1 - self.eps) * (targets == 1).to(s.dtype) + self.eps / 2  # [B, C]
        loss = t * softplus(-s) + (1 - t) * softplus(s)
        return torch.where(targets == -1, self.alpha_unann * loss, loss).sum()


class WeakNegatives(PartialLoss):
    """Cross-entropy in which an un-annotated entry is a negative of little weight, summed.

    Args:
        weight: of un-annotated entries, 0 or more; 0 for 1 / (C - 1).
    """

    def __init__(self, weight: float = 0.0):
        super().__init__()
        self.take(weight=(weight, 0))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        weight = self.weight or 1 / max(s.shape[1] - 1, 1)
        return by_target(targets, softplus(-s), softplus(s), weight * softplus(s)).sum()


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
        self.take(k=(k, 0), weight=(weight, 0))

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries, and the term of the batch."""
        known = by_target(targets, softplus(-s), softplus(s), s.new_zeros(()))
        return known.sum() + self.weight * self.excess(torch.sigmoid(s))

    def excess(self, p: Tensor) -> Tensor:
        """B / C (mean over images of sum_c p - k) ^ 2 of probabilities [B, C]."""
        return (p.sum() - len(p) * self.k) ** 2 / max(p.numel(), 1)


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
        self.take(rate=(rate, 0))
        self.register_buffer("theta", torch.zeros(shape))

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries; moves the estimates of these images if there is a gradient to be taken."""
        theta = self.theta[rows[0]].to(s.dtype).requires_grad_()  # a copy
        with torch.enable_grad():
            of_estimates = self._given(theta, s, targets)
        if s.requires_grad:
            (gradient,) = torch.autograd.grad(of_estimates / 2, theta)
            step = -self.rate * torch.nan_to_num(gradient)  # what is no number is reported, or skipped, elsewhere
            self.theta.index_add_(0, rows[0], step.to(self.theta.dtype))
        return (self._given(s, theta, targets) + of_estimates.detach()) / 2

    def _given(self, x, other, targets):
        t = torch.sigmoid(other.detach())
        return (t * softplus(-x) + (1 - t) * softplus(x)).sum() + super().value(x, targets)
