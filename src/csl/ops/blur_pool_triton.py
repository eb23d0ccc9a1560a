"""Triton kernels of `csl.ops.blur`, and the custom operators that a compiled graph calls them by.

One pass each way, over contiguous or channels-last tensors, without a padded copy: forward reads the nine neighbours of each
output (most of them from the cache), backward gathers the at most four outputs that read an input. Sums are in float32
(float64 for float64), offsets are 64-bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from csl.errors import InputError
from csl.ops.triton_parts import ACC, accumulator, by_hand, dense, device_of, store, tile

TILE = 2048
"""Elements that a program holds at a time."""


@triton.jit
def _places(channels, height, width, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of one tile: the image, its rows [BLOCK_P], columns [BLOCK_P] and channels [BLOCK_C], and the mask of both.

    Divisions are of 32 bits, which a GPU does several times as fast; what is multiplied by strides is of 64.
    """
    pixels = height * width
    blocks = tl.cdiv(pixels, BLOCK_P)
    program = tl.program_id(0)
    pixel = (program % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    row, column = (pixel // width).to(tl.int64), (pixel % width).to(tl.int64)
    return (program // blocks).to(tl.int64), row, column, channel.to(tl.int64), mask


@triton.jit
def _blur_kernel(
    x_ptr, y_ptr, channels, height, width, out_height, out_width, x_b, x_c, x_h, x_w, y_b, y_c, y_h, y_w,
    ACC: tl.constexpr, BY_HAND: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y[r, c] = sum of x[2 r + i - 1, 2 c + j - 1] k[i] k[j], k = [1 2 1] / 4, the indices reflected at the borders."""
    image, row, column, channel, mask = _places(channels, out_height, out_width, BLOCK_P, BLOCK_C)
    base = (image * x_b + channel * x_c)[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for i in tl.static_range(3):
        r = tl.abs(2 * row + i - 1)
        r = tl.where(r < height, r, 2 * height - 2 - r)
        for j in tl.static_range(3):
            c = tl.abs(2 * column + j - 1)
            c = tl.where(c < width, c, 2 * width - 2 - c)
            x = tl.load(x_ptr + (r * x_h + c * x_w)[:, None] + base, mask, other=0)
            total += x.to(ACC) * ((1 + i % 2) * (1 + j % 2) * 0.0625)
    store(y_ptr + (row * y_h + column * y_w)[:, None] + (image * y_b + channel * y_c)[None, :], total, mask, BY_HAND)


@triton.jit
def _readers(place, size, out_size):
    """The two outputs along one side that read the input there, with their weights times 4; a weight may be 0.

    An even place is the middle of one window; an odd one lies between two, and at a border is read in place of the
    one beyond it as well.
    """
    odd = (place & 1) == 1
    first, second = place >> 1, (place >> 1) + 1
    weight1 = tl.where(odd, tl.where(place == 1, 2, 1), 2)
    weight2 = tl.where(odd & (second < out_size), tl.where((size % 2 == 1) & (place == size - 2), 2, 1), 0)
    return first, weight1, second, weight2


@triton.jit
def _blur_backward_kernel(
    dy_ptr, dx_ptr, channels, height, width, out_height, out_width, y_b, y_c, y_h, y_w, x_b, x_c, x_h, x_w,
    ACC: tl.constexpr, BY_HAND: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The gradient of every input: the transposed sum, gathered, so that each is written once and in one order."""
    image, row, column, channel, mask = _places(channels, height, width, BLOCK_P, BLOCK_C)
    base = (image * y_b + channel * y_c)[None, :]
    row1, height1, row2, height2 = _readers(row, height, out_height)
    column1, width1, column2, width2 = _readers(column, width, out_width)
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for i in tl.static_range(2):
        r = row1 if i == 0 else row2
        vertical = height1 if i == 0 else height2
        for j in tl.static_range(2):
            c = column1 if j == 0 else column2
            weight = (vertical * (width1 if j == 0 else width2))[:, None]
            dy = tl.load(dy_ptr + (r * y_h + c * y_w)[:, None] + base, mask & (weight > 0), other=0)
            total += dy.to(ACC) * (weight.to(ACC) * 0.0625)
    store(dx_ptr + (row * x_h + column * x_w)[:, None] + (image * x_b + channel * x_c)[None, :], total, mask, BY_HAND)


def blur(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)] in x's dtype and memory format; H and W are at least 2."""
    x = dense(x)
    height, width = x.shape[2:]
    if min(height, width) < 2:
        raise InputError(f"blur: images of {height} x {width}, expected 2 or more pixels on each side to reflect")
    y = _empty(x, (height + 1) // 2, (width + 1) // 2)
    _launch(_blur_kernel, x, y, height, width, *y.shape[2:])
    return y


def blur_backward(dy: Tensor, height: int, width: int) -> Tensor:
    """The gradient of an input [B, C, height, width] from that of the output, in the latter's dtype and memory format."""
    dy = dense(dy)
    if dy.shape[2:] != ((height + 1) // 2, (width + 1) // 2):
        raise InputError(f"blur: a gradient of {tuple(dy.shape[2:])}, expected half of {height} x {width}")
    dx = _empty(dy, height, width)
    _launch(_blur_backward_kernel, dy, dx, height, width, *dy.shape[2:])
    return dx


def _launch(kernel, source, out, *sides):
    batch, channels, height, width = out.shape
    block_p, block_c = tile(channels, height * width, not out.is_contiguous(), TILE)
    with device_of(out):
        kernel[(batch * triton.cdiv(height * width, block_p), triton.cdiv(channels, block_c))](
            source, out, channels, *sides, *source.stride(), *out.stride(),
            ACC[accumulator(out)], by_hand(out), block_p, block_c,
        )  # fmt: skip


def _empty(like, height, width):
    """[B, C, height, width] in the layout of a dense tensor."""
    layout = torch.contiguous_format if like.is_contiguous() else torch.channels_last
    return torch.empty((*like.shape[:2], height, width), dtype=like.dtype, device=like.device, memory_format=layout)


# What a compiled graph calls: opaque to it, with shapes and layouts known. Called directly, the functions cost less.
blur_op = torch.library.custom_op("csl::blur", blur, mutates_args=())
blur_backward_op = torch.library.custom_op("csl::blur_backward", blur_backward, mutates_args=())


@blur_op.register_fake
def _(x):
    return _empty(dense(x), (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)


@blur_backward_op.register_fake
def _(dy, height, width):
    return _empty(dense(dy), height, width)
