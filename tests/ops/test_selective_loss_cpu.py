"""csl.ops.selective_loss_cpu: the K most likely un-annotated entries are found without sorting all of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.ops import selective_loss, selective_loss_ref
from csl.ops.selective_loss_cpu import _kth_smallest, _smallest_few

TINY = np.finfo(np.float32).tiny


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 4),
    entries=st.integers(1, 3000),
    k=st.integers(1, 40),
    levels=st.sampled_from([2, 10, 300, 10**6]),
    known=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_kth_smallest_and_its_ties_are_those_of_a_sort(rows, entries, k, levels, known, seed):
    rng, k = np.random.default_rng(seed), min(k, entries)
    ranks = -(rng.integers(0, levels, (rows, entries)) / levels).astype(np.float32)
    ranks[rng.random(ranks.shape) < known] = 0
    last = np.minimum(np.sort(ranks, axis=1)[:, k - 1 : k], -TINY)
    below, equal = ((ranks < last).sum(1, keepdims=True), (ranks == last).sum(1, keepdims=True))
    for found, expected in zip(_kth_smallest(ranks.copy(), k), (last, below, equal), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_which_entries_are_looked_at():
    ranks = -np.random.default_rng(0).random((2, 9605), np.float32)
    few = _smallest_few(ranks, 5)
    assert np.count_nonzero(few) < 100
    for row, values in zip(ranks, few, strict=True):
        values = np.sort(values[values != 0])
        assert len(values) >= 5
        np.testing.assert_array_equal(np.sort(row)[: len(values)], values)
    for all_of_them in (ranks[:, :100], np.zeros_like(ranks), np.full_like(ranks, np.nan)):  # few, all tie, no numbers
        assert _smallest_few(all_of_them, 5) is all_of_them


@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_loss_and_gradient_of_many_classes_equal_the_plain_twin(scope):
    torch.manual_seed(0)
    logits = (3 * torch.randn(16, 4000)).requires_grad_()
    targets = torch.randint(-1, 2, (16, 4000))
    results = []
    for function in (selective_loss, selective_loss_ref):
        loss = function(logits, targets, "selective", 0.0, 0.0, 1.0, 4.0, topk_scope=scope)
        results.append((loss, *torch.autograd.grad(loss, logits)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_logits_that_are_no_number_give_a_loss_that_is_none():
    logits, targets = torch.randn(16, 4000), torch.full((16, 4000), -1)
    logits[3, 5] = torch.nan
    assert selective_loss(logits, targets, "selective").isnan()
