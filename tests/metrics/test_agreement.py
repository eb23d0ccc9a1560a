"""Rank correlation and top-ten overlap against SciPy, and against all ways to break ties."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from csl import InputError
from csl.metrics.agreement import rank_correlation, top_overlap


@pytest.mark.parametrize("decimals", [1, 6])
def test_rank_correlation_is_spearmans(decimals):
    rng = np.random.default_rng(0)
    first = np.round(rng.random(50), decimals)
    second = np.round(first + rng.normal(size=50), decimals)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    first[3], second[7] = np.nan, np.nan
    known = ~(np.isnan(first) | np.isnan(second))
    expected = spearmanr(first[known], second[known]).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)


def test_what_ranks_nothing_has_no_correlation():
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5)))
    assert np.isnan(rank_correlation([1.0], [2.0]))
    assert np.isnan(rank_correlation([], []))
    with pytest.raises(InputError, match="expected two lists of one length"):
        rank_correlation([1, 2], [1, 2, 3])


def test_top_overlap_counts_shared_classes():
    assert top_overlap(np.arange(20), np.arange(20)) == 10
    assert top_overlap(np.arange(20), -np.arange(20)) == 0
    assert top_overlap([3, 2, 1], [1, 2, 3], k=2) == 1
    assert top_overlap([3, 2, 1], [1, 2, 3], k=10) == 3
    assert top_overlap(np.ones(80), np.arange(80)) == pytest.approx(1.25)
    assert top_overlap([], []) == 0
    assert top_overlap([np.nan, 5, 1], [9, 5, 1], k=1) == 1


def test_top_overlap_is_the_mean_over_all_ways_to_break_ties():
    first, second, k = [3, 2, 2, 2, 1], [1, 1, 2, 0, 1], 3
    orders = list(permutations(range(5)))

    def tops(values):
        return [set(sorted(order, key=lambda c: -values[c])[:k]) for order in orders]

    expected = np.mean([len(a & b) for a in tops(first) for b in tops(second)])
    assert top_overlap(first, second, k) == pytest.approx(expected)
