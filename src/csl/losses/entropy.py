"""Entropy maximisation (EM), and asymmetric pseudo-labelling over it (EM + APL): Zhou et al., "Acknowledging the Unknown for
Multi-label Learning with Single Positive Labels" (arXiv 2203.16219).

    known:               cross-entropy
    unknown:             -alpha H(p),    H(p) = -p log p - (1 - p) log(1 - p)
    pseudo-negative:     beta (-q log p - (1 - q) log(1 - p)),    q the probability that the entry was chosen at

An un-annotated entry is drawn to p = 1/2, weakly where it is far from it. With EM + APL, after `warm_up` epochs, the least
likely of each class's unknown entries become pseudo-negatives, for good: a share that grows over `ramp` epochs, in equal
steps, to `share`. How likely an entry is, is what the network said when training saw its image last, where the paper predicts
the training set anew. Two numbers for each entry, N C of them: for small data.
"""

import torch
from torch import Tensor

from csl.losses.partial import PartialLoss, by_target, softplus


class EntropyMaximisation(PartialLoss):
    """Cross-entropy of known entries, less the entropy of the others, summed.

    Args:
        alpha: weight of the entropy, 0 or more; the paper has 0.2 for VOC, 0.1 for COCO and NUS-WIDE, 0.01 for CUB.
    """

    def __init__(self, alpha: float = 0.1):
        super().__init__()
        self.take(alpha=(alpha, 0))

    def value(self, s: Tensor, targets: Tensor) -> Tensor:
        """The sum over entries."""
        return by_target(targets, softplus(-s), softplus(s), -self.alpha * entropy(s)).sum()


class PseudoNegatives(EntropyMaximisation):
    """Cross-entropy of known entries and of pseudo-negatives, less the entropy of the other unknown ones, summed.

    Args:
        alpha, beta: weights of the entropy and of pseudo-negatives, 0 or more; the paper has 0.2 and 0.02 for VOC, 0.1 and
            0.9 for COCO, 0.1 and 0.2 for NUS-WIDE, 0.01 and 0.4 for CUB.
        share: of the unknown entries of a class that end as pseudo-negatives, in [0, 1].
        warm_up: epochs before the first are chosen, 1 or more.
        ramp: epochs in which they are chosen, 1 or more.
        shape: N images and C classes of the training set.

    Attributes:
        last: float32 [N, C], the last probability of an unknown entry, -1 of others.
        soft: float32 [N, C], q of a pseudo-negative, -1 of others.
        chosen_in: int64, the last epoch at whose beginning they were chosen.
    """

    by_image = True

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 0.9,
        share: float = 0.9,
        warm_up: int = 3,
        ramp: int = 5,
        shape: tuple[int, int] = (0, 0),
    ):
        super().__init__(alpha)
        self.take(beta=(beta, 0), share=(share, 0, 1), warm_up=(warm_up, 1), ramp=(ramp, 1))
        self.register_buffer("last", torch.full(shape, -1.0))
        self.register_buffer("soft", torch.full(shape, -1.0))
        self.register_buffer("chosen_in", torch.tensor(0))

    def begin_epoch(self, epoch: int) -> None:
        """Choose pseudo-negatives, once an epoch: a run that goes on within it has chosen them."""
        super().begin_epoch(epoch)
        if epoch <= self.warm_up or epoch <= self.chosen_in:
            return
        self.chosen_in.fill_(epoch)
        seen, chosen = self.last >= 0, self.soft >= 0  # [N, C]
        share = self.share * min((epoch - self.warm_up) / self.ramp, 1)
        wanted = torch.round(share * seen.sum(0)) - chosen.sum(0)  # [C]
        open_ = seen & ~chosen
        # The least likely first.
        ranks = self.last.masked_fill(~open_, torch.inf).argsort(dim=0, stable=True).argsort(0)
        self.soft.copy_(torch.where(open_ & (ranks < wanted), self.last, self.soft))

    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The sum over entries; notes how likely they are if there is a gradient to be taken."""
        positive, negative = softplus(-s), softplus(s)
        soft = self.soft[rows[0]].to(s.dtype)
        pseudo = self.beta * (soft * positive + (1 - soft) * negative)
        if s.requires_grad:
            p = torch.sigmoid(s.detach()).to(self.last.dtype)
            self.last[rows[0]] = torch.where((targets == -1) & ~p.isnan(), p, -1.0)
        return by_target(targets, positive, negative, torch.where(soft >= 0, pseudo, -self.alpha * entropy(s))).sum()


def entropy(s: Tensor) -> Tensor:
    """The entropy of sigmoid(s), in nats."""
    return torch.sigmoid(s) * softplus(-s) + torch.sigmoid(-s) * softplus(s)
