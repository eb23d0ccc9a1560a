"""Triton kernels of `csl.ops.inplace_abn`, and the custom operators that a compiled graph calls them by.

A tensor [B, C, ...] is read as `images` blocks of [pixels, C] with strides (stride_p, stride_c): channels-last is one block of
B H W rows of C neighbouring channels, contiguous is B blocks of C planes. Neither is copied. Arithmetic is in float32
(float64 for float64), offsets are 64-bit, sums are added in a fixed order: two runs give the same bits.

The mean and the squared deviations are Welford's, one per lane, merged by Chan's formula, so that a large mean costs no
digits. The output's sign bit says on which side of the leaky ReLU it was, -0 included: see `_normalise_kernel`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from csl.ops.triton_parts import ACC, accumulator, by_hand, dense, device_of, laid_out, splits_for, store, tile

TILE = 4096
"""Elements that a program holds at a time."""


@triton.jit
def _tile(block, channel, channels, pixels, stride_p, stride_c, blocks, BLOCK_P: tl.constexpr):
    """Offsets and mask [BLOCK_P, BLOCK_C] of one tile, and the mask of its rows [BLOCK_P, 1]."""
    image = block // blocks
    pixel = (block % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    row = image * channels * pixels + pixel.to(tl.int64) * stride_p
    rows = (pixel < pixels)[:, None]
    return row[:, None] + (channel * stride_c)[None, :], rows & (channel < channels)[None, :], rows


@triton.jit
def _statistics_kernel(
    x_ptr, mean_ptr, m2_ptr, count_ptr, images, channels, pixels, stride_p, stride_c, splits,
    ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Count [S], mean [S, C] and sum of squared deviations [S, C] of every `splits`-th tile."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(1).to(tl.int64)
    blocks = tl.cdiv(pixels, BLOCK_P)
    count = tl.zeros([BLOCK_P, 1], ACC)
    mean = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    m2 = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for step in range(tl.cdiv(images * blocks - split, splits)):
        offset, mask, rows = _tile(
            split + step * splits, channel, channels, pixels, stride_p, stride_c, blocks, BLOCK_P
        )
        x = tl.load(x_ptr + offset, mask, other=0).to(ACC)
        count += rows.to(ACC)
        delta = tl.where(mask, x - mean, 0)
        mean += delta / tl.maximum(count, 1)
        m2 += delta * tl.where(mask, x - mean, 0)
    total = tl.sum(count)
    # Differences from the first lane, which always has a row, so that a large mean keeps its digits here too.
    base = tl.sum(tl.where(tl.arange(0, BLOCK_P)[:, None] == 0, mean, 0), 0)  # [BLOCK_C]
    merged = base + tl.sum((mean - base[None, :]) * count, 0) / total
    delta = mean - merged[None, :]
    m2 = tl.sum(m2 + delta * delta * count, 0)
    place = split * channels + channel
    tl.store(mean_ptr + place, merged, channel < channels)
    tl.store(m2_ptr + place, m2, channel < channels)
    tl.store(count_ptr + split, total)


@triton.jit
def _merge_kernel(
    mean_ptr, m2_ptr, count_ptr, out_ptr, channels, splits, ACC: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Chan's merge of the S parts: mean [C] and biased variance [C], one after the other."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = channel < channels
    mean = tl.load(mean_ptr + channel, mask, other=0)
    m2 = tl.load(m2_ptr + channel, mask, other=0)
    count = tl.load(count_ptr)
    for split in range(1, splits):
        more = tl.load(count_ptr + split)
        delta = tl.load(mean_ptr + split * channels + channel, mask, other=0) - mean
        total = count + more
        mean += delta * (more / total)
        m2 += tl.load(m2_ptr + split * channels + channel, mask, other=0) + delta * delta * (count * more / total)
        count = total
    tl.store(out_ptr + channel, mean, mask)
    tl.store(out_ptr + channels + channel, m2 / count, mask)


@triton.jit
def _normalise_kernel(
    x_ptr, shortcut_ptr, y_ptr, mean_ptr, factor_ptr, bias_ptr, channels, pixels, stride_p, stride_c, slope,
    ACC: tl.constexpr, LEAKY: tl.constexpr, JOIN: tl.constexpr, BY_HAND: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y = act((x - mean) factor + bias). What is not over 0 before a leaky ReLU gets the sign bit, 0 and underflow too.

    To JOIN is to add the shortcut and apply ReLU. y may be x.
    """
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    offset, mask, _ = _tile(
        tl.program_id(0).to(tl.int64), channel, channels, pixels, stride_p, stride_c, tl.cdiv(pixels, BLOCK_P), BLOCK_P
    )
    x = tl.load(x_ptr + offset, mask, other=0).to(ACC)
    mean = tl.load(mean_ptr + channel, known, other=0).to(ACC)
    factor = tl.load(factor_ptr + channel, known, other=0).to(ACC)
    bias = tl.load(bias_ptr + channel, known, other=0).to(ACC)
    z = (x - mean[None, :]) * factor[None, :] + bias[None, :]
    if LEAKY:
        z = tl.where(z > 0, z, tl.where(z == z, -tl.abs(z * slope), z))
    if JOIN:
        z += tl.load(shortcut_ptr + offset, mask, other=0).to(ACC)
        z = tl.where(z < 0, 0, z)  # not a number stays what it is
    store(y_ptr + offset, z, mask, BY_HAND)


@triton.jit
def _before_activation(dy, y, bias, inverse, slope, ACC: tl.constexpr, LEAKY: tl.constexpr, BITS: tl.constexpr):
    """Gradient before the activation and normalised input, from the output and its gradient."""
    dz, z = dy.to(ACC), y.to(ACC)
    if LEAKY:
        negative = y.to(BITS, bitcast=True) < 0
        dz = tl.where(negative, dz * slope, dz)
        z = tl.where(negative, z / slope, z)
    return dz, (z - bias[None, :]) * inverse[None, :]


@triton.jit
def _backward_sums_kernel(
    dy_ptr, y_ptr, bias_ptr, inverse_ptr, out_ptr, images, channels, pixels, stride_p, stride_c, splits, slope,
    ACC: tl.constexpr, LEAKY: tl.constexpr, BITS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of dz and of dz xhat over every `splits`-th tile: [S, 2, C]."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    split = tl.program_id(1).to(tl.int64)
    blocks = tl.cdiv(pixels, BLOCK_P)
    bias = tl.load(bias_ptr + channel, known, other=0).to(ACC)
    inverse = tl.load(inverse_ptr + channel, known, other=0).to(ACC)
    first = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    second = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for step in range(tl.cdiv(images * blocks - split, splits)):
        offset, mask, _ = _tile(split + step * splits, channel, channels, pixels, stride_p, stride_c, blocks, BLOCK_P)
        dy = tl.load(dy_ptr + offset, mask, other=0)
        y = tl.load(y_ptr + offset, mask, other=0)
        dz, xhat = _before_activation(dy, y, bias, inverse, slope, ACC, LEAKY, BITS)
        first += dz
        second += dz * xhat
    place = split * 2 * channels + channel
    tl.store(out_ptr + place, tl.sum(first, 0), known)
    tl.store(out_ptr + place + channels, tl.sum(second, 0), known)


@triton.jit
def _backward_input_kernel(
    dy_ptr, y_ptr, dx_ptr, bias_ptr, inverse_ptr, factor_ptr, means_ptr, channels, pixels, stride_p, stride_c, slope,
    ACC: tl.constexpr, LEAKY: tl.constexpr, BITS: tl.constexpr, BY_HAND: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dx = factor (dz - mean(dz) - xhat mean(dz xhat))."""
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    offset, mask, _ = _tile(
        tl.program_id(0).to(tl.int64), channel, channels, pixels, stride_p, stride_c, tl.cdiv(pixels, BLOCK_P), BLOCK_P
    )
    bias = tl.load(bias_ptr + channel, known, other=0).to(ACC)
    inverse = tl.load(inverse_ptr + channel, known, other=0).to(ACC)
    factor = tl.load(factor_ptr + channel, known, other=0).to(ACC)
    mean1 = tl.load(means_ptr + channel, known, other=0).to(ACC)
    mean2 = tl.load(means_ptr + channels + channel, known, other=0).to(ACC)
    dy = tl.load(dy_ptr + offset, mask, other=0)
    y = tl.load(y_ptr + offset, mask, other=0)
    dz, xhat = _before_activation(dy, y, bias, inverse, slope, ACC, LEAKY, BITS)
    dx = factor[None, :] * (dz - mean1[None, :] - xhat * mean2[None, :])
    store(dx_ptr + offset, dx, mask, BY_HAND)


def statistics(x: Tensor) -> Tensor:
    """Mean and biased variance of every channel of x [B, C, ...]: [2, C] in float32 (float64 for float64)."""
    x = dense(x)
    images, channels, pixels, stride_p, stride_c, block_p, block_c = _shape(x)
    splits = splits_for(x.device, images * triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))
    dtype = accumulator(x)
    mean, m2 = x.new_empty((2, splits, channels), dtype=dtype)
    count, out = x.new_empty(splits, dtype=dtype), x.new_empty((2, channels), dtype=dtype)
    acc = ACC[dtype]
    with device_of(x):
        _statistics_kernel[(triton.cdiv(channels, block_c), splits)](
            x, mean, m2, count, images, channels, pixels, stride_p, stride_c, splits, acc, block_p, block_c
        )
        _merge_kernel[(triton.cdiv(channels, 64),)](mean, m2, count, out, channels, splits, acc, 64)
    return out


def normalise(
    x: Tensor,
    mean: Tensor,
    factor: Tensor,
    bias: Tensor,
    slope: float,
    shortcut: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """act((x - mean) factor + bias) of x [B, C, ...] and [C] each, in x's dtype and memory format.

    With a shortcut of x's shape, relu(that + shortcut). `overwrite` puts it into the memory of x, which is dense.
    """
    x = dense(x)
    y = x if overwrite else torch.empty_like(x)
    other = x if shortcut is None else laid_out(shortcut, x)
    images, channels, pixels, stride_p, stride_c, block_p, block_c = _shape(x)
    with device_of(x):
        _normalise_kernel[(images * triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))](
            x, other, y, mean, factor, bias, channels, pixels, stride_p, stride_c, slope,
            ACC[accumulator(x)], slope != 1.0, shortcut is not None, by_hand(y), block_p, block_c,
        )  # fmt: skip
    return y


def backward_sums(dy: Tensor, y: Tensor, bias: Tensor, inverse: Tensor, slope: float) -> Tensor:
    """Sums of dz and dz xhat over every channel: [2, C]; y is dense, inverse [C] is 1 / (|w| + eps)."""
    dy = _like(dy, y)
    images, channels, pixels, stride_p, stride_c, block_p, block_c = _shape(y)
    splits = splits_for(y.device, images * triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))
    out = y.new_empty((splits, 2, channels), dtype=accumulator(y))
    with device_of(y):
        _backward_sums_kernel[(triton.cdiv(channels, block_c), splits)](
            dy, y, bias, inverse, out, images, channels, pixels, stride_p, stride_c, splits, slope,
            ACC[out.dtype], slope != 1.0, _BITS[y.dtype], block_p, block_c,
        )  # fmt: skip
    return out.sum(0)


def backward_input(
    dy: Tensor, y: Tensor, bias: Tensor, inverse: Tensor, factor: Tensor, means: Tensor, slope: float
) -> Tensor:
    """Gradient of x in y's layout: factor (dz - means[0] - xhat means[1]); means [2, C] is 0 for fixed statistics."""
    dy = _like(dy, y)
    dx = torch.empty_like(y)
    images, channels, pixels, stride_p, stride_c, block_p, block_c = _shape(y)
    with device_of(y):
        _backward_input_kernel[(images * triton.cdiv(pixels, block_p), triton.cdiv(channels, block_c))](
            dy, y, dx, bias, inverse, factor, means, channels, pixels, stride_p, stride_c, slope,
            ACC[accumulator(y)], slope != 1.0, _BITS[y.dtype], by_hand(dx), block_p, block_c,
        )  # fmt: skip
    return dx


_BITS = {torch.float64: tl.int64, torch.float32: tl.int32, torch.float16: tl.int16, torch.bfloat16: tl.int16}


def _like(dy, y):
    """dy in y's dtype and layout."""
    return laid_out(dy.to(y.dtype), y)


def _shape(x):
    """images, channels, pixels, their strides, and the tile's sides."""
    channels = x.shape[1]
    pixels = x.numel() // max(x.shape[0] * channels, 1)
    if pixels == 1 or not x.is_contiguous():  # rows of channels
        rows = x.shape[0] * pixels
        return 1, channels, rows, channels, 1, *tile(channels, rows, True, TILE)
    return x.shape[0], channels, pixels, 1, pixels, *tile(channels, pixels, False, TILE)


def _normalise_anew(
    x: Tensor, mean: Tensor, factor: Tensor, bias: Tensor, slope: float, shortcut: Tensor | None = None
) -> Tensor:
    return normalise(x, mean, factor, bias, slope, shortcut)


# What a compiled graph calls: opaque to it, with shapes and layouts known. Called directly, the functions cost less.
statistics_op = torch.library.custom_op("csl::abn_statistics", statistics, mutates_args=())
normalise_op = torch.library.custom_op("csl::abn_normalise", _normalise_anew, mutates_args=())
backward_sums_op = torch.library.custom_op("csl::abn_backward_sums", backward_sums, mutates_args=())
backward_input_op = torch.library.custom_op("csl::abn_backward_input", backward_input, mutates_args=())


@statistics_op.register_fake
def _(x):
    return x.new_empty((2, x.shape[1]), dtype=accumulator(x))


@normalise_op.register_fake
def _(x, mean, factor, bias, slope, shortcut=None):
    return torch.empty_like(dense(x))


@backward_sums_op.register_fake
def _(dy, y, bias, inverse, slope):
    return y.new_empty((2, y.shape[1]), dtype=accumulator(y))


@backward_input_op.register_fake
def _(dy, y, bias, inverse, factor, means, slope):
    return torch.empty_like(y)
