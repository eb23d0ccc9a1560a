"""The Asymmetric Loss (ASL): Ridnik et al., "Asymmetric Loss For Multi-Label Classification" (arXiv 2009.14119)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csl.errors import InputError
from csl.losses.targets import check_targets
from csl.ops import SelectiveOptions, selective_loss
from csl.ops.selective_formula import FLOOR


class AsymmetricLoss(nn.Module):
    """ASL over positives and negatives, summed over batch and classes.

    Args:
        gamma_neg, gamma_pos: focusing exponents of negatives and positives, 0 or more.
        clip: probability margin of negatives, in [0, 1).
        eps: least probability inside a logarithm. Only the published 1e-8 is computed.
        disable_torch_grad_focal_loss: stop the gradient through the focusing weight.
        mode: what un-annotated entries (-1) count as, one of `csl.ops.selective_formula.MODES` but "selective": ASL has no
            third state, and a negative has the settings of any other.

    Raises:
        InputError: a mode or value out of range; in `forward`, shapes that do not fit or a label outside {1, 0, -1}.
    """

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        eps: float = FLOOR,
        disable_torch_grad_focal_loss: bool = True,
        mode: str | None = "negative",
    ):
        super().__init__()
        if eps != FLOOR:
            raise InputError(f"AsymmetricLoss: eps {eps}, expected {FLOOR}")
        if mode == "selective":
            raise InputError("--partial_loss_mode selective: ASL has no such mode, expected --loss csl")
        self.options = SelectiveOptions(
            mode, clip or 0.0, gamma_pos, gamma_neg, gamma_unann=gamma_neg,
            focal_gradient=not disable_torch_grad_focal_loss,
        )  # fmt: skip

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits [B, C] and targets [B, C] to the summed loss, a float32 scalar."""
        check_targets(logits, targets)
        with torch.autocast(logits.device.type, enabled=False):
            return selective_loss(logits, targets, options=self.options)


class AsymmetricLossOptimized(AsymmetricLoss):
    """`AsymmetricLoss` under the name and the default of the published faster version: gradient through the weight."""

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        eps: float = FLOOR,
        disable_torch_grad_focal_loss: bool = False,
        mode: str | None = "negative",
    ):
        super().__init__(gamma_neg, gamma_pos, clip, eps, disable_torch_grad_focal_loss, mode)


class ASLSingleLabel(nn.Module):
    """ASL for one class out of many, on the log-softmax, with label smoothing.

    loss = - sum_c s w log p, with h one-hot, s = h (1 - eps) + eps / C and
    w = (1 - p h - (1 - p) (1 - h)) ^ (gamma_pos h + gamma_neg (1 - h)), through which the gradient flows.

    Args:
        gamma_pos, gamma_neg: focusing exponents of the class that is there and of the others.
        eps: label smoothing, in [0, 1).
        reduction: "mean" over the batch, or "none" for [B].
    """

    def __init__(self, gamma_pos: float = 0.0, gamma_neg: float = 4.0, eps: float = 0.1, reduction: str = "mean"):
        super().__init__()
        if reduction not in ("mean", "none"):
            raise InputError(f"ASLSingleLabel: reduction {reduction!r}, expected mean or none")
        self.gamma_pos, self.gamma_neg, self.eps, self.reduction = gamma_pos, gamma_neg, eps, reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits [B, C] and class numbers [B] to the mean loss, or [B] without reduction."""
        log_p = F.log_softmax(logits.float(), dim=1)  # [B, C]
        one_hot = F.one_hot(targets.long(), logits.shape[1]).to(log_p.dtype)  # [B, C]
        p = log_p.exp()
        weight = (1 - p * one_hot - (1 - p) * (1 - one_hot)) ** (
            self.gamma_pos * one_hot + self.gamma_neg * (1 - one_hot)
        )
        smooth = one_hot * (1 - self.eps) + self.eps / logits.shape[1]
        loss = -(smooth * weight * log_p).sum(1)  # [B]
        return loss.mean() if self.reduction == "mean" else loss
