"""Unknown entries that would teach the most."""

import numpy as np
import pandas as pd

from csl.suggest.material import Material
from csl.suggest.unknown import first, folded_of, table

POOL, BLOCK = 4, 2_000
"""Of so many times the entries wanted, those that are unlike each other are chosen; so many of a class are compared at once."""


def suggest(material: Material) -> pd.DataFrame:
    """The unknown entries near the threshold, of classes of which few positives are known, and of images unlike each other."""
    options, positives = material.options, material.annotations.labels.counts().positives
    folded = folded_of(material)
    found = first(material, folded, lambda p: worth(p, positives), POOL * options.top, keep_features=True)
    chosen = spread(found["value"], found["class"], found.pop("features"), options.top)
    return table({name: column[chosen] for name, column in found.items()})


def worth(p: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """What an answer teaches, [B, C], of probabilities [B, C] and the known positives of each class [C]."""
    return p * (1 - p) / (1 + positives)


def spread(value: np.ndarray, classes: np.ndarray, features: np.ndarray, top: int) -> np.ndarray:
    """The entries to ask, so that those of a class are not ten copies of one image; int64 [top], the first to be asked first.

    Entry by entry of a class the one is taken whose value, times one less its likeness to the nearest that was taken, is the
    highest: a greedy choice, as in facility location. Likeness is the cosine of features less their mean, 0 where negative.

    Args:
        value: [n], falling.
        classes: int [n].
        features: [n, F] of the images.
        top: how many are taken, of all classes, by this lowered value.
    """
    x = features.astype(np.float32)
    x -= x.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)
    lowered = np.zeros(len(value))
    for c in np.unique(classes):
        mine = np.flatnonzero(classes == c)
        for start in range(0, len(mine), BLOCK):
            block = mine[start : start + BLOCK]
            alike, nearest = x[block] @ x[block].T, np.zeros(len(block))
            left = np.ones(len(block), bool)
            for _ in range(len(block)):
                now = np.where(left, value[block] * (1 - nearest), -np.inf)
                taken = int(now.argmax())
                lowered[block[taken]], left[taken] = now[taken], False
                nearest = np.maximum(nearest, alike[taken])
    return np.argsort(-lowered, kind="stable")[:top]
