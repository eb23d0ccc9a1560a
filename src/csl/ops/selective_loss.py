"""The partial selective loss on logits and tri-state targets: value and gradient in one pass.

Ben-Baruch et al., "Multi-label Classification with Partial Annotations using Class-aware Selective Loss" (arXiv
2110.10955), equations 4 to 8, in the form of its published code:

    p = sigmoid(x),  q = min(1, 1 - p + clip)
    loss = - sum  w A ( a+ t+ log max(p, 1e-8) + (a- t- + au tu) log max(q, 1e-8) )
    A    = (1 - p t+ - q (t- + tu)) ^ (g+ t+ + g- t- + gu tu),   no gradient through A

over batch and classes, with t+, t-, tu the masks of targets 1, 0 and -1; w depends on the mode (see `MODES`). ASL
(arXiv 2009.14119) is mode "negative" on targets without -1.
"""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from csl.machine import distributed
from csl.ops.selective_loss_cpu import FLOOR, on_cpu

MODES = (None, "negative", "ignore", "ignore_normalize_classes", "selective")
"""What happens to an un-annotated entry. None and "negative": it is a negative with its own alpha and gamma. "ignore": it
weighs nothing. "ignore_normalize_classes": likewise, and an annotated entry weighs 1 / (1 + annotated of its image) + 1.
"selective": it is a negative, unless its class has a prior over the threshold or it is among the most likely ones."""

TOPK_SCOPES = ("batch", "global", "sample")
"""Where the `likelihood_topk` most likely un-annotated entries are looked for: K * B over the flattened batch of this
process; K a sample over the batches of all processes of the job (`csl.machine.distributed`) as if they were one, for which all
of them compute the loss together, each of one sample or more; K in each sample."""


def selective_loss_ref(
    logits: Tensor,
    targets: Tensor,
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
    focal_gradient: bool = False,
) -> Tensor:
    """`selective_loss` as the formula reads, differentiated by autograd: what it must equal."""
    x = logits if logits.dtype == torch.float64 else logits.float()  # [B, C]
    positive, negative, unknown = targets == 1, targets == 0, targets == -1
    p = torch.sigmoid(x)
    q = 1 - p
    if clip > 0:
        q = (q + clip).clamp(max=1)
    log_likelihood = alpha_pos * positive * p.clamp(min=FLOOR).log()
    log_likelihood = log_likelihood + (alpha_neg * negative + alpha_unann * unknown) * q.clamp(min=FLOOR).log()
    if gamma_pos > 0 or gamma_neg > 0 or gamma_unann > 0:
        with torch.set_grad_enabled(focal_gradient and torch.is_grad_enabled()):
            gamma = gamma_pos * positive + gamma_neg * negative + gamma_unann * unknown
            focus = (1 - p * positive - q * (negative | unknown)) ** gamma
        log_likelihood = log_likelihood * focus
    weight = entry_weights(q.detach(), targets, mode, likelihood_topk, prior, prior_threshold, topk_scope)
    return -(log_likelihood if weight is None else log_likelihood * weight).sum()


def entry_weights(
    q: Tensor,
    targets: Tensor,
    mode: str | None,
    likelihood_topk: int,
    prior: Tensor | None,
    prior_threshold: float,
    topk_scope: str,
) -> Tensor | None:
    """The weight w [B, C] that the mode gives every entry, or None where all weigh 1.

    q [B, C] is the (clipped) probability that the class is absent. Entries removed by the prior still use up the
    budget of the likelihood top-k, as in the published code.
    """
    if mode in (None, "negative"):
        return None
    unknown = targets == -1
    if mode == "ignore":
        return (~unknown).to(q.dtype)
    if mode == "ignore_normalize_classes":
        annotated = (~unknown).to(q.dtype)
        return annotated * (1 / (1 + annotated.sum(1, keepdim=True)) + 1)
    weight = torch.ones_like(q)
    if prior is not None and prior_threshold:
        weight.masked_fill_(unknown & (prior > prior_threshold), 0)
    rows = q.shape[0] if topk_scope == "sample" else 1
    entries = q.numel() // rows
    k = min(likelihood_topk * (q.shape[0] // rows), entries)
    if k > 0:
        # Annotated entries rank behind every un-annotated one, and are not removed when they are chosen for want of others.
        ranked = torch.where(unknown, q, torch.inf).view(rows, entries)
        if topk_scope == "global" and distributed.world_size() > 1:
            values, indices = _smallest_of_all(ranked, likelihood_topk * q.shape[0])
        else:
            values, indices = ranked.topk(k, dim=1, largest=False, sorted=False)
        flat = weight.view(rows, entries)
        flat.scatter_(1, indices, torch.where(values.isinf(), flat.gather(1, indices), 0.0))
    return weight


def _smallest_of_all(ranked, share):
    """Of the smallest entries of all processes, as many as their shares together, those of `ranked` [1, N] here."""
    budget = int(distributed.all_reduce_sum(torch.tensor(share)))
    values, indices = ranked.topk(min(budget, ranked.shape[1]), dim=1, largest=False, sorted=False)
    candidates = ranked.new_full((budget,), torch.inf)
    candidates[: values.shape[1]] = values[0]
    chosen = distributed.gather_tensors(candidates).flatten().topk(budget, largest=False, sorted=False).indices
    mine = chosen - distributed.rank() * budget
    mine = mine[(mine >= 0) & (mine < values.shape[1])]
    return values[:, mine], indices[:, mine]


def selective_loss(
    logits: Tensor,
    targets: Tensor,
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
    focal_gradient: bool = False,
) -> Tensor:
    """Sum of the partial selective loss over batch and classes, its gradient computed along with it.

    Args:
        logits: [B, C]; half precision is computed in float32, and the gradient comes back in the logits' dtype.
        targets: [B, C] in {1, 0, -1}, any dtype.
        mode: one of `MODES`.
        clip: probability margin added to q, in [0, 1); 0 for none.
        gamma_pos, gamma_neg, gamma_unann: focusing exponents, 0 for none.
        alpha_pos, alpha_neg, alpha_unann: weights.
        likelihood_topk: K, un-annotated entries ignored per sample (on average, but with scope "sample"); mode "selective".
        prior: [C] estimated frequency of each class, or None; mode "selective".
        prior_threshold: un-annotated entries of classes with a prior over it are ignored; 0 for none.
        topk_scope: one of `TOPK_SCOPES`.
        focal_gradient: let the gradient flow through A, as ASL does when asked to.

    Returns:
        A scalar in float32 (float64 for float64 logits). NaN logits give NaN.

    Un-annotated entries that tie for the last places among the K most likely ones share these: each is ignored in
    part, so that their order does not matter, nor which process has them. The plain twin picks among them at random.
    """
    arguments = (
        logits, targets, mode, clip, gamma_pos, gamma_neg, gamma_unann, alpha_pos, alpha_neg, alpha_unann,
        likelihood_topk, prior, prior_threshold, topk_scope, focal_gradient,
    )  # fmt: skip
    if _fast(logits) is None:
        return selective_loss_ref(*arguments)
    return _SelectiveLoss.apply(*arguments)


def _fast(logits: Tensor):
    """The function that computes loss and gradient of such logits, or None where the plain twin has to."""
    if logits.device.type == "cpu":
        return on_cpu
    if logits.device.type == "cuda" and logits.dtype != torch.float64 and _triton_works():
        from csl.ops.selective_loss_triton import on_gpu  # importing it takes Triton, and a second

        return on_gpu
    return None


@torch.compiler.assume_constant_result
@cache
def _triton_works() -> bool:
    """Whether the kernels run here and give the plain twin's numbers: the way to know is to run them, once."""
    if not find_spec("triton"):
        return False
    logits = torch.linspace(-3, 3, 63, device="cuda").view(9, 7).T.contiguous()  # [7, 9], no ties
    targets = (torch.arange(63, device="cuda") % 3 - 1).view(7, 9)
    try:
        from csl.ops.selective_loss_triton import on_gpu

        for mode in ("negative", "selective"):
            options = (mode, 0.05, 1.0, 2.0, 4.0, 1.0, 0.5, 0.7, 2, None, 0.05, "batch", False)
            loss, gradient = on_gpu(logits, targets, *options)
            leaf = logits.clone().requires_grad_()
            with torch.enable_grad():
                expected = selective_loss_ref(leaf, targets, *options)
            expected.backward()
            torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-5)
    except Exception as error:  # a missing compiler, driver or package, or other numbers: each its own exception
        reason = (str(error).strip() or "no message").splitlines()[0]
        warnings.warn(
            f"selective loss: plain PyTorch, which is slower ({type(error).__name__}: {reason})", stacklevel=2
        )
        return False
    return True


class _SelectiveLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, *options):
        # The compiler takes the operator as it is; in a direct call its dispatch would cost more than a small batch.
        compute = loss_and_gradient if torch.compiler.is_compiling() else _fast(logits)
        loss, gradient = compute(logits, targets, *options)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors  # in float32, so that a float16 gradient is rounded after the loss scale
        return (gradient * grad_output).to(ctx.dtype), *[None] * 14


@torch.library.custom_op("csl::selective_loss", mutates_args=())
def loss_and_gradient(
    logits: Tensor,
    targets: Tensor,
    mode: str | None,
    clip: float,
    gamma_pos: float,
    gamma_neg: float,
    gamma_unann: float,
    alpha_pos: float,
    alpha_neg: float,
    alpha_unann: float,
    likelihood_topk: int,
    prior: Tensor | None,
    prior_threshold: float,
    topk_scope: str,
    focal_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """What `selective_loss` computes, as one operator: the loss and its gradient [B, C], both in float32 or float64."""
    return _fast(logits)(
        logits, targets, mode, clip, gamma_pos, gamma_neg, gamma_unann, alpha_pos, alpha_neg, alpha_unann,
        likelihood_topk, prior, prior_threshold, topk_scope, focal_gradient,
    )  # fmt: skip


@loss_and_gradient.register_fake
def _(logits, targets, *options):
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty((), dtype=dtype), logits.new_empty(logits.shape, dtype=dtype)
