"""The mean prediction over the samples of an epoch: the published estimate of the class prior."""

import torch
from torch import Tensor

from csl.machine import distributed


class ClassPrior:
    """Running mean of sigmoid(logits) over the samples of an epoch.

    Args:
        num_classes: C.
        device: where the sum is kept, so that adding a batch does not wait for the device.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.total = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.samples = 0

    def update(self, logits: Tensor) -> None:
        """Add the logits [B, C] of a batch."""
        self.total += torch.sigmoid(logits.detach().float()).sum(0)
        self.samples += len(logits)

    def value(self) -> Tensor:
        """[C] the mean probabilities in float32, NaN before the first sample."""
        return (self.total / self.samples if self.samples else torch.full_like(self.total, torch.nan)).float().cpu()

    def over_processes(self) -> "ClassPrior":
        """The prior over the samples of all processes of the job."""
        whole = ClassPrior(len(self.total), self.total.device)
        whole.total = distributed.all_reduce_sum(self.total.clone())
        whole.samples = int(distributed.all_reduce_sum(torch.tensor(self.samples)))
        return whole

    def state_dict(self) -> dict:
        """The sum and the count, for `load_state_dict`."""
        return {"total": self.total.cpu(), "samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`."""
        self.total.copy_(state["total"])
        self.samples = state["samples"]
