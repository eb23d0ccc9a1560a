"""How sure an average precision is: the same number on images that are drawn with replacement.

The draws depend on the number of images alone, so that two networks on the same images are compared draw by draw.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from csl.machine.draws import generator
from csl.metrics.known import KnownScores

DRAWS = 100
"""Of the images."""

DEVIATIONS = 1.645
"""Standard deviations on each side of a number: 90 % of a normal distribution."""

_BLOCK = 1 << 22  # entries of the draws of a class at a time


def drawn_images(images: int, draws: int = DRAWS) -> np.ndarray:
    """How often each image is in each draw: uint8 [1 + draws, images]; the first row has each image once."""
    weights = np.ones((1 + draws, images), np.uint8)  # a thousand draws of one image are rarer than 255 of it
    random = generator("bootstrap", 0)
    for row in weights[1:]:
        row[:] = np.bincount(random.integers(0, images, images), minlength=images)
    return weights


def average_precision_of_draws(known: KnownScores, draws: int = DRAWS) -> np.ndarray:
    """Average precision (`csl.metrics.average_precision`) of each class on all images, then on each draw of them.

    Args:
        known: the scores of the annotated entries.
        draws: of N images with replacement; the same draws for every network on as many images.

    Returns:
        float64 [C, 1 + draws] in [0, 1]; NaN where a class has no known positive or no known negative (among those drawn).
    """
    weights = drawn_images(known.num_images, draws)
    with ThreadPoolExecutor() as pool:  # threads: sums and sorting release the interpreter's lock
        found = list(pool.map(lambda entries: _of_class(*entries, weights), known))
    return np.array(found).reshape(-1, 1 + draws)


def spread(of_draws: np.ndarray) -> np.ndarray:
    """Half the width of the interval, `DEVIATIONS` standard deviations, over the last axis [..., draws]; NaNs are no draws."""
    return DEVIATIONS * np.ma.filled(np.ma.masked_invalid(of_draws).std(-1), np.nan)


def _of_class(images, scores, labels, weights):
    """float64 [D] of one class: images, scores and labels [n], weights [D, N]."""
    ap = np.full(len(weights), np.nan)
    if labels.all() or not labels.any():
        return ap
    order = np.argsort(-scores, kind="stable")
    images, scores, hits = images[order], scores[order], labels[order] == 1
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of the runs of equal scores: one threshold each
    step = max(_BLOCK // len(scores), 1)
    for start in range(0, len(weights), step):
        times = weights[start : start + step, images]  # [S, n]
        entries = times.cumsum(1, dtype=np.int32)[:, ends]
        found = (times * hits).cumsum(1, dtype=np.int32)[:, ends]
        new = np.diff(found, axis=1, prepend=0)
        total = found[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw without any
            value = (new * (found / np.maximum(entries, 1))).sum(1) / total
        ap[start : start + step] = np.where((total > 0) & (total < entries[:, -1]), value, np.nan)
    return ap
