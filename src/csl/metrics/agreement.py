"""Agreement of two rankings of the classes: rank correlation and shared top classes."""

import numpy as np
import pandas as pd

from csl.errors import InputError


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two lists of numbers, equal ones sharing their mean rank.

    Args:
        first, second: [C] numbers; a class that is NaN in either is left out.

    Returns:
        A number in [-1, 1]; NaN where one list is constant (it ranks nothing) or fewer than two classes are left.

    Raises:
        InputError: lists of different lengths.
    """
    first, second = _pairs(first, second)
    ranks = [pd.Series(values).rank().to_numpy() for values in (first, second)]
    if len(first) < 2 or any(np.ptp(r) == 0 for r in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def top_overlap(first: np.ndarray, second: np.ndarray, k: int = 10) -> float:
    """How many of the `k` highest classes two lists share.

    Where several classes tie for the last places, no order of theirs is preferred: the result is then the mean over
    all ways to break the tie, and need not be whole. Two constant lists of C classes share k * k / C.

    Args:
        first, second: [C] numbers; a class that is NaN in either is left out.
        k: 1 or more; more than there are classes means all of them.

    Returns:
        A number in [0, k].

    Raises:
        InputError: lists of different lengths.
    """
    first, second = _pairs(first, second)
    return float(_membership(first, k) @ _membership(second, k))


def _membership(values, k):
    """[C] the probability of each class to be among the `k` highest if ties are broken at random."""
    k = min(k, len(values))
    if not k:
        return np.zeros(0)
    last = np.sort(values)[-k]
    above, tied = values > last, values == last
    return above + tied * ((k - above.sum()) / tied.sum())


def _pairs(first, second):
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(f"ranking: found {first.shape} and {second.shape} values, expected two lists of one length")
    known = ~(np.isnan(first) | np.isnan(second))
    return first[known], second[known]
