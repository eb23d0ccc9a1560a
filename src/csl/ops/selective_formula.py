"""The partial selective loss as a formula: its settings, and its value and gradient in plain PyTorch.

Ben-Baruch et al., "Multi-label Classification with Partial Annotations using Class-aware Selective Loss" (arXiv
2110.10955), equations 4 to 8, in the form of its published code:

    p = sigmoid(x),  q = min(1, 1 - p + clip)
    loss = - sum  w A ( a+ t+ log max(p, 1e-8) + (a- t- + au tu) log max(q, 1e-8) )
    A    = (1 - p t+ - q (t- + tu)) ^ (g+ t+ + g- t- + gu tu),   no gradient through A

over batch and classes, with t+, t-, tu the masks of targets 1, 0 and -1; w depends on the mode (see `MODES`). ASL
(arXiv 2009.14119) is mode "negative" on targets without -1.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from csl.errors import InputError
from csl.ranges import check_ranges

FLOOR = 1e-8
"""Least probability inside a logarithm."""

MODES = (None, "negative", "ignore", "ignore_normalize_classes", "selective")
"""How an un-annotated entry counts. None and "negative": as a negative with its own alpha and gamma. "ignore": not at all.
"ignore_normalize_classes": not at all, and an annotated entry weighs 1 / (1 + annotated entries of its image) + 1.
"selective": as a negative, unless the prior of its class exceeds the threshold or it is among the most likely ones."""

TOPK_SCOPES = ("batch", "sample")
"""Where the most likely un-annotated entries are looked for: `likelihood_topk` * B in the flattened batch [B, C], or
`likelihood_topk` in each sample."""


@dataclass(frozen=True)
class SelectiveOptions:
    """The settings of the partial selective loss.

    Args:
        mode: one of `MODES`.
        clip: probability margin added to q, in [0, 1); 0 for none.
        gamma_pos, gamma_neg, gamma_unann: focusing exponents of positive, negative and un-annotated entries, 0 or more.
        alpha_pos, alpha_neg, alpha_unann: weights of the same.
        likelihood_topk: number K of un-annotated entries ignored per sample (on average, with scope "batch") because
            they look most positive; mode "selective".
        prior_threshold: un-annotated entries of classes with a larger prior are ignored; 0 for none; mode "selective".
        topk_scope: one of `TOPK_SCOPES`.
        focal_gradient: let the gradient flow through A, as ASL does when asked to.

    Raises:
        InputError: an unknown mode or scope, or a value out of range.
    """

    mode: str | None = "negative"
    clip: float = 0.0
    gamma_pos: float = 0.0
    gamma_neg: float = 1.0
    gamma_unann: float = 2.0
    alpha_pos: float = 1.0
    alpha_neg: float = 1.0
    alpha_unann: float = 1.0
    likelihood_topk: int = 5
    prior_threshold: float = 0.05
    topk_scope: str = "batch"
    focal_gradient: bool = False

    def __post_init__(self):
        if self.mode not in MODES:
            modes = ", ".join(map(str, MODES[1:]))
            raise InputError(f"--partial_loss_mode {self.mode}: unknown, expected one of {modes}")
        if self.topk_scope not in TOPK_SCOPES:
            raise InputError(f"--topk_scope {self.topk_scope}: unknown, expected one of {', '.join(TOPK_SCOPES)}")
        check_ranges(vars(self))


def selective_loss_ref(
    logits: Tensor,
    targets: Tensor,
    prior: Tensor | None = None,
    options: SelectiveOptions | None = None,
    **settings: Any,
) -> Tensor:
    """`selective_loss` as the formula reads, differentiated by autograd: what it must equal."""
    o = options or SelectiveOptions(**settings)
    x = wide(logits)  # [B, C]
    positive, negative, unknown = targets == 1, targets == 0, targets == -1
    p = torch.sigmoid(x)
    q = 1 - p
    if o.clip > 0:
        q = (q + o.clip).clamp(max=1)
    log_likelihood = o.alpha_pos * positive * p.clamp(min=FLOOR).log()
    log_likelihood = log_likelihood + (o.alpha_neg * negative + o.alpha_unann * unknown) * q.clamp(min=FLOOR).log()
    if o.gamma_pos > 0 or o.gamma_neg > 0 or o.gamma_unann > 0:
        with torch.set_grad_enabled(o.focal_gradient and torch.is_grad_enabled()):
            gamma = o.gamma_pos * positive + o.gamma_neg * negative + o.gamma_unann * unknown
            focus = (1 - p * positive - q * (negative | unknown)) ** gamma
        log_likelihood = log_likelihood * focus
    weight = entry_weights(x.detach(), unknown, prior, o)
    return -(log_likelihood if weight is None else log_likelihood * weight).sum()


def entry_weights(x: Tensor, unknown: Tensor, prior: Tensor | None, options: SelectiveOptions) -> Tensor | None:
    """The weight w [B, C] that the mode gives every entry of the logits x [B, C], or None where all weigh 1.

    Entries removed by the prior still use up the budget of the likelihood top-k, as in the published code.
    """
    if options.mode in (None, "negative"):
        return None
    if options.mode != "selective":
        weight = (~unknown).to(x.dtype)
        return weight if options.mode == "ignore" else weight * (1 / (1 + weight.sum(1, keepdim=True)) + 1)
    weight = torch.ones_like(x)
    rows = len(x) if options.topk_scope == "sample" else min(len(x), 1)
    k = min(options.likelihood_topk * len(x) // max(rows, 1), x.numel() // max(rows, 1))
    if k > 0:
        ranked = x.masked_fill(~unknown, -torch.inf).reshape(rows, -1)
        last = ranked.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)  # [rows, 1]
        above, tied = ranked > last, ranked == last
        share = (k - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True).clamp(min=1)  # what each that ties loses
        weight -= (above + tied * share.to(x.dtype)).view_as(x) * unknown
    if prior is not None and options.prior_threshold:
        weight.masked_fill_(unknown & (prior > options.prior_threshold), 0)
    return weight


def closed_form(
    logits: Tensor, targets: Tensor, prior: Tensor | None, options: SelectiveOptions
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient [B, C] on any device, both in float32 or float64."""
    o, x = options, wide(logits)
    is_positive, is_unknown = targets == 1, targets == -1
    positive, unknown = is_positive.to(x.dtype), is_unknown.to(x.dtype)  # products are faster than `where` on a CPU

    def of_target(of_positive, of_negative, of_unknown):
        return of_negative + (of_positive - of_negative) * positive + (of_unknown - of_negative) * unknown

    p = torch.sigmoid(x)  # [B, C]
    absent = 1 - p + o.clip
    likelihood = torch.where(is_positive, p, absent.clamp(max=1))
    base = 1 - likelihood
    gamma = of_target(o.gamma_pos, o.gamma_neg, o.gamma_unann)
    weight = base**gamma
    if (o.alpha_pos, o.alpha_neg, o.alpha_unann) != (1, 1, 1):
        weight *= of_target(o.alpha_pos, o.alpha_neg, o.alpha_unann)
    mode_weight = entry_weights(x, is_unknown, prior, o)
    if mode_weight is not None:
        weight *= mode_weight
    floored = likelihood.clamp(min=FLOOR)
    log = floored.log()
    slope = (likelihood >= FLOOR) / floored  # d log l / dl
    if o.focal_gradient:  # d (A log l) / dl = A (1 / l - gamma log l / base); where base is 0, so is log l
        slope -= gamma * log / base.clamp(min=1e-30)
    steep = p * (1 - p) * (1 - 2 * positive)  # - dl / dx
    if o.clip > 0:
        steep *= is_positive | (absent <= 1)  # flat where the margin is clamped
    return -(weight * log).sum(), steep * slope * weight


def wide(x: Tensor) -> Tensor:
    """x in the dtype that is computed in: float32, and float64 for float64."""
    return x if x.dtype == torch.float64 else x.float()
