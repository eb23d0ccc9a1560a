"""Asymmetric pseudo-labelling over entropy maximisation (EM + APL): Zhou et al., "Acknowledging the Unknown for Multi-label
Learning with Single Positive Labels" (arXiv 2203.16219).

    known:               cross-entropy
    unknown:             -alpha H(p)
    pseudo-negative:     beta (-q log p - (1 - q) log(1 - p)),    q the probability that the entry was chosen at

After `warm_up` epochs, of each class's unknown entries the least likely become pseudo-negatives, for good: a share that grows
over `ramp` epochs, in equal steps, to `share`. How likely an entry is, is what the network said when training saw its image
last, where the paper predicts the training set anew. Two numbers for each entry, N C of them: for small data.
"""

import torch
from torch import Tensor

from csl.losses.entropy import EntropyMaximisation, entropy
from csl.losses.partial import by_target, softplus
from csl.losses.targets import check_option


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
        check_option("beta", beta, 0)
        check_option("share", share, 0, 1)
        check_option("warm_up", warm_up, 1)
        check_option("ramp", ramp, 1)
        self.beta, self.share, self.warm_up, self.ramp = beta, share, warm_up, ramp
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
        ranks = (
            self.last.masked_fill(~open_, torch.inf).argsort(dim=0, stable=True).argsort(0)
        )  # the least likely first
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
