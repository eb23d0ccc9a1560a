"""Divide images into training and validation: a share by a seed, stratified over the labels, with groups kept whole."""

import math
import re

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.column_names import letters
from csl.labels.matrix import NEGATIVE, POSITIVE, LabelMatrix
from csl.labels.table import UNKNOWN
from csl.machine.draws import generator

_OWNERS = (
    "patient", "participant", "proband", "subject", "person", "individual", "animal", "lesion", "specimen", "case", "fall",
    "study", "exam", "visit",
)  # fmt: skip
_STEPS = 4e9  # groups x labels x labels: the rarest labels are stratified that this allows, within some seconds


def validation_rows(labels: LabelMatrix, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw the images of the validation split by iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011).

    A group counts as one image that has the known labels of all of its images. Positives and negatives of a class are
    stratified each on their own, and unknown labels count as neither. The rarest come first: what one group has alone
    stays in training.

    Args:
        labels: [N, C].
        groups: [N], equal numbers for images that belong together.
        share: of the groups for validation, in (0, 1).
        seed: of the draw.

    Returns:
        Rows, int64, in order: at least one group, and not all.

    Raises:
        InputError: fewer than two groups.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"--val_split: found {len(names)} different images, expected 2 or more to split")
    wanted = min(max(round(share * len(names)), 1), len(names) - 1)
    known = _known(labels, group, len(names))
    random_state = int(generator("split", seed).integers(2**31))
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit  # imports scikit-learn

    for least in (1, 2, math.inf):  # where most labels are of one group alone, validation would be left with too little
        columns = known[:, known.sum(axis=0) >= least]
        columns = np.pad(columns, ((0, 0), (0, max(0, 2 - columns.shape[1]))))  # it takes two or more
        splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=wanted, random_state=random_state)
        _, val = next(splitter.split(columns, columns))
        if wanted / 2 <= len(val) < len(names):
            break
    return np.flatnonzero(np.isin(group, val))


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups [N] of what either of two groupings [N] puts together, int64."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, left = np.unique(first, return_inverse=True)
    _, right = np.unique(second, return_inverse=True)
    count = len(left) + len(right)  # nodes: the groups of either, joined by each image
    edges = coo_array((np.ones(len(left)), (left, len(left) + right)), shape=(count, count))
    return connected_components(edges, directed=False)[1][left].astype(np.int64)


def owners(annotations: Annotations) -> tuple[str, np.ndarray] | None:
    """The ignored column of a table that says whose each image is, and groups [N] of one owner, int64; None without one.

    It is that of patients, else of other subjects, lesions or specimens, else of cases and studies. An image without an owner
    is a group of its own.
    """
    ignored = {letters(column.name): column.name for column in annotations.columns if column.role == "ignored"}
    for owner in _OWNERS:
        called = re.compile(f"{owner}s?(u?id|nr|no|num|code|key|name)?")
        for name in [name for plain, name in ignored.items() if called.fullmatch(plain)]:
            texts = annotations.table[name].str.strip()
            texts = texts.where(~texts.str.lower().isin(UNKNOWN), [f"\0{row}" for row in range(len(texts))])
            _, groups = np.unique(texts.to_numpy(dtype=str), return_inverse=True)
            if 1 < groups.max() + 1 < len(groups):
                return name, groups.astype(np.int64)
    return None


def _known(labels, group, count):
    """int8 [groups, labels]: whether an image of the group has a known label, of the rarest classes, positive or negative."""
    counts = labels.counts()
    ways = [(POSITIVE, c, n) for c, n in enumerate(counts.positives.tolist())]
    ways += [(NEGATIVE, c, n) for c, n in enumerate(counts.negatives.tolist())]
    most = max(2, int(math.sqrt(_STEPS / count)))
    ways = sorted((way for way in ways if 0 < way[2] < len(group)), key=lambda way: way[2])[:most]
    known = np.zeros((count, len(ways)), np.int8)
    of_class = {value: [(k, c) for k, (v, c, _) in enumerate(ways) if v == value] for value in (POSITIVE, NEGATIVE)}
    for start in range(0, len(group), 4096):
        block, rows = labels[np.arange(start, min(start + 4096, len(group)))], group[start : start + 4096]
        for value, places in of_class.items():
            if places:
                ours, theirs = zip(*places, strict=True)
                has = (block[:, list(theirs)] == value).astype(np.int8)
                np.maximum.at(known, (rows[:, None], np.array(ours)[None, :]), has)
    return known
