"""The Class-aware Selective Loss and the asymmetric partial losses it is built from (arXiv 2110.10955)."""

import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.losses.targets import check_targets
from csl.ops.selective_loss import MODES, TOPK_SCOPES, selective_loss


class PartialSelectiveLoss(nn.Module):
    """Asymmetric focal loss over annotated and un-annotated entries, summed over batch and classes.

    The sum is that of this process's batch. Training on several adds their gradients up, as one batch would.

    Args:
        mode: what an un-annotated entry is: "negative" (or None), "ignore", "ignore_normalize_classes" or "selective".
            See `csl.ops.selective_loss.MODES`.
        clip: probability margin of negatives, in [0, 1).
        gamma_pos, gamma_neg, gamma_unann: focusing exponents of positive, negative and un-annotated entries, 0 or more.
        alpha_pos, alpha_neg, alpha_unann: their weights.
        likelihood_topk: K, the un-annotated entries ignored per sample because they look most positive.
        prior: [C] the estimated frequency of each class, or None.
        prior_threshold: un-annotated entries of classes with a larger prior are ignored; 0 for none.
        topk_scope: "batch" takes the K * B most likely entries of this process's batch, as a single device of that batch
            would; "global" likewise of the batches of all processes together (see `csl.machine.distributed`); "sample" K
            in each sample. A batch is what one call of the loss gets: with gradient accumulation, one of several in a step.

    Raises:
        InputError: a mode, scope or value out of range; in `forward`, shapes that do not fit, a label outside
            {1, 0, -1}, or a prior of another class count.

    Source: arXiv 2110.10955, equations 4 to 8.
    """

    def __init__(
        self,
        mode: str | None = "negative",
        clip: float = 0.0,
        gamma_pos: float = 0.0,
        gamma_neg: float = 1.0,
        gamma_unann: float = 2.0,
        alpha_pos: float = 1.0,
        alpha_neg: float = 1.0,
        alpha_unann: float = 1.0,
        likelihood_topk: int = 5,
        prior: Tensor | None = None,
        prior_threshold: float = 0.05,
        topk_scope: str = "batch",
    ):
        super().__init__()
        if mode not in MODES:
            raise InputError(f"--partial_loss_mode {mode}: unknown, expected one of {', '.join(map(str, MODES[1:]))}")
        if topk_scope not in TOPK_SCOPES:
            raise InputError(f"--topk_scope {topk_scope}: unknown, expected one of {', '.join(TOPK_SCOPES)}")
        if not 0 <= clip < 1:
            raise InputError(f"--clip {clip}: expected a margin in [0, 1)")
        if likelihood_topk < 0:
            raise InputError(f"--likelihood_topk {likelihood_topk}: expected 0 or more")
        for name, gamma in (("pos", gamma_pos), ("neg", gamma_neg), ("unann", gamma_unann)):
            if gamma < 0:
                raise InputError(f"--gamma_{name} {gamma}: expected 0 or more")
        self.mode = mode
        self.clip = clip
        self.gamma_pos, self.gamma_neg, self.gamma_unann = gamma_pos, gamma_neg, gamma_unann
        self.alpha_pos, self.alpha_neg, self.alpha_unann = alpha_pos, alpha_neg, alpha_unann
        self.likelihood_topk = likelihood_topk
        self.prior_threshold = prior_threshold
        self.topk_scope = topk_scope
        if prior is not None:
            prior = torch.as_tensor(prior, dtype=torch.float32)
            if prior.dim() != 1:
                raise InputError(f"prior: shape {tuple(prior.shape)}, expected one value for each class")
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits [B, C] and targets [B, C] in {1, 0, -1} to the summed loss, a float32 scalar."""
        check_targets(logits, targets, (-1, 0, 1))
        if self.prior is not None and self.prior.numel() != logits.shape[1]:
            raise InputError(f"prior: {self.prior.numel()} classes, expected {logits.shape[1]} as the logits have")
        with torch.autocast(logits.device.type, enabled=False):
            return selective_loss(
                logits,
                targets,
                mode=self.mode,
                clip=self.clip,
                gamma_pos=self.gamma_pos,
                gamma_neg=self.gamma_neg,
                gamma_unann=self.gamma_unann,
                alpha_pos=self.alpha_pos,
                alpha_neg=self.alpha_neg,
                alpha_unann=self.alpha_unann,
                likelihood_topk=self.likelihood_topk,
                prior=self.prior,
                prior_threshold=self.prior_threshold,
                topk_scope=self.topk_scope,
            )

    def extra_repr(self) -> str:
        """The settings that are not at rest, for `print(loss)`."""
        shown = ("mode", "clip", "gamma_pos", "gamma_neg", "gamma_unann", "likelihood_topk", "prior_threshold")
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)
