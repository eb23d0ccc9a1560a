"""Anti-aliased downsampling: the [1 2 1] blur with stride 2 of TResNet's blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from csl.ops.abn_backend import runs_on_triton


def blur_ref(x: Tensor) -> Tensor:
    """[1 2 1] x [1 2 1] / 16 on each channel, reflect padding 1, stride 2: [B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)].

    H and W are at least 2, as reflect padding wants. Source: Zhang, "Making Convolutional Networks Shift-Invariant
    Again" (arXiv 1904.11486), as TResNet uses it.
    """
    channels = x.shape[1]
    tap = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = torch.outer(tap, tap).expand(channels, 1, 3, 3)
    return _padded_blur(x, kernel, (1, 1, 1, 1))


def blur(x: Tensor, kernel: Tensor | None = None) -> Tensor:
    """`blur_ref` with the depthwise kernel [C, 1, 3, 3] prepared by the caller, who keeps it as a buffer.

    On a CUDA device the blur has a Triton kernel, and then needs no other: `csl.ops.set_abn_backend` chooses for it, too.
    """
    if runs_on_triton(x):
        return _TritonBlur.apply(x)
    if kernel is None:
        return blur_ref(x)
    return _Blur.apply(x, kernel.to(x.dtype))


class _TritonBlur(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.size = x.shape[2:]
        return _kernels()[0](x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return _kernels()[1](dy, *ctx.size)


def _kernels():
    """Forward and backward; as operators where a graph is captured."""
    from csl.ops import blur_pool_triton

    if torch.compiler.is_compiling():
        return blur_pool_triton.blur_op, blur_pool_triton.blur_backward_op
    return blur_pool_triton.blur, blur_pool_triton.blur_backward


class _Blur(torch.autograd.Function):
    """The blur with zero padding, its borders then done over: no padded copy of x is made, and none is saved."""

    @staticmethod
    def forward(ctx, x, kernel):
        ctx.save_for_backward(kernel)
        ctx.shape = x.shape
        height, width = x.shape[-2:]
        if min(height, width) < 4:
            return _padded_blur(x, kernel, (1, 1, 1, 1))
        y = F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
        y[:, :, :1] = _padded_blur(x[:, :, :2], kernel, (1, 1, 1, 0))
        y[:, :, :, :1] = _padded_blur(x[:, :, :, :2], kernel, (1, 0, 1, 1))
        if height % 2:
            y[:, :, -1:] = _padded_blur(x[:, :, -2:], kernel, (1, 1, 0, 1))
        if width % 2:
            y[:, :, :, -1:] = _padded_blur(x[:, :, :, -2:], kernel, (0, 1, 1, 1))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        (kernel,) = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        layout = torch.channels_last if dy.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        # Both operators want to see an input, of which they read no value.
        padded = dy.new_empty((batch, channels, height + 2, width + 2)).contiguous(memory_format=layout)
        padded = torch.ops.aten.convolution_backward(
            dy, padded, kernel, None, [2, 2], [0, 0], [1, 1], False, [0, 0], channels, [True, False, False]
        )[0]
        like = torch.empty(ctx.shape, dtype=dy.dtype, device=dy.device, memory_format=layout)
        return torch.ops.aten.reflection_pad2d_backward(padded, like, [1, 1, 1, 1]), None


def _padded_blur(x, kernel, padding):
    """Reflect padding (left, right, top, bottom), and the kernel with stride 2."""
    return F.conv2d(F.pad(x, padding, mode="reflect"), kernel, stride=2, groups=x.shape[1])
