"""Balance a training split: augmented copies or sampling weights for images with rare attribute values.

`values` are int [N, A]: the index of each image's value of each attribute, -1 where it is unknown.
"""

import numpy as np

from csl.labels import POSITIVE, UNANNOTATED, Annotations

COPIES = ((20, 39), (15, 29), (5, 19))
"""The fork's rule: (least sum of weights, number of augmented copies)."""

AWAY = 2
"""The fork's rule: an image is copied if so many of its attributes differ from their most common value."""

CAP = 10.0
"""The largest weight of one value in `sampling_weights`."""


def value_indices(annotations: Annotations) -> np.ndarray:
    """The index of each image's value of each attribute, int64 [N, A]; -1 where unknown, 0 and 1 for yes/no columns."""
    labels = annotations.labels.to_dense()  # [N, C]
    values = np.full((len(annotations), len(annotations.groups)), UNANNOTATED, dtype=np.int64)
    for column, group in enumerate(annotations.groups.values()):
        block = labels[:, group]  # [N, G]
        if block.shape[1] == 1:
            values[:, column] = block[:, 0]
        else:
            known = (block == POSITIVE).any(axis=1)
            values[known, column] = block[known].argmax(axis=1)
    return values


def original_copies(values: np.ndarray) -> np.ndarray:
    """The number of augmented copies of each image by the fork's rule, int64 [N].

    A value weighs max count / count of its attribute, an unknown one 0; s is the sum over an image's attributes. Where at
    least two attributes are not at their most common value (an unknown one is not; of equally common ones the first is),
    s of 20 and more gives 39 copies, of 15 and more 29, of 5 and more 19. The rule multiplies unknown values, too.
    """
    total = np.zeros(len(values))
    away = np.zeros(len(values), dtype=np.int64)
    for column in values.T:
        known = column >= 0
        counts = np.bincount(column[known])
        common = counts.argmax() if counts.size else 0
        away += column != common
        if counts.size:
            total[known] += (counts.max() / np.maximum(counts, 1))[column[known]]
    copies = np.select([total >= least for least, _ in COPIES], [number for _, number in COPIES], 0)
    return np.where(away >= AWAY, copies, 0)


def sampling_weights(values: np.ndarray, cap: float = CAP) -> np.ndarray:
    """Sampling weights float64 [N] with mean 1: rare values are drawn more often, unknown ones as often as they occur.

    A value weighs n / (K count), for the n images whose value of that attribute is known and the K values that occur
    (scikit-learn's "balanced"), at most `cap`; an image weighs the mean over its known attributes. The weights of the images
    whose value is unknown, and of those whose value is known, are then scaled for one attribute after the other until
    nothing changes (iterative proportional fitting, Deming and Stephan 1940), so that the expected share of the draws in
    which an attribute is unknown is for each of them that of the data: no unknowns are added.
    """
    known = values >= 0  # [N, A]
    total = np.zeros(len(values))
    for column, is_known in zip(values.T, known.T, strict=True):
        counts = np.bincount(column[is_known])
        if counts.size:
            weights = is_known.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
            total[is_known] += np.minimum(weights, cap)[column[is_known]]
    weights = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), 1.0)
    return _with_shares(weights / weights.sum(), known) * len(values)


def _with_shares(weights, known, tolerance=1e-9, rounds=1000):
    """Weights [N], which sum to 1, scaled so that each attribute is known in its share of the images."""
    shares = known.mean(axis=0)  # [A]
    attributes = np.flatnonzero((shares > 0) & (shares < 1))
    for _ in range(rounds):
        if np.abs(weights @ known - shares).max() < tolerance:
            break
        for a in attributes:
            now = weights[known[:, a]].sum()
            weights = weights * np.where(known[:, a], shares[a] / now, (1 - shares[a]) / (1 - now))
    return weights / weights.sum()
