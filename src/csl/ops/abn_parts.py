"""The two directions of InPlace-ABN by the parts of a backend: what a batch is normalised with, and its gradients."""

import functools
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor

from csl.ops import abn_torch


def scale_of(weight: Tensor, eps: float) -> Tensor:
    """|w| + eps with gradient +1 at w = 0, where `abs` has 0."""
    return torch.where(weight < 0, -weight, weight) + eps


def sign_of(weight: Tensor) -> Tensor:
    """The derivative of |w|: -1 or 1, and 1 at 0."""
    return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)


def update_running(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: int | Tensor,
    momentum: float,
) -> None:
    """Move running statistics towards a batch's mean and biased variance [C] of `count` values a channel."""
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)


def constants(mean: Tensor, var: Tensor, weight: Tensor, eps: float) -> Tensor:
    """What normalisation needs of each channel: mean, 1 / std, (|w| + eps) / std and 1 / (|w| + eps), [4, C]."""
    invstd = torch.rsqrt(var + eps)
    scale = scale_of(weight.to(invstd.dtype), eps)
    return torch.stack([mean, invstd, scale * invstd, scale.reciprocal()])


def prepare(
    x: Tensor,
    weight: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    batches: Tensor | None,
    momentum: float,
    eps: float,
    backend: str,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, float | Tensor]:
    """`constants` of the batch x, or of the group's batches together, and one over the number of values of a channel.

    Running statistics are moved, and `batches` is counted up.
    """
    parts = parts_of(backend)
    if _in_one(backend, group):
        made = parts.prepare(x, weight, running_mean, running_var, batches, momentum, eps)
        return made, x.shape[1] / x.numel()
    if batches is not None:
        batches += 1
    count, mean, m2 = parts.statistics(x)  # [C] each
    if group is not None:
        local = torch.stack([count, mean, m2]).double()
        gathered = [torch.empty_like(local) for _ in range(group.size())]
        dist.all_gather(gathered, local, group=group)
        counts, means, m2s = torch.stack(gathered, 1)  # [ranks, C] each
        total = counts.sum(0)
        centre = (counts * means).sum(0) / total
        m2s = (m2s + counts * (means - centre).square()).sum(0)  # Chan's merge
        count, mean, m2 = (t.to(mean.dtype) for t in (total, centre, m2s))
    var = m2 / count
    update_running(running_mean, running_var, mean, var, count, momentum)
    return constants(mean, var, weight, eps), 1 / count


def gradients(
    dy: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    made: Tensor,
    inverse: int,
    share: float | Tensor,
    slope: float,
    backend: str,
    group: dist.ProcessGroup | None,
    joined: Tensor | None = None,
    needed: bool = True,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients of the input (None where it is not needed), weight and bias, and before the ReLU that made `joined`.

    Args:
        dy, y: [B, C, ...] the output and its gradient; where `joined` is given, dy is that of relu(output + shortcut).
        bias: [C], what the output is at xhat = 0.
        made: `constants`; `inverse` is the row [C] that makes xhat of the output less bias.
        share: one over the number of values of a channel, 0 where the statistics are fixed.
    """
    parts = parts_of(backend)
    if _in_one(backend, group):
        return parts.backward(dy, y, weight, bias, made, inverse, share, slope, joined, needed)
    dz = dy if joined is None else torch.ops.aten.threshold_backward(dy, joined, 0)
    first, second = parts.backward_sums(dz, y, bias, slope)  # [C] each
    factor, inverse = made[2], made[inverse]
    second = second * inverse
    dweight, dbias = (second * sign_of(weight)).to(weight.dtype), first.to(weight.dtype)
    if not needed:
        return None, dweight, dbias, dz
    if group is not None:
        first, second = sums = torch.stack([first, second])
        dist.all_reduce(sums, group=group)
    coefficients = torch.stack([factor, factor * (first * share), factor * inverse * (second * share)])
    return parts.backward_input(dz, y, bias, coefficients, slope), dweight, dbias, dz


def parts_of(backend: str) -> ModuleType:
    """statistics, normalise, backward_sums and backward_input of a backend; as operators where a graph is captured."""
    if backend == "torch":
        return abn_torch
    if not torch.compiler.is_compiling():
        return _kernels()
    from csl.ops import abn_operators

    return abn_operators


@functools.cache
def _kernels():
    """Looked up once, and not at the top: importing Triton takes a second."""
    from csl.ops import abn_triton

    return abn_triton


def _in_one(backend, group):
    """Whether nothing steps in between a backend's parts, so that `abn_triton` has a whole direction in one function."""
    return backend == "triton" and group is None and not torch.compiler.is_compiling()
