"""InPlace-ABN: batch normalisation and activation that keep their output and nothing else.

Rota Bulo, Porzi, Kontschieder, "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs" (arXiv 1712.02616).
The layer's input is not saved: backward recovers the normalised input from the output, which the next convolution
keeps anyway, so a network of such layers stores about half the activations.

    xhat = (x - mean) / sqrt(var + eps)
    y    = act(xhat * (|w| + eps) + b)

The scale |w| + eps is never 0, so that the output can be inverted, and its gradient with respect to w is taken as
+1 at w = 0: the last layer of every residual block starts there, and with the 0 of `abs` it would never leave.

In low precision y alone is rounded: statistics, scale, bias, sums and the recovered xhat are float32, whatever w is. xhat is
then off by at most ulp(y) / 2 / (|w| + eps), which for w = 0 is small while b is 0, as at the start of training.

On a CPU the recovery takes passes of its own: with `keep` the input is saved after all. A kernel recovers it as it reads.

Which implementation runs is `csl.ops.set_abn_backend`'s choice. With `overwrite` the output takes the place of the input,
a convolution's output that nobody else wants; a compiled graph plans its memory itself, and gets the form without.
"""

import functools

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from csl.errors import InputError
from csl.ops.abn_backend import backend_for
from csl.ops.abn_parts import constants, gradients, parts_of, prepare, scale_of, sign_of

ACTIVATIONS = ("leaky_relu", "identity")


def inplace_abn_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "leaky_relu",
    slope: float = 0.01,
) -> Tensor:
    """`inplace_abn` written with PyTorch's own differentiable operations, which save the input: what it must equal."""
    _check(x, running_mean, running_var, training, activation, slope)
    scale = scale_of(weight, eps)  # [C]
    y = F.batch_norm(x, running_mean, running_var, scale, bias, training, momentum, eps)
    return F.leaky_relu(y, slope) if activation == "leaky_relu" else y


def inplace_abn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "leaky_relu",
    slope: float = 0.01,
    group: dist.ProcessGroup | None = None,
    overwrite: bool = False,
    batches: Tensor | None = None,
    keep: bool = False,
) -> Tensor:
    """Normalise x [B, C, ...] over all but its channels, scale, shift and activate; backward needs the output alone.

    Args:
        x: [B, C, ...], any floating dtype, contiguous or channels-last; left as it is without `overwrite`.
        weight, bias: [C]; the scale is |weight| + eps. Statistics and parameters stay in their own dtype (float32
            beside a half-precision x).
        running_mean, running_var: [C], updated in place when `training` with the batch mean and the unbiased batch
            variance, or None; used in place of the batch's when not training.
        training: whether the statistics are the batch's.
        momentum: weight of the new statistics, in (0, 1].
        eps: added to the variance and to |weight|.
        activation: "leaky_relu" or "identity".
        slope: of the leaky ReLU, over 0 so that it can be inverted.
        group: in training, the processes whose batches are normalised as one, or None for this one alone. The gradients of
            weight and bias are this process's share.
        overwrite: the output may take x's memory, which then is no longer x. A view, a leaf that needs a gradient and what
            is not dense are left as they are all the same, and so is every x in a graph that is being compiled.
        batches: [] int64, counted up in place when `training`, or None.
        keep: in training by PyTorch's operators, without a group, save x beside the output: faster, for more memory.

    Returns:
        [B, C, ...] in x's dtype and memory format.

    Raises:
        InputError: an unknown activation, a slope that is not positive, no running statistics outside training, or
            one value per channel in training.
    """
    _check(x, running_mean, running_var, training, activation, slope, group)
    slope = slope if activation == "leaky_relu" else 1.0
    group = group if training else None
    backend = backend_for(x.device.type)
    overwrite = overwrite and _replaceable(x, backend, group)
    if backend == "triton" or (backend == "torch" and group is not None):
        return _InParts.apply(
            x,
            weight,
            bias,
            running_mean,
            running_var,
            batches,
            training,
            momentum,
            eps,
            slope,
            backend,
            group,
            overwrite,
        )
    if training and batches is not None:
        batches += 1
    if keep and training and backend == "torch":
        y = F.batch_norm(x, running_mean, running_var, scale_of(weight, eps), bias, True, momentum, eps)
        return F.leaky_relu_(y, slope) if slope != 1.0 else y
    if backend == "inplace-abn":
        return _packaged(x, weight, bias, running_mean, running_var, training, momentum, eps, slope, group, overwrite)
    return _InPlaceABN.apply(x, weight, bias, running_mean, running_var, training, momentum, eps, slope, overwrite)


class _InParts(torch.autograd.Function):
    """By the parts of a backend."""

    @staticmethod
    def forward(
        ctx, x, weight, bias, running_mean, running_var, batches, training, momentum, eps, slope, backend, group, overwrite
    ):  # fmt: skip
        if training:
            made, share = prepare(x, weight, running_mean, running_var, batches, momentum, eps, backend, group)
        else:
            made, share = constants(running_mean, running_var, weight, eps), 0.0
        if overwrite:
            y = parts_of(backend).normalise(x, made, bias, slope, overwrite=True)
            ctx.mark_dirty(x)
        else:
            y = parts_of(backend).normalise(x, made, bias, slope)
        ctx.save_for_backward(y, weight, bias, made)
        ctx.settings = share, slope, backend, group
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dx, dweight, dbias, _ = gradients(dy, *ctx.saved_tensors, 3, *ctx.settings, needed=ctx.needs_input_grad[0])
        return dx, dweight, dbias, *[None] * 10


def _packaged(x, weight, bias, running_mean, running_var, training, momentum, eps, slope, group, overwrite):
    """The inplace-abn package, which overwrites its input and so gets a copy of what is not to be."""
    if group is not None:
        raise InputError("--abn inplace-abn: without synchronised statistics here, expected auto, triton or torch")
    from inplace_abn.functions import inplace_abn as packaged

    name = "identity" if slope == 1.0 else "leaky_relu"
    return packaged(
        x if overwrite else x.clone(), weight, bias, running_mean, running_var, training, momentum, eps,
        activation=name, activation_param=slope,
    )  # fmt: skip


class _InPlaceABN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, training, momentum, eps, slope, overwrite):
        scale = scale_of(weight, eps)  # [C]
        settings = scale, bias, running_mean, running_var, training, momentum, eps
        if overwrite:
            y, invstd = x, _batch_norm_in_place(x, *settings)
            ctx.mark_dirty(x)
        else:
            y, _, invstd = torch.native_batch_norm(x, *settings)
        if not training:
            invstd = torch.rsqrt(running_var + eps)
        if slope != 1.0:
            F.leaky_relu_(y, slope)
        ctx.save_for_backward(y, weight, bias, invstd)
        ctx.training, ctx.eps, ctx.slope = training, eps, slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        y, weight, bias, invstd = ctx.saved_tensors
        scale = scale_of(weight, ctx.eps)  # [C]
        z, dz = y, dy  # z: the output before its activation
        if ctx.slope != 1.0:
            # Negative is what is not over 0, so that a slope * z that underflowed to -0 is on its own side.
            z = F.leaky_relu(y, 1 / ctx.slope)
            dz = torch.ops.aten.leaky_relu_backward(dy, y, ctx.slope, True)
        # batch_norm's own backward computes xhat = (input - mean) * invstd, the sums over dz and dz * xhat, and
        #     dx = weight * invstd * (dz - mean(dz) - xhat * mean(dz * xhat)).
        # Fed with z, bias and 1 / scale it recovers xhat from the output; the gradient's own factor, scale / std,
        # then is the weight that makes weight * (1 / scale) right. (Outside training it derives 1 / scale from a variance.)
        dx, dscale, dbias = torch.ops.aten.native_batch_norm_backward(
            dz, z, scale * scale * invstd, bias, scale.square(), bias, scale.reciprocal(),
            ctx.training, 0.0, [ctx.needs_input_grad[0], True, True],
        )  # fmt: skip
        return dx, dscale * sign_of(weight), dbias, *[None] * 7


def _replaceable(x, backend, group):
    """Whether the output may take the place of x, as far as autograd and the backend go."""
    captured = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor or x.is_meta
    if captured or x._is_view() or (x.is_leaf and x.requires_grad):
        return False
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return dense and (backend != "torch" or (group is None and _batch_norm_overwrites(x.device.type)))


def _batch_norm_in_place(x, scale, bias, running_mean, running_var, training, momentum, eps):
    """Batch norm of x over x itself; returns 1 / std [C] where training."""
    mean, invstd = (torch.empty_like(scale) for _ in range(2))
    torch.ops.aten.native_batch_norm.out(
        x, scale, bias, running_mean, running_var, training, momentum, eps, out=x, save_mean=mean, save_invstd=invstd
    )
    return invstd


@functools.cache
def _batch_norm_overwrites(device_type):
    """Whether batch norm's output may be its input: it is so where statistics are taken first, and nowhere promised."""
    x = torch.linspace(-2, 3, 256, device=device_type).sin().view(2, 8, 4, 4)  # [B, C, H, W]
    one, zero = torch.ones(8, device=device_type), torch.zeros(8, device=device_type)
    for layout in (torch.contiguous_format, torch.channels_last):
        y, here = torch.native_batch_norm(x, one, zero, None, None, True, 0.1, 1e-5)[0], x.clone(memory_format=layout)
        try:
            _batch_norm_in_place(here, one, zero, None, None, True, 0.1, 1e-5)
        except (RuntimeError, TypeError, AttributeError):
            return False
        if not torch.allclose(here, y, atol=1e-5):
            return False
    return True


def _check(x, running_mean, running_var, training, activation, slope, group=None):
    if activation not in ACTIVATIONS:
        raise InputError(f"inplace_abn: activation {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    if activation == "leaky_relu" and not slope > 0:
        raise InputError(f"inplace_abn: slope {slope}, expected over 0, as the activation must be invertible")
    if not training and (running_mean is None or running_var is None):
        raise InputError("inplace_abn: no running statistics, which are needed outside training")
    if training and group is None and x.numel() == x.shape[1]:
        raise InputError(f"inplace_abn: one value per channel, shape {tuple(x.shape)}, has no variance to train on")
