"""The selective loss and its gradient in Triton: the selection in three passes over the logits, all else in one.

The K-th largest logit of the un-annotated entries is found by radix selection: a histogram of the leading 11 bits of the
logits tells the bin it lies in, a histogram of the next 11 bits inside that bin the next bin, and so on. Every
launch is known beforehand and nothing is read back, so that the device is never waited for; the memory is one
histogram for each pass, whatever K is.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from csl.ops.selective_formula import SelectiveOptions
from csl.ops.triton_parts import device_of

BINS = 2048
PASSES = ((21, 11), (10, 11), (0, 10))
"""(shift, bits) of each pass over the 32 bits of a logit, the leading ones first."""


@triton.jit
def _key(x):
    """Unsigned 32 bits, in int64, that are in the order of the float32 x (-0 counts as 0)."""
    bits = (x + 0.0).to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return tl.where(bits >= 0x80000000, 0xFFFFFFFF - bits, bits + 0x80000000)


@triton.jit
def _count_kernel(
    logits, targets, state, histogram, entries, SHIFT: tl.constexpr, BITS: tl.constexpr, FIRST: tl.constexpr,
    BINS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the un-annotated entries of a block that share the prefix found so far to the histogram of their next bits."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < entries
    x = tl.load(logits + row * entries + at, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(targets + row * entries + at, mask=inside, other=0.0).to(tl.float32)
    key = _key(x)
    counted = inside & (t < 0)
    if not FIRST:
        counted &= (key >> (SHIFT + BITS)) == tl.load(state + row * 3)
    bins = tl.where(counted, (key >> SHIFT) & ((1 << BITS) - 1), 0).to(tl.int32)
    others = BLOCK - tl.sum(counted.to(tl.int32), 0)  # they lie in bin 0, too
    bin_ids = tl.arange(0, BINS)
    found = tl.histogram(bins, BINS) - tl.where(bin_ids == 0, others, 0)
    tl.atomic_add(histogram + row * BINS + bin_ids, found, mask=found > 0)


@triton.jit
def _descend_kernel(state, histogram, chosen, BITS: tl.constexpr, FIRST: tl.constexpr, BINS: tl.constexpr):
    """Lengthen the prefix by the bin in which the last of the chosen entries lies.

    The state of a row, int64 [3]: the prefix; how many entries with it are still to be chosen; how many there are.
    """
    row = tl.program_id(0).to(tl.int64)
    bins = tl.arange(0, BINS)
    counts = tl.load(histogram + row * BINS + bins)
    total = tl.sum(counts, 0)
    above = total - tl.cumsum(counts, 0)  # entries in higher bins
    left = total.to(tl.int64)
    left = tl.minimum(left, chosen if FIRST else tl.load(state + row * 3 + 1))
    here = (above < left) & (left <= above + counts)
    prefix = tl.sum(tl.where(here, bins, 0), 0).to(tl.int64)
    if not FIRST:
        prefix += tl.load(state + row * 3) << BITS
    tl.store(state + row * 3, prefix)
    tl.store(state + row * 3 + 1, left - tl.sum(tl.where(here, above, 0), 0))
    tl.store(state + row * 3 + 2, tl.sum(tl.where(here, counts, 0), 0).to(tl.int64))


@triton.jit
def _loss_kernel(
    logits, targets, gradient, partial, state, prior, row_weight, classes, clip, prior_threshold,
    gamma_pos, gamma_neg, gamma_unann, alpha_pos, alpha_neg, alpha_unann,
    IGNORED: tl.constexpr, NORMALIZED: tl.constexpr, SELECTED: tl.constexpr, PER_SAMPLE: tl.constexpr,
    RARE: tl.constexpr, FOCAL_GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of one block of a row of [B, C], and its part of the loss."""
    sample = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < classes
    at = sample * classes + place
    x = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(targets + at, mask=inside, other=0.0).to(tl.float32)
    positive, unknown = t > 0, t < 0

    e = tl.exp(-tl.abs(x))
    p = tl.where(x >= 0, 1.0, e) / (1.0 + e)
    q = 1.0 - p
    absent = tl.where(q + clip > 1.0, 1.0, q + clip)
    likelihood = tl.where(positive, p, absent)
    base = 1.0 - likelihood
    gamma = tl.where(positive, gamma_pos, tl.where(unknown, gamma_unann, gamma_neg))
    weight = tl.where(gamma == 0.0, 1.0, tl.exp2(gamma * tl.log2(base)))
    weight *= tl.where(positive, alpha_pos, tl.where(unknown, alpha_unann, alpha_neg))
    if IGNORED:
        weight = tl.where(unknown, weight * 0.0, weight)
    if NORMALIZED:
        weight *= tl.load(row_weight + sample)
    if RARE:
        rare = tl.load(prior + place, mask=inside, other=0.0) <= prior_threshold
        weight = tl.where(unknown & ~rare, 0.0, weight)
    if SELECTED:
        row = state
        if PER_SAMPLE:
            row += sample * 3
        key, last = _key(x), tl.load(row)
        used = tl.load(row + 1).to(tl.float32) / tl.maximum(tl.load(row + 2), 1).to(tl.float32)
        kept = tl.where(key > last, 0.0, tl.where(key == last, 1.0 - used, 1.0))
        weight = tl.where(unknown, weight * kept, weight)

    floored = tl.where(likelihood < 1e-8, 1e-8, likelihood)  # NaN stays
    log = tl.log(floored)
    steep = tl.where(positive, -p * q, p * q)  # d (- likelihood) / dx
    steep = tl.where(~positive & (q + clip > 1.0), 0.0, steep)
    slope = tl.where(likelihood < 1e-8, 0.0, 1.0 / floored)
    if FOCAL_GRADIENT:
        slope -= gamma * log / tl.where(base < 1e-30, 1e-30, base)
    tl.store(gradient + at, steep * slope * weight, mask=inside)
    tl.store(partial + sample * tl.num_programs(1) + tl.program_id(1), -tl.sum(tl.where(inside, weight * log, 0.0), 0))


def on_gpu(
    logits: Tensor, targets: Tensor, prior: Tensor | None, options: SelectiveOptions, block: int = 1024
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient [B, C] in float32, of logits in float32 or half precision; see `selective_loss`.

    block: entries of one program, a power of 2; of one that counts, four times as many.
    """
    o = options
    logits, targets = logits.contiguous(), targets.contiguous()
    if targets.dtype == torch.bool:
        targets = targets.to(torch.int8)
    (batch, classes), device = logits.shape, logits.device
    gradient = torch.empty(batch, classes, dtype=torch.float32, device=device)
    entries = logits.numel()
    if entries == 0:
        return gradient.sum(), gradient
    selected = o.mode == "selective" and o.likelihood_topk > 0
    uses_prior = o.mode == "selective" and prior is not None and bool(o.prior_threshold)
    state = row_weight = gradient  # a pointer for what is not used
    prior = prior.float().contiguous() if uses_prior else gradient
    if o.mode == "ignore_normalize_classes":
        row_weight = 1 / (1 + (targets != -1).sum(1).float()) + 1
    width = min(block, triton.next_power_of_2(classes))
    blocks = triton.cdiv(classes, width)
    with device_of(logits):
        if selected:
            block *= 4
            rows = batch if o.topk_scope == "sample" else 1
            state = torch.empty(rows, 3, dtype=torch.int64, device=device)
            histograms = torch.zeros(len(PASSES), rows, BINS, dtype=torch.int32, device=device)
            grid = (rows, triton.cdiv(entries // rows, block))
            for (shift, bits), histogram in zip(PASSES, histograms, strict=True):
                first = shift + bits == 32
                _count_kernel[grid](logits, targets, state, histogram, entries // rows, shift, bits, first, BINS, block)
                _descend_kernel[(rows,)](state, histogram, o.likelihood_topk * (batch // rows), bits, first, BINS)
        partial = torch.empty(batch * blocks, dtype=torch.float32, device=device)
        _loss_kernel[(batch, blocks)](
            logits, targets, gradient, partial, state, prior, row_weight, classes,
            float(o.clip), float(o.prior_threshold or 0), float(o.gamma_pos), float(o.gamma_neg), float(o.gamma_unann),
            float(o.alpha_pos), float(o.alpha_neg), float(o.alpha_unann),
            IGNORED=o.mode in ("ignore", "ignore_normalize_classes"), NORMALIZED=o.mode == "ignore_normalize_classes",
            SELECTED=selected, PER_SAMPLE=o.topk_scope == "sample", RARE=uses_prior, FOCAL_GRADIENT=o.focal_gradient,
            BLOCK=width,
        )  # fmt: skip
    return partial.sum(), gradient
