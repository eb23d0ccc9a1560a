"""1x1 convolution, InPlace-ABN without activation and the end of a residual block, trained without storing what is between.

    z = W x                                     1x1 convolution, [B, I, H, W] -> [B, C, H, W]
    y = (z - mean) / sqrt(var + eps) * (|w| + eps) + b
    y = relu(y + shortcut)                      where there is a shortcut

z and its normalised form are the widest tensors of a bottleneck, and backward needs neither to be kept. Elsewhere than on a CPU
it convolves once more, which costs little beside the traffic saved. On a CPU it costs more than it saves: in 16 bits, and with
`keep`, z is kept; in float32 and float64, where there are many more pixels than channels, a linear map's statistics come
cheaper from those of its input: with the centred pixels X [N, I] and their covariance S = X'X / N,

    mean = W mean(x)        var = diag(W S W')        z - mean = X W'

and with dz the gradient of y, G = dz'X [C, I], f = (|w| + eps) / sqrt(var + eps), k = f mean(dz (z - mean)) / (var + eps),

    sum(dz (z - mean)) = diag(W G')      dW = f G - k N W S      dx = (dz f) W - X (W' k W) - mean(dz f) W

Normalisation, addition and ReLU then are a matrix product's scaled weights and its start, not passes over memory.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from csl.errors import InputError
from csl.ops.abn import inplace_abn, inplace_abn_ref
from csl.ops.abn_backend import backend_for
from csl.ops.abn_parts import gradients, parts_of, prepare, scale_of, sign_of, update_running


def pointwise_abn_ref(
    x: Tensor,
    conv_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    shortcut: Tensor | None = None,
) -> Tensor:
    """`pointwise_abn` as its three steps, differentiated by autograd: what it must equal."""
    z = F.conv2d(x, conv_weight.to(x.dtype))
    y = inplace_abn_ref(z, weight, bias, running_mean, running_var, True, momentum, eps, "identity")
    return y if shortcut is None else F.relu(y + shortcut)


def pointwise_abn(
    x: Tensor,
    conv_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    shortcut: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    factors: tuple[Tensor, Tensor] | None = None,
    batches: Tensor | None = None,
    keep: bool = False,
) -> Tensor:
    """Convolve x [B, I, H, W] by 1x1, normalise with the batch's statistics and, where given, add a shortcut and apply ReLU.

    Backward needs x, and of the output its zeros alone: both are the neighbouring layers' to keep.

    Args:
        x: [B, I, H, W], any floating dtype; under autocast it is cast as a convolution casts its input.
        conv_weight: [C, I, 1, 1], used in x's dtype.
        weight, bias: [C] of the normalisation, whose scale is |weight| + eps.
        running_mean, running_var: [C], updated as `inplace_abn` does, or None.
        momentum, eps: as of `inplace_abn`.
        shortcut: [B, C, H, W], or None for neither addition nor ReLU.
        group: the processes whose batches are normalised as one, or None for this one alone.
        factors: two tensors whose product is x, which others keep in any case: then x is made again from them, and not kept.
        batches: [] int64, counted up in place, or None.
        keep: on a CPU, without a group, save what is between rather than make it again: faster, for more memory.

    Returns:
        [B, C, H, W] in x's dtype.

    Raises:
        InputError: one value per channel, or a convolution that is not 1x1.
    """
    if conv_weight.dim() != 4 or conv_weight.shape[2:] != (1, 1):
        raise InputError(f"pointwise_abn: a convolution's weight {tuple(conv_weight.shape)}, expected [C, I, 1, 1]")
    if group is None and x.numel() == x.shape[1]:
        raise InputError(f"pointwise_abn: one value per channel, shape {tuple(x.shape)}, has no variance to train on")
    device = x.device.type
    if not x.is_meta and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    kept = (x.detach(), None) if factors is None or factors[0].dtype != x.dtype else [t.detach() for t in factors]
    layer = x, conv_weight, weight, bias, running_mean, running_var, momentum, eps, shortcut, *kept
    backend = backend_for(device)
    way = _way(x, conv_weight, weight, backend, group, keep)
    if way == "covariance":
        if batches is not None:
            batches += 1
        return _FromCovariance.apply(*layer)
    if way == "again":
        return _Convolved.apply(*layer, batches, backend, group)
    y = inplace_abn(
        F.conv2d(x, conv_weight.to(x.dtype)), weight, bias, running_mean, running_var, True, momentum, eps, "identity",
        group=group, overwrite=True, batches=batches, keep=way == "kept",
    )  # fmt: skip
    return y if shortcut is None else F.relu_(y + shortcut.to(y.dtype))


def _way(x, conv_weight, weight, backend, group, keep):
    """How: by the "covariance", convolving "again" in backward, with z "kept", or in the three "steps", which keep the output
    of the normalisation."""
    if backend == "inplace-abn":
        return "steps"
    on_cpu = x.device.type == "cpu" or (keep and x.is_meta)  # a CPU's step may be followed without values
    if not on_cpu or backend != "torch" or group is not None:
        return "again"
    if keep or x.dtype not in (torch.float32, torch.float64) or not conv_weight.dtype == weight.dtype == x.dtype:
        # "again" would hold float32 copies of z, which take more than z itself. "steps" would recover z from an output of
        # 16 bits, which says little where the scale is small, and at the end of a block it starts at 0.
        return "kept"
    # Multiplications beside those of the three steps. Another convolution would cost a CPU more than its memory is worth.
    outputs, inputs = conv_weight.shape[:2]
    pixels = x.numel() // inputs
    extra = 2 * pixels * inputs**2 + 3 * outputs * inputs**2
    return "covariance" if extra <= pixels * inputs * outputs else "steps"


class _FromCovariance(torch.autograd.Function):
    """Statistics and gradients from the covariance of the input's channels, as the formulas above say."""

    @staticmethod
    def forward(ctx, x, conv_weight, weight, bias, running_mean, running_var, momentum, eps, shortcut, first, second):
        pixels = _rows(x)  # [N, I]
        matrix = conv_weight.flatten(1)  # [C, I]
        count = pixels.shape[0]
        center = pixels.mean(0)  # [I]
        pixels = pixels - center  # before they are squared: a large mean costs no digits
        covariance = (pixels.t() @ pixels).div_(count)  # [I, I]
        var = ((matrix @ covariance) * matrix).sum(1).clamp_(min=0)  # [C]; rounding may leave it under 0
        update_running(running_mean, running_var, matrix @ center, var, count, momentum)
        invstd = torch.rsqrt(var + eps)
        factor = scale_of(weight, eps) * invstd  # [C]
        scaled = (matrix * factor[:, None]).t()  # [I, C]
        kept = None
        if shortcut is None:
            y = _image(torch.addmm(bias, pixels, scaled), x)  # [B, C, H, W]
        else:
            y = kept = _image((_rows(shortcut) + bias).addmm_(pixels, scaled).relu_(), x)
        ctx.save_for_backward(first, second, conv_weight, weight, center, covariance, invstd, factor, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        first, second, conv_weight, weight, center, covariance, invstd, factor, y = ctx.saved_tensors
        dz = dy if y is None else torch.ops.aten.threshold_backward(dy, y, 0)
        gradient = _rows(dz)  # [N, C]
        pixels = _rows(first) - center if second is None else _rows(first * second).sub_(center)  # [N, I]
        matrix = conv_weight.flatten(1)  # [C, I]
        count = pixels.shape[0]
        dbias = gradient.t() @ gradient.new_ones(count)  # [C]; a third of the time of sum(0)
        product = gradient.t() @ pixels  # [C, I]
        dscale = (product * matrix).sum(1) * invstd  # [C], the sum of dz xhat
        share = factor * invstd * dscale / count  # [C], k above
        dmatrix = factor[:, None] * product - (share * count)[:, None] * (matrix @ covariance)
        scaled = matrix * factor[:, None]  # [C, I]
        # Small matrices first, so that x is passed over once: the mean's share is a vector.
        dx = torch.addmm((dbias / -count) @ scaled, pixels, matrix.t() @ (matrix * share[:, None]), alpha=-1)
        dx.addmm_(gradient, scaled)
        dshortcut = None if y is None else dz
        dmatrix, dweight = dmatrix.view_as(conv_weight), dscale * sign_of(weight)
        return _image(dx, first), dmatrix, dweight, dbias, *[None] * 4, dshortcut, None, None


class _Convolved(torch.autograd.Function):
    """The convolution's output is made again in backward; statistics and gradients are those of `inplace_abn`."""

    @staticmethod
    def forward(
        ctx, x, conv_weight, weight, bias, running_mean, running_var, momentum, eps, shortcut, first, second, batches,
        backend, group,
    ):  # fmt: skip
        narrow = conv_weight.to(x.dtype)
        z = F.conv2d(x, narrow)  # [B, C, H, W]
        made, share = prepare(z, weight, running_mean, running_var, batches, momentum, eps, backend, group)
        # Plain operations and a compiled graph have no use for z's memory.
        options = {} if backend == "torch" or torch.compiler.is_compiling() else {"overwrite": True}
        y = parts_of(backend).normalise(z, made, bias, 1.0, shortcut, **options)
        ctx.save_for_backward(first, second, narrow, weight, made, y if shortcut is not None else None)
        ctx.settings, ctx.dtype = (share, 1.0, backend, group), conv_weight.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        first, second, narrow, weight, made, y = ctx.saved_tensors
        x = first if second is None else first * second
        z = F.conv2d(x, narrow)
        # xhat is (z - mean) / std: what is recovered from an output, with the mean for its bias and 1 / std for 1 / scale.
        dconv, dweight, dbias, dz = gradients(dy, z, weight, made[0], made, 1, *ctx.settings, joined=y)
        dx, dmatrix, _ = torch.ops.aten.convolution_backward(
            dconv, x, narrow, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        dshortcut = None if y is None else dz
        return dx, dmatrix.to(ctx.dtype), dweight, dbias, *[None] * 4, dshortcut, *[None] * 5


def _rows(x):
    """[B, C, H, W] -> its pixels [B H W, C], free where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _image(rows, like):
    """[B H W, C] -> [B, C, H, W], channels-last in memory; B, H, W of `like`."""
    return rows.view(like.shape[0], *like.shape[2:], rows.shape[1]).permute(0, 3, 1, 2)
