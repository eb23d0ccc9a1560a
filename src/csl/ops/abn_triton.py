"""Triton kernels of `csl.ops.inplace_abn`.

A tensor [B, C, ...] is read as `images` blocks of [pixels, C] with strides (stride_p, stride_c): channels-last is one block of
B H W rows of C neighbouring channels, contiguous is B blocks of C planes. Neither is copied. Arithmetic is in float32
(float64 for float64), offsets are 64-bit, sums are added in a fixed order: two runs give the same bits.

A layer launches three kernels forward and three backward: a pass over memory whose programs each sum a span of tiles, one
small kernel that merges the parts and computes all that is one number a channel, and the pass that writes the result. Sums of
squares are of differences from the mean of a span's first tile, and spans are merged by Chan's formula, so that a large mean
costs no digits. The output's sign bit says on which side of the leaky ReLU it was, -0 included: see `_normalise_kernel`.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from csl.ops.triton_parts import ACC, accumulator, by_hand, dense, device_of, laid_out, splits_for, store, tile

TILE = 2048
"""Elements that a program holds at a time; of channels-last sums half of them, whose accumulators take registers, too."""


@triton.jit
def _tile(index, channel, images, channels, pixels, stride_p, stride_c, BLOCK_P: tl.constexpr):
    """Offsets [BLOCK_P, BLOCK_C] of one tile, and the mask of its rows [BLOCK_P, 1]."""
    row = tl.zeros([BLOCK_P], tl.int64)
    if images != 1:  # as rows of channels are, at compile time
        blocks = tl.cdiv(pixels, BLOCK_P)
        row += tl.cast(index // blocks, tl.int64) * channels * pixels
        index = index % blocks
    pixel = tl.cast(index, tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    row += pixel * stride_p
    return row[:, None] + (channel * stride_c)[None, :], (pixel < pixels)[:, None]


@triton.jit
def _span(split, span, images, pixels, BLOCK_P: tl.constexpr):
    """The tiles of a program: the first, the first that may lack rows, and the end."""
    start = split * span
    end = tl.minimum(start + span, images * tl.cdiv(pixels, BLOCK_P))
    full = pixels // BLOCK_P if images == 1 else 0
    return start, tl.minimum(tl.maximum(full, start), end), end


@triton.jit
def _statistics_kernel(
    x_ptr, out_ptr, images, channels, pixels, stride_p, stride_c, span,
    ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Count, mean and sum of squared deviations of a span of tiles: [S, 3, C]."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = (channel < channels)[None, :]
    start, cut, end = _span(tl.program_id(1), span, images, pixels, BLOCK_P)
    offset, rows = _tile(start, channel, images, channels, pixels, stride_p, stride_c, BLOCK_P)
    base = tl.sum(tl.load(x_ptr + offset, rows & known, other=0).to(ACC), 0) / tl.sum(rows.to(ACC))  # [BLOCK_C]
    count, step = (cut - start) * BLOCK_P, tl.cast(stride_p, tl.int64) * BLOCK_P
    first = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    second = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    place = x_ptr  # moved on: less to compute for each tile than its offsets
    for _ in tl.range(start, cut, num_stages=1, loop_unroll_factor=4):
        x = tl.load(place + offset, known).to(ACC) - base[None, :]
        first += x
        second += x * x
        place += step
    for index in range(cut, end):
        offset, rows = _tile(index, channel, images, channels, pixels, stride_p, stride_c, BLOCK_P)
        x = tl.load(x_ptr + offset, rows & known, other=0).to(ACC) - base[None, :]
        x = tl.where(rows, x, 0)
        first += x
        second += x * x
        count += tl.sum(rows.to(tl.int32))
    total = tl.sum(first, 0)
    mean = total / count
    m2 = tl.sum(second, 0) - total * mean
    place = tl.program_id(1).to(tl.int64) * 3 * channels + channel
    known = channel < channels
    tl.store(out_ptr + place, (count + tl.zeros([BLOCK_C], tl.int32)).to(ACC), known)
    tl.store(out_ptr + place + channels, base + mean, known)
    tl.store(out_ptr + place + 2 * channels, tl.where(m2 < 0, 0, m2), known)


@triton.jit
def _finish_kernel(
    parts_ptr, weight_ptr, running_mean_ptr, running_var_ptr, batches_ptr, out_ptr, channels, splits, momentum, eps,
    ACC: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Chan's merge of the parts [S, 3, C] to one [3, C] where there is no weight, or to `constants` [4, C].

    With a weight, running statistics are moved and `batches` is counted up, where there are any.
    """
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    base = tl.load(parts_ptr + channels + channel, known, other=0)
    count = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    first = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    second = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    for start in range(0, splits, BLOCK_S):
        split = start + tl.arange(0, BLOCK_S)
        mask = (split < splits)[:, None] & known[None, :]
        place = parts_ptr + (split.to(tl.int64) * 3 * channels)[:, None] + channel[None, :]
        more = tl.load(place, mask, other=0)
        delta = tl.load(place + channels, mask, other=0) - base[None, :]
        count += more
        first += more * delta
        second += tl.load(place + 2 * channels, mask, other=0) + more * delta * delta
    values = tl.maximum(tl.sum(count, 0), 1)  # 0 beyond the last channel
    total = tl.sum(first, 0)
    mean = base + total / values
    m2 = tl.sum(second, 0) - total * (total / values)
    m2 = tl.where(m2 < 0, 0, m2)
    if weight_ptr is None:
        tl.store(out_ptr + channel, values, known)
        tl.store(out_ptr + channels + channel, mean, known)
        tl.store(out_ptr + 2 * channels + channel, m2, known)
    else:
        invstd = tl.rsqrt(m2 / values + eps)
        scale = tl.abs(tl.load(weight_ptr + channel, known, other=0).to(ACC)) + eps
        tl.store(out_ptr + channel, mean, known)
        tl.store(out_ptr + channels + channel, invstd, known)
        tl.store(out_ptr + 2 * channels + channel, scale * invstd, known)
        tl.store(out_ptr + 3 * channels + channel, 1 / scale, known)
        if running_mean_ptr is not None:
            _move(running_mean_ptr + channel, mean, momentum, known)
            _move(running_var_ptr + channel, m2 / tl.maximum(values - 1, 1), momentum, known)
        if batches_ptr is not None:
            tl.store(batches_ptr, tl.load(batches_ptr) + 1, tl.program_id(0) == 0)


@triton.jit
def _move(pointer, value, momentum, known):
    old = tl.load(pointer, known, other=0).to(value.dtype)
    tl.store(pointer, (old + momentum * (value - old)).to(pointer.dtype.element_ty), known)


@triton.jit
def _normalise_kernel(
    x_ptr, shortcut_ptr, y_ptr, constants_ptr, bias_ptr, images, channels, pixels, stride_p, stride_c, slope,
    ACC: tl.constexpr, LEAKY: tl.constexpr, BY_HAND: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y = act((x - mean) factor + bias). What is not over 0 before a leaky ReLU gets the sign bit, 0 and underflow too.

    A shortcut is added, and ReLU applied. y may be x.
    """
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    offset, rows = _tile(tl.program_id(0), channel, images, channels, pixels, stride_p, stride_c, BLOCK_P)
    mask = rows & known[None, :]
    x = tl.load(x_ptr + offset, mask, other=0).to(ACC)
    mean = tl.load(constants_ptr + channel, known, other=0).to(ACC)
    factor = tl.load(constants_ptr + 2 * channels + channel, known, other=0).to(ACC)
    bias = tl.load(bias_ptr + channel, known, other=0).to(ACC)
    z = (x - mean[None, :]) * factor[None, :] + bias[None, :]
    if LEAKY:
        z = tl.where(z > 0, z, tl.where(z == z, -tl.abs(z * slope), z))
    if shortcut_ptr is not None:
        z += tl.load(shortcut_ptr + offset, mask, other=0).to(ACC)
        z = tl.where(z < 0, 0, z)  # not a number stays what it is
    store(y_ptr + offset, z, mask, BY_HAND)


@triton.jit
def _is_negative(y, BITS: tl.constexpr):
    """Whether the sign bit is set, in the arithmetic's type."""
    return y.to(BITS, bitcast=True) < 0


@triton.jit
def _summed(
    offset, mask, dy_ptr, y_ptr, joined_ptr, dz_ptr, bias, slope,
    ACC: tl.constexpr, BITS: tl.constexpr, LEAKY: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """dz and dz (z - bias) of a tile. Where y = slope z the latter is dy (y - slope bias), without a division."""
    dy = tl.load(dy_ptr + offset, mask, OTHER)
    if joined_ptr is not None:
        dy = tl.where(tl.load(joined_ptr + offset, mask, OTHER) <= 0, 0, dy)  # where y is no number, as PyTorch has it
        tl.store(dz_ptr + offset, dy, mask)
    dy = dy.to(ACC)
    y = tl.load(y_ptr + offset, mask, OTHER).to(ACC)
    dz, bias = dy, bias[None, :]
    if LEAKY:
        negative = _is_negative(y, BITS)
        dz = tl.where(negative, tl.full([1, 1], slope, ACC), 1.0) * dy
        bias = tl.where(negative, slope * bias, bias)
    return dz, dy * (y - bias)


@triton.jit
def _backward_sums_kernel(
    dy_ptr, y_ptr, joined_ptr, dz_ptr, bias_ptr, out_ptr, images, channels, pixels, stride_p, stride_c, span, slope,
    ACC: tl.constexpr, BITS: tl.constexpr, LEAKY: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of dz and of dz (z - bias) over a span of tiles: [S, 2, C]. Of a JOINED layer dz is stored, too."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    start, cut, end = _span(tl.program_id(1), span, images, pixels, BLOCK_P)
    bias = tl.load(bias_ptr + channel, known, other=0).to(ACC)
    first = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    second = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for index in range(start, cut):
        offset, _ = _tile(index, channel, images, channels, pixels, stride_p, stride_c, BLOCK_P)
        dz, product = _summed(
            offset, known[None, :], dy_ptr, y_ptr, joined_ptr, dz_ptr, bias, slope, ACC, BITS, LEAKY, None
        )
        first += dz
        second += product
    for index in range(cut, end):
        offset, rows = _tile(index, channel, images, channels, pixels, stride_p, stride_c, BLOCK_P)
        mask = rows & known[None, :]
        dz, product = _summed(offset, mask, dy_ptr, y_ptr, joined_ptr, dz_ptr, bias, slope, ACC, BITS, LEAKY, 0)
        first += dz
        second += product
    place = tl.program_id(1).to(tl.int64) * 2 * channels + channel
    tl.store(out_ptr + place, tl.sum(first, 0), known)
    tl.store(out_ptr + place + channels, tl.sum(second, 0), known)


@triton.jit
def _finish_backward_kernel(
    parts_ptr, weight_ptr, constants_ptr, dweight_ptr, dbias_ptr, out_ptr, channels, splits, share,
    INVERSE: tl.constexpr, ACC: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The sum of the parts [S, 2, C] where there is no weight, or gradients [C] and the coefficients [3, C] of the input's."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    first = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    second = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    for start in range(0, splits, BLOCK_S):
        split = start + tl.arange(0, BLOCK_S)
        mask = (split < splits)[:, None] & known[None, :]
        place = parts_ptr + (split.to(tl.int64) * 2 * channels)[:, None] + channel[None, :]
        first += tl.load(place, mask, other=0)
        second += tl.load(place + channels, mask, other=0)
    dz, product = tl.sum(first, 0), tl.sum(second, 0)
    if weight_ptr is None:
        tl.store(out_ptr + channel, dz, known)
        tl.store(out_ptr + channels + channel, product, known)
    else:
        factor = tl.load(constants_ptr + 2 * channels + channel, known, other=0)
        inverse = tl.load(constants_ptr + INVERSE * channels + channel, known, other=0)
        weight = tl.load(weight_ptr + channel, known, other=0).to(ACC)
        product *= inverse
        tl.store(dbias_ptr + channel, dz.to(dbias_ptr.dtype.element_ty), known)
        dweight = tl.where(weight < 0, -product, product)
        tl.store(dweight_ptr + channel, dweight.to(dweight_ptr.dtype.element_ty), known)
        tl.store(out_ptr + channel, factor, known)
        # Fixed statistics have no gradient: a share of 0, whatever the sums are.
        tl.store(out_ptr + channels + channel, tl.where(share == 0, 0, factor * dz * share), known)
        tl.store(out_ptr + 2 * channels + channel, tl.where(share == 0, 0, factor * inverse * (product * share)), known)


@triton.jit
def _backward_input_kernel(
    dy_ptr, y_ptr, dx_ptr, bias_ptr, coefficients_ptr, images, channels, pixels, stride_p, stride_c, slope,
    ACC: tl.constexpr, BITS: tl.constexpr, LEAKY: tl.constexpr, BY_HAND: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dx = c0 dz - c1 - c2 (z - bias)."""
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channel < channels
    offset, rows = _tile(tl.program_id(0), channel, images, channels, pixels, stride_p, stride_c, BLOCK_P)
    mask = rows & known[None, :]
    bias = tl.load(bias_ptr + channel, known, other=0).to(ACC)
    factor = tl.load(coefficients_ptr + channel, known, other=0).to(ACC)
    shift = tl.load(coefficients_ptr + channels + channel, known, other=0).to(ACC)
    share = tl.load(coefficients_ptr + 2 * channels + channel, known, other=0).to(ACC)
    dz = tl.load(dy_ptr + offset, mask, other=0).to(ACC)
    z = tl.load(y_ptr + offset, mask, other=0).to(ACC)
    if LEAKY:
        negative = _is_negative(z, BITS)
        scalar = tl.full([1, 1], slope, ACC)
        dz *= tl.where(negative, scalar, 1.0)
        z *= tl.where(negative, 1 / scalar, 1.0)
    dx = factor[None, :] * dz - shift[None, :] - share[None, :] * (z - bias[None, :])
    store(dx_ptr + offset, dx, mask, BY_HAND)


def statistics(x: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations of every channel of x [B, C, ...]: [3, C], float32 (float64 for float64)."""
    return _merged(x, 3, None, None, None, None, 0.0, 0.0)


def prepare(
    x: Tensor,
    weight: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    batches: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """`constants` [4, C] of the batch x: see `csl.ops.abn_parts.constants`. Moves running statistics, counts `batches` up."""
    return _merged(x, 4, weight, running_mean, running_var, batches, momentum, eps)


def _merged(x, rows, *settings):
    x = dense(x)
    dtype = accumulator(x)
    shape, _, tiling, span, columns, splits, _ = _plan(x.shape, x.is_contiguous(), x.device)
    parts, out = x.new_empty((splits, 3, shape[1]), dtype=dtype), x.new_empty((rows, shape[1]), dtype=dtype)
    weight, running_mean, running_var, batches, momentum, eps = settings
    with device_of(x):
        _statistics_kernel[(columns, splits)](x, parts, *shape, span, ACC[dtype], *tiling)
        _finish_kernel[(-(-shape[1] // 16),)](
            parts, weight, running_mean, running_var, batches, out, shape[1], splits, momentum, eps, ACC[dtype], 128, 16
        )
    return out


def normalise(
    x: Tensor, constants: Tensor, bias: Tensor, slope: float, shortcut: Tensor | None = None, overwrite: bool = False
) -> Tensor:
    """act((x - mean) factor + bias) of x [B, C, ...], in x's dtype and memory format; mean and factor of `constants`.

    With a shortcut of x's shape, relu(that + shortcut). `overwrite` puts it into the memory of x, which is dense.
    """
    x = dense(x)
    y = x if overwrite else torch.empty_like(x)
    if shortcut is not None:
        shortcut = laid_out(shortcut, x)
    shape, tiling, _, _, columns, _, tiles = _plan(x.shape, x.is_contiguous(), x.device)
    with device_of(x):
        _normalise_kernel[(tiles, columns)](
            x, shortcut, y, constants, bias, *shape, slope, ACC[accumulator(x)], slope != 1.0, by_hand(y), *tiling
        )
    return y


def backward_sums(dy: Tensor, y: Tensor, bias: Tensor, slope: float) -> Tensor:
    """Sums of dz and dz (z - bias) over every channel: [2, C]; y is dense."""
    return _summed_up(_like(dy, y), y, None, None, bias, slope, None, None, None, None, 0.0, 3)


def backward_input(dy: Tensor, y: Tensor, bias: Tensor, coefficients: Tensor, slope: float) -> Tensor:
    """Gradient of x in y's layout: c0 dz - c1 - c2 (z - bias), of the coefficients [3, C]."""
    dy, dx = _like(dy, y), torch.empty_like(y)
    dtype = accumulator(y)
    shape, tiling, _, _, columns, _, tiles = _plan(y.shape, y.is_contiguous(), y.device)
    with device_of(y):
        _backward_input_kernel[(tiles, columns)](
            dy, y, dx, bias, coefficients, *shape, slope,
            ACC[dtype], _BITS[dtype], slope != 1.0, by_hand(dx), *tiling,
        )  # fmt: skip
    return dx


def backward(
    dy: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    constants: Tensor,
    inverse: int,
    share: float,
    slope: float,
    joined: Tensor | None = None,
    needed: bool = True,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """dx where it is needed, dweight, dbias and dz: see `csl.ops.abn_parts.gradients`."""
    dy = dz = _like(dy, y)
    if joined is not None:
        joined, dz = laid_out(joined, y), torch.empty_like(y)
    dweight, dbias = torch.empty_like(weight), torch.empty_like(weight)
    coefficients = _summed_up(dy, y, joined, dz, bias, slope, weight, constants, dweight, dbias, share, inverse)
    return backward_input(dz, y, bias, coefficients, slope) if needed else None, dweight, dbias, dz


def _summed_up(dy, y, joined, dz, bias, slope, weight, constants, dweight, dbias, share, inverse):
    dtype = accumulator(y)
    shape, _, tiling, span, columns, splits, _ = _plan(y.shape, y.is_contiguous(), y.device)
    channels = shape[1]
    parts, out = (
        y.new_empty((splits, 2, channels), dtype=dtype),
        y.new_empty((2 if weight is None else 3, channels), dtype=dtype),
    )
    with device_of(y):
        _backward_sums_kernel[(columns, splits)](
            dy, y, joined, dz, bias, parts, *shape, span, slope, ACC[dtype], _BITS[dtype], slope != 1.0, *tiling
        )
        _finish_backward_kernel[(-(-channels // 16),)](
            parts, weight, constants, dweight, dbias, out, channels, splits, share, inverse, ACC[dtype], 128, 16
        )
    return out


_BITS = {torch.float64: tl.int64, torch.float32: tl.int32}


def _like(dy, y):
    """dy in y's dtype and layout."""
    if dy.dtype == y.dtype and dy.stride() == y.stride():  # as nearly always: less to ask
        return dy
    return laid_out(dy.to(y.dtype), y)


@lru_cache(maxsize=1024)
def _plan(sizes, contiguous, device):
    """How a tensor is passed over, found once for its shape.

    images, channels, pixels and their strides; the sides of a tile, and of one of the sums; how many of the latter a span has;
    columns; spans and tiles of a column.
    """
    channels, pixels = sizes[1], max(math.prod(sizes[2:]), 1)
    if pixels == 1 or not contiguous:  # rows of channels
        shape = 1, channels, sizes[0] * pixels, channels, 1
    else:
        shape = sizes[0], channels, pixels, 1, pixels
    channels_last = shape[4] == 1
    whole = tile(channels, shape[2], channels_last, TILE)
    part = tile(channels, shape[2], channels_last, TILE // 2 if channels_last else TILE)
    columns = -(-channels // whole[1])  # as wide in both
    tiles, parts = (shape[0] * -(-shape[2] // block_p) for block_p, _ in (whole, part))
    span = -(-parts // splits_for(device, parts, columns))
    return shape, whole, part, span, columns, -(-parts // span), tiles
