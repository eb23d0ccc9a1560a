"""The partial selective loss as an operator: value and gradient in one pass, by Triton's kernels or plain PyTorch.

The formula is in `csl.ops.selective_formula`.
"""

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from csl.ops.constant import assume_constant_result
from csl.ops.selective_formula import SelectiveOptions, closed_form, selective_loss_ref

FIELDS = tuple(SelectiveOptions.__dataclass_fields__)


def selective_loss(
    logits: Tensor,
    targets: Tensor,
    prior: Tensor | None = None,
    options: SelectiveOptions | None = None,
    **settings: Any,
) -> Tensor:
    """Sum of the partial selective loss over batch and classes, its gradient computed along with it.

    Args:
        logits: [B, C]; half precision is computed in float32, and the gradient comes back in the logits' dtype.
        targets: [B, C] in {1, 0, -1}, any dtype.
        prior: [C] estimated frequency of each class, or None; mode "selective".
        options: the settings as one object; or
        settings: fields of `SelectiveOptions` by name.

    Returns:
        A scalar in float32 (float64 for float64 logits). NaN logits give NaN.

    Un-annotated entries that tie for the last places among the K most likely ones share these: each is ignored in
    part, so that their order does not matter.
    """
    options = options or SelectiveOptions(**settings)
    return _SelectiveLoss.apply(logits, targets, prior, *[getattr(options, name) for name in FIELDS])


def _implementation(logits):
    """The function that computes loss and gradient of such logits."""
    if logits.device.type == "cuda" and logits.dtype != torch.float64 and _triton_works():
        from csl.ops.selective_triton import on_gpu  # importing Triton takes a second

        return on_gpu
    return closed_form


@assume_constant_result
@cache
def _triton_works() -> bool:
    """Whether the kernels run here and give the plain twin's numbers: tried once, on a small problem."""
    if not find_spec("triton"):
        return False
    try:
        from csl.ops.selective_triton import on_gpu

        _compare(on_gpu, "cuda")
    except Exception as error:  # a missing compiler, driver or package, or other numbers: each its own exception
        reason = (str(error).strip() or "no message").splitlines()[0]
        warnings.warn(
            f"selective loss: plain PyTorch, which is slower ({type(error).__name__}: {reason})", stacklevel=2
        )
        return False
    return True


@torch.inference_mode(False)  # whatever mode the first call is in
@torch.enable_grad()
def _compare(on_gpu, device):
    """Raise AssertionError unless the kernels give the plain twin's loss and gradient."""
    logits = torch.linspace(-3, 3, 63, device=device).view(9, 7).T.contiguous()  # [7, 9], no ties
    targets = (torch.arange(63, device=device) % 3 - 1).view(7, 9)
    for mode in ("negative", "selective"):
        options = SelectiveOptions(mode, 0.05, 1.0, 2.0, 4.0, 1.0, 0.5, 0.7, 2)
        loss, gradient = on_gpu(logits, targets, None, options)
        leaf = logits.clone().requires_grad_()
        expected = selective_loss_ref(leaf, targets, None, options)
        expected.backward()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-5)


class _SelectiveLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, prior, *settings):
        # The compiler takes the operator as it is; in a direct call its dispatch would cost more than a small batch.
        if torch.compiler.is_compiling():
            loss, gradient = loss_and_gradient(logits, targets, prior, *settings)
        else:
            loss, gradient = _implementation(logits)(logits, targets, prior, SelectiveOptions(*settings))
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors  # in float32, so that a float16 gradient is rounded after the loss scale
        return (gradient * grad_output).to(ctx.dtype), None, None, *[None] * len(FIELDS)


@torch.library.custom_op(
    "csl::selective_loss",
    mutates_args=(),
    schema="(Tensor logits, Tensor targets, Tensor? prior, str? mode, float clip, float gamma_pos, float gamma_neg, "
    "float gamma_unann, float alpha_pos, float alpha_neg, float alpha_unann, int likelihood_topk, "
    "float prior_threshold, str topk_scope, bool focal_gradient) -> (Tensor, Tensor)",
)
def loss_and_gradient(logits: Tensor, targets: Tensor, prior: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor]:
    """`selective_loss` as one operator: the loss and its gradient [B, C], both in float32 or float64."""
    return _implementation(logits)(logits, targets, prior, SelectiveOptions(*settings))


@loss_and_gradient.register_fake
def _(logits, targets, prior, *settings):
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty((), dtype=dtype), logits.new_empty(logits.shape, dtype=dtype)
