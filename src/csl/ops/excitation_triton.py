"""Triton kernels of `csl.ops.squeeze_excite`: the end of a block, and the sums of backward, each in one pass.

What PyTorch does in one pass as well (the mean, the scaling without a shortcut, the gradient of x) is left to it.

Contiguous or channels-last tensors, arithmetic in float32 (float64 for float64), sums in a fixed order, 64-bit offsets.
A compiled graph does without: its compiler fuses the plain operations in the same way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from csl.ops.triton_parts import ACC, accumulator, by_hand, dense, device_of, laid_out, splits_for, store, tile

TILE = 4096
"""Elements that a program holds at a time."""


@triton.jit
def _join_kernel(
    x_ptr, attention_ptr, shortcut_ptr, y_ptr, channels, pixels, stride_b, stride_c, stride_p,
    ACC: tl.constexpr, BY_HAND: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y = relu(x attention + shortcut)."""
    blocks = tl.cdiv(pixels, BLOCK_P)
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    pixel = (program % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    mask = (pixel < pixels)[:, None] & known[None, :]
    place = (pixel.to(tl.int64) * stride_p)[:, None] + (image * stride_b + channel.to(tl.int64) * stride_c)[None, :]
    attention = tl.load(attention_ptr + image * channels + channel, known, other=0).to(ACC)
    x = tl.load(x_ptr + place, mask, other=0).to(ACC)
    z = x * attention[None, :] + tl.load(shortcut_ptr + place, mask, other=0).to(ACC)
    store(y_ptr + place, tl.where(z < 0, 0, z), mask, BY_HAND)  # not a number stays what it is


@triton.jit
def _backward_kernel(
    dy_ptr, y_ptr, x_ptr, dz_ptr, sums_ptr, images, channels, pixels, splits, stride_b, stride_c, stride_p,
    ACC: tl.constexpr, JOINED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums [S, B, C] of dz x over every `splits`-th tile of an image. JOINED: dz, which is dy but 0 where y is, is stored."""
    image = (tl.program_id(0) // splits).to(tl.int64)
    split = tl.program_id(0) % splits
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    base = (image * stride_b + channel.to(tl.int64) * stride_c)[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for block in range(split, tl.cdiv(pixels, BLOCK_P), splits):
        pixel = block * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (pixel < pixels)[:, None] & known[None, :]
        place = (pixel.to(tl.int64) * stride_p)[:, None] + base
        dz = tl.load(dy_ptr + place, mask, other=0)
        if JOINED:
            dz = tl.where(tl.load(y_ptr + place, mask, other=0) <= 0, 0, dz)  # where y is no number, as PyTorch has it
            tl.store(dz_ptr + place, dz, mask)
        total += dz.to(ACC) * tl.load(x_ptr + place, mask, other=0).to(ACC)
    tl.store(sums_ptr + (split * images + image) * channels + channel, tl.sum(total, 0), known)


def join(x: Tensor, attention: Tensor, shortcut: Tensor) -> Tensor:
    """relu(x attention + shortcut): [B, C, H, W], [B, C] and [B, C, H, W] -> [B, C, H, W] in x's dtype and layout."""
    x = dense(x)
    y, shortcut = torch.empty_like(x), laid_out(shortcut, x)
    batch, channels, pixels, strides, block_p, block_c = _shape(x)
    with device_of(x):
        _join_kernel[(batch * triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))](
            x, attention.contiguous(), shortcut, y, channels, pixels, *strides,
            ACC[accumulator(x)], by_hand(y), block_p, block_c,
        )  # fmt: skip
    return y


def backward_sums(dy: Tensor, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradient dz [B, C, H, W] before the ReLU, dy itself without y, and the sums of dz x: [B, C] in x's dtype."""
    x = dense(x)
    dy = laid_out(dy.to(x.dtype), x)
    y = None if y is None else laid_out(y, x)
    dz = dy if y is None else torch.empty_like(dy)
    batch, channels, pixels, strides, block_p, block_c = _shape(x)
    columns = batch * triton.cdiv(channels, block_c)
    splits = splits_for(x.device, triton.cdiv(pixels, block_p), columns)
    sums = x.new_empty((splits, batch, channels), dtype=accumulator(x))
    with device_of(x):
        _backward_kernel[(batch * splits, triton.cdiv(channels, block_c))](
            dy, dy if y is None else y, x, dz, sums, batch, channels, pixels, splits, *strides,
            ACC[sums.dtype], y is not None, block_p, block_c,
        )  # fmt: skip
    return dz, sums.sum(0, dtype=x.dtype)


def _shape(x):
    """Batch, channels, pixels, the strides of image, channel and pixel, and the tile's sides."""
    batch, channels, height, width = x.shape
    pixels, channels_last = height * width, not x.is_contiguous()
    strides = (channels * pixels, 1, channels) if channels_last else (channels * pixels, pixels, 1)
    return batch, channels, pixels, strides, *tile(channels, pixels, channels_last, TILE)
