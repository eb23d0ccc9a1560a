"""Unknown entries that would teach the most.

An answer about an entry of probability p teaches the more the less it can be foretold, p (1 - p), and the fewer positives of
its class are known. Each question of a class makes the next one worth less, and so does one about an image like it:

    p (1 - p) / (1 + n_c + k) * (1 - likeness ** 4)

with n_c known positives, k questions of the class before, and the likeness to the nearest of their images. The fourth power
leaves out copies and little else: what is only alike is near the threshold for a reason.
"""

import numpy as np
import pandas as pd

from csl.suggest.material import Material
from csl.suggest.unknown import first, folded_of, table

POOL, BLOCK = 4, 2_000
"""Of so many times the entries wanted, those that are unlike each other are chosen; so many of a class are compared at once."""

SHARPNESS = 4
"""The power of the likeness."""


def suggest(material: Material) -> pd.DataFrame:
    """The unknown entries near the threshold, of classes of which few positives are known, and of images unlike each other."""
    options, positives = material.options, material.annotations.labels.counts().positives
    worth, pool = (lambda p: p * (1 - p) / (1 + positives)), POOL * options.top
    found = first(material, folded_of(material), worth, pool, options.per_class)
    chosen = teaching(found["score"], found["class"], material.features(found["row"]), positives)[: options.top]
    return table({name: column[chosen] for name, column in found.items()})


def teaching(p: np.ndarray, classes: np.ndarray, features: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """The order in which entries teach the most, int64 [n].

    In a class the entry of the highest value of those that are left comes next: a greedy choice, as in facility location.
    Likeness is the cosine of features less their mean, 0 where it is negative.

    Args:
        p: [n] probabilities.
        classes: int [n].
        features: [n, F] of the images.
        positives: [C] known positives of each class.
    """
    x = features.astype(np.float32)
    x -= x.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)
    uncertain, value = p.astype(float) * (1 - p), np.zeros(len(p))
    for c in np.unique(classes):
        mine = np.flatnonzero(classes == c)
        mine = mine[np.argsort(-uncertain[mine], kind="stable")]
        for start in range(0, len(mine), BLOCK):
            block = mine[start : start + BLOCK]
            alike, nearest = x[block] @ x[block].T, np.zeros(len(block))
            left = np.ones(len(block), bool)
            for before in range(start, start + len(block)):
                now = np.where(left, uncertain[block] * (1 - nearest**SHARPNESS), -1)
                taken = int(now.argmax())
                value[block[taken]], left[taken] = now[taken] / (1 + positives[c] + before), False
                nearest = np.maximum(nearest, alike[taken]).clip(max=1)
    return np.argsort(-value, kind="stable")
