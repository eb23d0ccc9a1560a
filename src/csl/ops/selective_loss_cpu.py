"""The selective loss and its gradient on a CPU: arithmetic in place on floats, and a selection without sorting.

The formula is in `csl.ops.selective_loss`; what is here differs from it in order and in shape only.
"""

import numpy as np
import torch
from torch import Tensor

from csl.machine import distributed

FLOOR = 1e-8
"""Least probability inside a logarithm."""

BLOCK = 2**20
"""Entries worked on at a time, in whole rows; seven scratch buffers of that size are all the memory beside the gradient.
Smaller blocks would fit a smaller cache, but every operation on them waits for its threads."""

GROUP = 64
"""Entries of which the most likely one stands for all, in the search for the K most likely ones."""


def on_cpu(
    logits: Tensor,
    targets: Tensor,
    mode: str | None,
    clip: float,
    gamma_pos: float,
    gamma_neg: float,
    gamma_unann: float,
    alpha_pos: float,
    alpha_neg: float,
    alpha_unann: float,
    likelihood_topk: int,
    prior: Tensor | None,
    prior_threshold: float,
    topk_scope: str,
    focal_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient [B, C], in place on a few rows at a time.

    No boolean mask, no `where`, no `pow` of a whole number: on a CPU each takes 5 to 20 times as long as a product of
    floats. With t in {1, 0, -1}, max(t, 0) is the mask of positives and min(t, 0) minus that of un-annotated entries.
    """
    batch, classes = logits.shape
    gradient = torch.empty(batch, classes, dtype=torch.promote_types(logits.dtype, torch.float32))
    one = torch.ones((), dtype=gradient.dtype)
    ranked = mode == "selective" and likelihood_topk > 0 and gradient.numel() > 0
    if ranked:
        _sigmoid(logits, gradient)  # p, until its rows have been through
        last, tied = _select(gradient, targets, likelihood_topk, topk_scope)
    rare = None  # [C], 1 where the prior lets an un-annotated entry count
    if mode == "selective" and prior is not None and prior_threshold:
        rare = (prior <= prior_threshold).to(gradient.dtype)
    ignored = mode in ("ignore", "ignore_normalize_classes")
    gammas = (gamma_pos, gamma_neg, gamma_neg if ignored else gamma_unann)
    alphas = (alpha_pos, alpha_neg, alpha_neg if ignored else alpha_unann)

    rows = max(1, min(batch, BLOCK // max(classes, 1)))
    scratch = torch.empty(7, rows, classes, dtype=gradient.dtype)
    total = 0.0
    for first in range(0, batch, rows):
        block = slice(first, first + rows)
        g = gradient[block]
        positive, unknown, likelihood, base, product, factor, spare = scratch[:, : len(g)].unbind()
        if not ranked:
            _sigmoid(logits[block], g)
        unknown.copy_(targets[block])
        torch.clamp(unknown, min=0, out=positive)
        unknown.clamp_(max=0)
        torch.sub(one, positive, out=spare)
        torch.sub(spare, g, out=likelihood).abs_()  # p of positives, q = 1 - p of the others

        weight = None  # w A alpha; in `product` once it is not 1
        if ranked:
            weight = torch.mul(unknown, g, out=product)  # -p where un-annotated, else 0, as `_select` has it
            if tied is not None:
                torch.eq(weight, last[block], out=factor).mul_(tied[block])
            weight.gt_(last[block])
            if tied is not None:
                weight.add_(factor)
        if rare is not None:
            torch.add(unknown, 1, out=factor)
            weight = _times(weight, torch.maximum(factor, rare, out=factor), product)
        if ignored:
            torch.add(unknown, 1, out=factor)
            if mode == "ignore_normalize_classes":
                factor.mul_(1 / (1 + factor.sum(1, keepdim=True)) + 1)
            weight = _times(weight, factor, product)
        if alphas != (1, 1, 1):
            weight = _times(weight, _of_target(alphas, positive, unknown, factor), product)

        g.sub_(positive)  # d (- log likelihood) / dx without a margin
        if clip == 0:
            torch.abs(g, out=base)
        if clip > 0 or focal_gradient:
            g.mul_(likelihood)  # d (- likelihood) / dx
        if clip > 0:
            likelihood.add_(spare, alpha=clip)
            if 0 in gammas[1:]:  # other gammas give no weight where the margin is clamped
                g.mul_(torch.le(likelihood, 1, out=spare))
            torch.sub(one, likelihood.clamp_(max=1), out=base)
        for gamma, exempt in _focus(gammas, positive, unknown, spare):
            power = _power(base, gamma, factor)
            if exempt is not None:
                power = torch.maximum(power, exempt, out=factor)
            weight = _times(weight, power, product)

        floored = not likelihood.min().item() >= FLOOR  # also where it is NaN
        if floored:
            torch.ge(likelihood, FLOOR, out=spare)
            likelihood.clamp_(min=FLOOR)
        if focal_gradient:
            slope = torch.reciprocal(likelihood, out=factor)
            if floored:
                slope.mul_(spare)
        elif floored:
            g.mul_(spare)
        if clip > 0 and not focal_gradient:
            g.div_(likelihood)
        log = likelihood.log_()
        total -= (log.sum() if weight is None else torch.dot(weight.flatten(), log.flatten())).item()
        if focal_gradient:  # d (A log l) / dl = A (1 / l - gamma log l / base); where base is 0, so is log l
            slope.sub_(_of_target(gammas, positive, unknown, spare).mul_(log).div_(base.clamp_(min=1e-30)))
            g.mul_(slope)
        if weight is not None:
            g.mul_(weight)
    return torch.tensor(total, dtype=gradient.dtype), gradient


def _sigmoid(x, out):
    """sigmoid(x), in the precision of `out`."""
    return torch.sigmoid(x, out=out) if x.dtype == out.dtype else out.copy_(x).sigmoid_()


def _select(p: Tensor, targets: Tensor, topk: int, scope: str) -> tuple[Tensor, Tensor | None]:
    """Where the most likely un-annotated entries begin, without sorting all of them.

    p [B, C] gives -p for un-annotated entries and 0 for others. Returns the largest of these that is chosen, [B, 1], and what
    the entries equal to it weigh, [B, 1], or None if all of them are chosen.
    """
    batch = len(p)
    rows = batch if scope == "sample" else 1
    k = min(topk * (batch // rows), p.numel() // rows)
    ranks = torch.empty_like(p).copy_(targets).clamp_(max=0).mul_(p).view(rows, -1).numpy()
    if scope == "global" and distributed.world_size() > 1:
        k = int(distributed.all_reduce_sum(torch.tensor(topk * batch)))
        last, below, equal = _kth_smallest_of_all(ranks, k)
    else:
        last, below, equal = _kth_smallest(ranks, k)  # [rows, 1] each
    left = k - below
    share = (1 - left / np.maximum(equal, left)).astype(ranks.dtype)
    tied = torch.from_numpy(share).expand(batch, 1) if share.any() else None
    return torch.from_numpy(last).expand(batch, 1), tied


def _kth_smallest(ranks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k-th smallest of each row of ranks [R, N], at most -tiny, how many are below it and how many equal it: [R, 1] each.

    0 is an annotated entry, or one whose loss and gradient are 0. `ranks` is not in order afterwards.
    """
    few = _smallest_few(ranks, k)
    few.partition(k - 1, axis=1)
    last = np.minimum(few[:, k - 1 : k], -np.finfo(ranks.dtype).tiny)
    return last, *(np.count_nonzero(found, axis=1, keepdims=True) for found in (few < last, few == last))


def _smallest_few(ranks: np.ndarray, k: int) -> np.ndarray:
    """Of each row of ranks [R, N] at least the k smallest, and all that equal one of them, with zeros for the rest of [R, M].

    `ranks` itself where looking at all of them is quicker.

    A row is cut into groups, far more than k of them. The k-th smallest of the groups' least values has k values up to it, so
    the k-th of all is no larger; and when k is small, few others are that small.
    """
    rows, entries = ranks.shape
    size = min(GROUP, entries // (4 * k))
    if size < 8:
        return ranks
    groups = entries // size
    # A group's values are not neighbours: the least of each is taken from whole rows of groups at a time.
    least = ranks[:, : groups * size].reshape(rows, size, groups).min(1)  # [R, groups]
    least.partition(k - 1, axis=1)
    bound = least[:, k - 1 : k]
    found = np.flatnonzero(ranks <= bound)
    if len(found) > ranks.size // 8 or np.isnan(bound).any():
        return ranks
    counts = np.bincount(found // entries, minlength=rows)
    few = np.zeros((rows, counts.max()), ranks.dtype)
    few[np.arange(few.shape[1]) < counts[:, None]] = ranks.ravel()[found]
    return few


def _kth_smallest_of_all(ranks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_kth_smallest` over the ranks [1, N] of all processes: each sends its k smallest."""
    candidates = torch.zeros(1, k, dtype=torch.from_numpy(ranks).dtype)
    sent = min(k, ranks.size)
    ranks.partition(sent - 1, axis=1)
    candidates[:, :sent] = torch.from_numpy(ranks[:, :sent])
    last, _, _ = _kth_smallest(distributed.gather_tensors(candidates).view(1, -1).numpy(), k)
    counts = torch.tensor([np.count_nonzero(ranks < last), np.count_nonzero(ranks == last)])
    below, equal = distributed.all_reduce_sum(counts).numpy().reshape(2, 1, 1)
    return last, below, equal


def _focus(gammas, positive, unknown, out):
    """Pairs (power, mask): A is the product of max(base^power, mask), as 0 <= base <= 1. A mask of None is 0."""
    (least, first), (middle, _), (most, last) = sorted((gamma, kind) for kind, gamma in enumerate(gammas))
    if least > 0:
        yield least, None
    if middle > least:
        yield middle - least, _of_target([kind == first for kind in range(3)], positive, unknown, out)
    if most > middle:
        yield most - middle, _of_target([kind != last for kind in range(3)], positive, unknown, out)


def _of_target(values, positive, unknown, out):
    """The first of three values where the target is 1, the second where it is 0, the third where it is -1."""
    of_positive, of_negative, of_unknown = map(float, values)
    torch.mul(positive, of_positive - of_negative, out=out)
    if of_unknown != of_negative:
        out.add_(unknown, alpha=of_negative - of_unknown)
    return out.add_(of_negative) if of_negative else out


def _power(base, exponent, out):
    """base^exponent, of whole exponents by squaring and multiplying. `base` itself for 1."""
    if exponent != int(exponent):
        return torch.pow(base, exponent, out=out)
    power = base
    for bit in f"{int(exponent):b}"[1:]:
        power = torch.mul(power, power, out=out)
        if bit == "1":
            power.mul_(base)
    return power


def _times(weight, factor, out):
    return out.copy_(factor) if weight is None else weight.mul_(factor)
