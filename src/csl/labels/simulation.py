"""Leave out labels on purpose: the schemes by which the literature makes partial labels out of full ones.

Every scheme turns a LabelMatrix into a new one in which some entries are un-annotated; none is ever changed
otherwise, and what is unknown already stays unknown.
"""

import math
from itertools import pairwise

import numpy as np

from csl.errors import InputError
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.machine.draws import generator

Rng = np.random.Generator | np.random.RandomState

DEFAULT_LIMIT, DEFAULT_SHARE = 1000, 0.5  # the param of fpc, and of every other scheme that takes one
_BLOCK = 1 << 22  # labels at a time


def simulate(labels: LabelMatrix, scheme: str, param: float | None = None, rng: Rng | None = None) -> LabelMatrix:
    """Leave out labels of a LabelMatrix by one of the `schemes`.

    Args:
        labels: LabelMatrix [N, C].
        scheme: a key of `schemes`.
        param: what the scheme takes; None is its default.
        rng: numpy Generator or RandomState, from the run's seed; the same state gives the same labels. None is
            the generator of a run with seed 0.

    Returns:
        LabelMatrix [N, C] with fill -1.

    Raises:
        InputError: an unknown scheme, or a param that it does not take.
    """
    if scheme not in schemes:
        raise InputError(f"--simulate_partial_type: found {scheme!r}, expected one of {', '.join(schemes)}")
    if scheme in WITHOUT_PARAM and param is not None:
        raise InputError(f"--simulate_partial_param: found {param!r}, expected none for {scheme}")
    return schemes[scheme](labels, param, generator("mask", 0) if rng is None else rng)


def fix_per_class(labels: LabelMatrix, param: float | None, rng: Rng) -> LabelMatrix:
    """FPC: `param` positives (default 1000) of each class stay and, independently, `param` negatives.

    A class that has fewer keeps them all. Class by class `rng.choice` without replacement draws first among the rows
    of the positives, then of the negatives. arXiv 2110.10955.

    Where the matrix is un-annotated by default (fill -1) the work follows the listed labels, not N x C.
    """
    limit = DEFAULT_LIMIT if param is None else param
    if isinstance(limit, bool) or not _is_number(limit) or limit != int(limit) or limit < 1:
        raise InputError(f"--simulate_partial_param: found {limit!r}, expected a positive integer for fpc")
    limit = int(limit)

    of_class = labels.T  # the rows of each class in order, which the draw depends on
    kept = []  # rows of (class 0 positive, class 0 negative, class 1 positive, ...)
    for start, end in pairwise(of_class.indptr):
        for value in (POSITIVE, NEGATIVE):
            candidates = _rows_with(value, labels, of_class.indices[start:end], of_class.values[start:end])
            kept.append(rng.choice(candidates, min(limit, len(candidates)), replace=False))
    sizes = [len(chosen) for chosen in kept]
    return LabelMatrix.from_entries(
        np.concatenate(kept) if kept else np.zeros(0, np.int64),
        np.repeat(np.repeat(np.arange(labels.num_classes), 2), sizes),
        np.repeat(np.tile(np.array([POSITIVE, NEGATIVE], np.int8), labels.num_classes), sizes),
        labels.shape,
        fill=UNANNOTATED,
    )


def random_per_sample(labels: LabelMatrix, param: float | None, rng: Rng) -> LabelMatrix:
    """RPS: each known label is left out with probability `param` (default 0.5). arXiv 2110.10955.

    One uniform draw per known label, image by image and class by class.
    """
    probability = _share(param, "the probability to drop a label")
    return _keep(labels, lambda rows, values: rng.random(len(values)) >= probability)


def uniform_known(labels: LabelMatrix, param: float | None, rng: Rng) -> LabelMatrix:
    """The share `param` (default 0.5) of each image's known labels stays, drawn uniformly.

    The "known proportion" of Durand et al., CVPR 2019 (arXiv 1902.09720): the same number of labels per image, where
    RPS has it vary. Rounded half up.
    """
    share = _share(param, "the share of known labels")

    def keep(rows, values):
        order, rank, known = _ranks(rows, rng.random(len(rows)))
        kept = np.empty(len(rows), dtype=bool)
        kept[order] = rank < np.floor(share * known + 0.5)
        return kept

    return _keep(labels, keep)


def single_positive(labels: LabelMatrix, param: float | None, rng: Rng) -> LabelMatrix:
    """One positive label per image stays, drawn uniformly, and nothing else.

    "Single positive labels" of Cole et al., CVPR 2021 (arXiv 2106.09708). An image without positives keeps nothing.
    """

    def keep(rows, values):
        positives = np.flatnonzero(values == POSITIVE)
        order, rank, _ = _ranks(rows[positives], rng.random(len(positives)))
        kept = np.zeros(len(rows), dtype=bool)
        kept[positives[order[rank == 0]]] = True
        return kept

    return _keep(labels, keep)


def positives_only(labels: LabelMatrix, param: float | None, rng: Rng) -> LabelMatrix:
    """All positives stay and every negative is left out ("positive and unlabelled"). Nothing is drawn."""
    return _keep(labels, lambda rows, values: values == POSITIVE)


def drop_positives(labels: LabelMatrix, param: float | None, rng: Rng) -> LabelMatrix:
    """Each positive is left out with probability `param` (default 0.5); negatives stay known.

    What is left out is un-annotated, as if nobody had looked; that a missed positive were recorded as a negative is
    label noise, another thing. One uniform draw per positive, image by image and class by class.
    """
    probability = _share(param, "the probability to drop a positive")

    def keep(rows, values):
        kept = np.ones(len(rows), dtype=bool)
        positive = values == POSITIVE
        kept[positive] = rng.random(positive.sum()) >= probability
        return kept

    return _keep(labels, keep)


schemes = {
    "fpc": fix_per_class,
    "fix_per_class": fix_per_class,
    "rps": random_per_sample,
    "random_per_sample": random_per_sample,
    "uniform_known": uniform_known,
    "single_positive": single_positive,
    "positives_only": positives_only,
    "drop_positives": drop_positives,
}
WITHOUT_PARAM = ("single_positive", "positives_only")
"""Schemes that take no parameter."""


def _keep(labels, keep):
    """The matrix, fill -1, of the known labels that `keep` says.

    It is called on blocks of whole images, from the first to the last, with the rows (int64 [n], rising) and values
    (int8 [n]) of their known labels, image by image and class by class, and returns bool [n]. How labels are stored
    changes none of that; where un-annotated ones are not listed (fill -1) the work follows the known labels.
    """
    lengths, indices, values = [], [], []
    for start, stop in _blocks(labels):
        row, index, value = _known(labels, start, stop)
        kept = keep(row, value)
        lengths.append(np.bincount(row[kept] - start, minlength=stop - start))
        indices.append(index[kept])
        values.append(value[kept])
    indptr = np.concatenate([[0], *lengths]).cumsum()
    return LabelMatrix(
        indptr,
        np.concatenate(indices) if indices else labels.indices[:0],
        np.concatenate(values) if values else labels.values[:0],
        labels.num_classes,
        UNANNOTATED,
    )


def _blocks(labels):
    """(first row, one past the last) of blocks with about `_BLOCK` labels to look at, and at least one row."""
    start = 0
    while start < len(labels):
        if labels.fill == UNANNOTATED:
            stop = int(np.searchsorted(labels.indptr, labels.indptr[start] + _BLOCK, side="right")) - 1
        else:
            stop = start + _BLOCK // max(labels.num_classes, 1)
        stop = min(max(stop, start + 1), len(labels))
        yield start, stop
        start = stop


def _known(labels, start, stop):
    """Rows, class ids and values of the known labels of some images."""
    if labels.fill == UNANNOTATED:
        indptr = labels.indptr[start : stop + 1]
        listed = slice(indptr[0], indptr[-1])
        return np.repeat(np.arange(start, stop), np.diff(indptr)), labels.indices[listed], labels.values[listed]
    dense = labels[start:stop]
    rows, classes = np.nonzero(dense != UNANNOTATED)
    return rows + start, classes.astype(labels.indices.dtype), dense[rows, classes]


def _ranks(rows, draws):
    """The order by row, then draw; and, in that order, each entry's rank within its row and the row's entries."""
    order = np.lexsort((draws, rows))
    _, first, counts = np.unique(rows, return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(first, counts)
    return order, rank, np.repeat(counts, counts)


def _rows_with(value, labels, rows, values):
    """Rows, rising, in which one class has this label, given the class's listed rows and values."""
    if labels.fill != value:
        return rows[values == value]
    has_value = np.ones(len(labels), dtype=bool)
    has_value[rows[values != value]] = False
    return np.flatnonzero(has_value)


def _is_number(param):
    return isinstance(param, (int, float, np.integer, np.floating)) and math.isfinite(param)


def _share(param, what):
    share = DEFAULT_SHARE if param is None else param
    if not _is_number(share) or not 0 <= share <= 1:
        raise InputError(f"--simulate_partial_param: found {share!r}, expected {what}, from 0 to 1")
    return float(share)
