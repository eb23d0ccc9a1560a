"""The Class-aware Selective Loss and the asymmetric partial losses it is built from (arXiv 2110.10955)."""

import inspect
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.losses.targets import check_targets
from csl.ops import SelectiveOptions, selective_loss


class PartialSelectiveLoss(nn.Module):
    """Asymmetric focal loss over annotated and un-annotated entries, summed over batch and classes.

    The sum is over this process's batch. Training on several processes adds up their gradients, as one batch would.

    Args:
        values, settings: fields of `csl.ops.SelectiveOptions`, in its order or by name: mode, clip, gamma_pos, ...
        prior: [C] the estimated frequency of each class, or None; mode "selective".

    With `topk_scope` "batch" the K * B most likely entries are taken from one call's batch: with gradient accumulation,
    from one of several in a step.

    Raises:
        InputError: a mode, scope or value out of range; in `forward`, shapes that do not fit, a label outside
            {1, 0, -1}, or a prior of another class count.

    Source: arXiv 2110.10955, equations 4 to 8.
    """

    def __init__(self, *values: Any, prior: Tensor | None = None, **settings: Any):
        super().__init__()
        self.options = SelectiveOptions(*values, **settings)
        if prior is not None:
            prior = torch.as_tensor(prior, dtype=torch.float32)
            if prior.dim() != 1:
                raise InputError(f"prior: shape {tuple(prior.shape)}, expected one value for each class")
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits [B, C] and targets [B, C] in {1, 0, -1} to the summed loss, a float32 scalar."""
        check_targets(logits, targets)
        if self.prior is not None and self.prior.numel() != logits.shape[1]:
            raise InputError(f"prior: {self.prior.numel()} classes, expected {logits.shape[1]} as the logits have")
        with torch.autocast(logits.device.type, enabled=False):
            return selective_loss(logits, targets, self.prior, self.options)

    def extra_repr(self) -> str:
        """All settings but the prior, for `print(loss)`."""
        return ", ".join(f"{field.name}={getattr(self.options, field.name)}" for field in fields(self.options))


# What `inspect.signature` and `help` show: the settings with their defaults, written once in `SelectiveOptions`.
PartialSelectiveLoss.__signature__ = inspect.Signature(
    [
        *inspect.signature(SelectiveOptions).parameters.values(),
        inspect.Parameter("prior", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Tensor | None),
    ]
)
