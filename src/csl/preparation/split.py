"""Split images into train, val and test by a seed, with identical images on one side."""

import random
from collections.abc import Sequence

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels.paths import SPLITS

SHARES = (0.8, 0.1, 0.1)
"""Shares of train, val and test."""

SEED = 1337


def grouped_split(names: Sequence[str], groups: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Split images 0.8 / 0.1 / 0.1 so that the images of a group are on one side.

    The groups, in the order of their first names, are shuffled; the first int(0.8 G) of the G groups train, the next
    int(0.1 G) are val, the rest test (val has one group at least). If every image is its own group, this equals the
    split of the package split-folders with the same seed.

    Args:
        names: of the N images, all different.
        groups: [N], equal numbers for images that belong together.
        seed: of the shuffle.

    Returns:
        object [N] of "train", "val" and "test".

    Raises:
        InputError: fewer than three groups.
    """
    first: dict[int, str] = {}
    for name, group in zip(names, groups.tolist(), strict=True):
        first[group] = min(name, first.get(group, name))
    order = sorted(first, key=first.__getitem__)
    if len(order) < len(SPLITS):
        raise InputError(f"found {len(order)} different images, expected {len(SPLITS)} or more to split")
    random.Random(seed).shuffle(order)
    val = max(1, int(SHARES[1] * len(order)))
    train = min(int(SHARES[0] * len(order)), len(order) - 1 - val)
    side = dict.fromkeys(order[:train], "train") | dict.fromkeys(order[train : train + val], "val")
    return np.array([side.get(group, "test") for group in groups.tolist()], dtype=object)


def kept_together(splits: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, int]:
    """A given split, with every group that is on several sides moved to the first of train, val and test that it is on.

    So no image that is validated on was trained on.

    Args:
        splits: object [N] of "train", "val" and "test".
        groups: [N], equal numbers for images that belong together.

    Returns:
        The new split [N] and the number of images that moved.
    """
    place = np.array([SPLITS.index(split) for split in splits])
    moved = np.array(SPLITS, dtype=object)[pd.Series(place).groupby(groups).transform("min")]
    return moved, int((moved != splits).sum())
