"""What the losses for partial labels have in common."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.losses.targets import check_option, check_targets
from csl.ops.selective_formula import wide


class PartialLoss(nn.Module, ABC):
    """A loss of logits and targets in {1, 0, -1}, computed in float32 (float64 for float64).

    Attributes:
        epoch: the epoch under way, from 1; training tells it.
        by_image: whether `forward` takes the rows of the images in the training set as well, [B], and the loss remembers
            something of each. Its buffers [N, C] are part of the state of training.

    Raises:
        InputError: an option out of range; in `forward`, shapes that do not fit or a label outside {1, 0, -1}.
    """

    by_image = False

    def __init__(self):
        super().__init__()
        self.epoch = 1

    def take(self, **options: tuple[float, ...]) -> None:
        """Make options attributes, each given as its value, the least it may be, and the most if there is one.

        Raises:
            InputError: a value out of its range.
        """
        for name, (value, *ends) in options.items():
            check_option(name, value, *ends)
            setattr(self, name, value)

    def begin_epoch(self, epoch: int) -> None:
        """Training begins an epoch, from 1, or goes on within it."""
        self.epoch = epoch

    def forward(self, logits: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """Logits [B, C], targets [B, C] in {1, 0, -1} and, if `by_image`, rows [B] to the summed loss, a scalar."""
        check_targets(logits, targets)
        with torch.autocast(logits.device.type, enabled=False):
            return self.value(wide(logits), targets, *rows)

    @abstractmethod
    def value(self, s: Tensor, targets: Tensor, *rows: Tensor) -> Tensor:
        """The loss, a scalar, of what `forward` takes, with logits in float32 or float64."""

    def extra_repr(self) -> str:
        """The settings, for `print(loss)`."""
        return ", ".join(f"{k}={v}" for k, v in vars(self).items() if k[0] != "_" and k not in ("training", "epoch"))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digit, where `F.softplus` is linear from 20 on: -log p at -x, -log(1 - p) at x."""
    return -F.logsigmoid(-x)


def by_target(targets: Tensor, positive: Tensor, negative: Tensor, unknown: Tensor) -> Tensor:
    """What of three tensors [B, C] the targets name: 1, 0 or -1."""
    return torch.where(targets == 1, positive, torch.where(targets == 0, negative, unknown))
