"""Squeeze-and-excitation (Hu et al., arXiv 1709.01507) with the residual addition and ReLU that TResNet puts after it.

s = sigmoid(W2 relu(W1 mean(x) + b1) + b2)           [B, C]
y = x s,   or   y = relu(x s + shortcut)
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from csl.ops.abn_backend import runs_on_triton
from csl.ops.casts import cast_all


def squeeze_excite_ref(
    x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, shortcut: Tensor | None = None
) -> Tensor:
    """`squeeze_excite` as the formula reads, differentiated by autograd: what it must equal."""
    attention = _attention(x.mean((2, 3)), weight1, bias1, weight2, bias2)[1][:, :, None, None]
    return x * attention if shortcut is None else F.relu(x * attention + shortcut)


def squeeze_excite(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    shortcut: Tensor | None = None,
    with_attention: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scale every channel of x by its attention, and join the residual branch where one is given.

    Backward writes the gradient of x in one pass: autograd spreads the gradient of the mean over a tensor of its own, in
    another memory layout, and adds it.

    Args:
        x: [B, C, H, W], contiguous or channels-last.
        weight1, bias1: [I, C] or [I, C, 1, 1] and [I], I the inner width; used in x's dtype.
        weight2, bias2: [C, I] or [C, I, 1, 1] and [C].
        shortcut: [B, C, H, W], or None for the scaled x alone.
        with_attention: also return s, for who would rather scale x once more than keep what it is scaled to.

    Returns:
        [B, C, H, W]; with `with_attention` that and s [B, C, 1, 1], through which no gradient flows.
    """
    y, attention = _SqueezeExcite.apply(x, weight1, bias1, weight2, bias2, shortcut)
    return (y, attention[:, :, None, None]) if with_attention else y


class _SqueezeExcite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight1, bias1, weight2, bias2, shortcut):
        mean = x.mean((2, 3))  # [B, C]
        matrix1, matrix2 = _matrix(weight1, x), _matrix(weight2, x)
        biases = (bias1, bias2) if bias1.dtype == x.dtype else cast_all((bias1, bias2), x.dtype)
        hidden, attention = _attention(mean, matrix1, biases[0], matrix2, biases[1])  # [B, I], [B, C]
        scale = attention[:, :, None, None]
        kernels = _kernels(x)
        if shortcut is None:
            y = x * scale
        elif kernels is not None:
            y = kernels.join(x, attention, shortcut.to(x.dtype))
        else:
            y = torch.addcmul(shortcut.to(x.dtype), x, scale).relu_()
        ctx.save_for_backward(x, mean, hidden, attention, matrix1, matrix2, None if shortcut is None else y)
        ctx.shapes = weight1.shape, weight2.shape
        ctx.dtypes = weight1.dtype, weight2.dtype, bias1.dtype, bias2.dtype
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(attention)
        return y, attention

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, _):
        x, mean, hidden, attention, matrix1, matrix2, y = ctx.saved_tensors
        if dy is None:
            return (None,) * 6
        shape1, shape2 = ctx.shapes
        of_weight1, of_weight2, of_bias1, of_bias2 = ctx.dtypes
        kernels = _kernels(x)
        if kernels is not None:
            dy, d_attention = kernels.backward_sums(dy, x, y)  # [B, C]
        else:
            if y is not None:
                dy = torch.ops.aten.threshold_backward(dy, y, 0)
            d_attention = (dy * x).sum((2, 3))  # [B, C]
        d_second = torch.ops.aten.sigmoid_backward(d_attention, attention)
        d_first = torch.ops.aten.threshold_backward(d_second @ matrix2, hidden, 0)  # [B, I]
        pixels = x.shape[2] * x.shape[3]
        d_mean = torch.addmm(attention, d_first, matrix1, beta=0, alpha=1 / pixels)  # [B, C]; beta: nothing is added
        dx = torch.addcmul(d_mean[:, :, None, None], dy, attention[:, :, None, None])
        d_weight1 = (d_first.t() @ mean).view(shape1).to(of_weight1)
        d_weight2 = (d_second.t() @ hidden).view(shape2).to(of_weight2)
        d_bias1, d_bias2 = d_first.sum(0, dtype=of_bias1), d_second.sum(0, dtype=of_bias2)
        return dx, d_weight1, d_bias1, d_weight2, d_bias2, None if y is None else dy


def _kernels(x):
    """The Triton kernels, where they are to be had; a graph that is captured fuses the plain operations itself."""
    if torch.compiler.is_compiling() or not runs_on_triton(x):
        return None
    from csl.ops import excitation_triton

    return excitation_triton


def _attention(mean, weight1, bias1, weight2, bias2):
    """[B, C] -> relu(W1 mean + b1) [B, I] and the attention [B, C] in (0, 1), in mean's dtype, whatever autocast made."""
    hidden = F.relu(F.linear(mean, _matrix(weight1, mean), bias1.to(mean.dtype))).to(mean.dtype)
    attention = torch.sigmoid(F.linear(hidden, _matrix(weight2, mean), bias2.to(mean.dtype)))
    return hidden, attention.to(mean.dtype)


def _matrix(weight, like):
    """A 1x1 convolution's weight [out, in, 1, 1] as [out, in], in `like`'s dtype."""
    return weight.flatten(1).to(like.dtype)
