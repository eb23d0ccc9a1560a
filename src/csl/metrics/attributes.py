"""Accuracy of the predicted values of attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csl.errors import InputError
from csl.metrics.arrays import POSITIVE, UNANNOTATED, host, inputs, tri_state

if TYPE_CHECKING:
    import pandas as pd

    from csl.metrics.arrays import Array, Targets


def group_accuracy(scores: Array, targets: Targets, groups: dict[str, slice], threshold: float = 0.5) -> pd.DataFrame:
    """Accuracy of each attribute's predicted value, on the images where its value is known.

    An attribute is a slice of classes of which one is true: its prediction is the class with the highest score (the
    first of equals), and its value is known where one class is positive. An attribute of a single class is a yes/no
    question: the prediction is `score > threshold`, and the value is known where the entry is annotated.

    Args:
        scores: float [N, C]; probabilities, or logits with a `threshold` that suits them.
        targets: [N, C] in {1, 0, -1}.
        groups: attribute name -> slice of classes (`Annotations.groups`).
        threshold: used for attributes of a single class, on the scale of the scores.

    Returns:
        A table with one row per attribute, in the order of `groups`: `attribute`; `known`, the number of images it was
        measured on; and in percent `accuracy`; `balanced_accuracy`, the mean recall of the values that occur
        (`sklearn.metrics.balanced_accuracy_score`); `majority`, the accuracy of always guessing the most frequent
        value. Percentages are NaN where no image is known.

    Raises:
        InputError: as `average_precision`, an image has two positives in one attribute, or a slice is empty.
    """
    import pandas as pd

    scores, targets = inputs(scores, targets)
    by_class, rows = targets.T, []
    for name, group in groups.items():
        values, labels = scores[:, group], host(by_class[group])  # [N, G], [G, N]
        size = values.shape[1]
        if size == 0:
            raise InputError(f"groups: attribute {name!r} has no classes ({group}), expected at least 1")
        labels = tri_state(labels, slice(*group.indices(scores.shape[1]))).T  # [N, G]
        positive = labels == POSITIVE
        if size == 1:
            known = labels[:, 0] != UNANNOTATED
            truth, guess = positive[known, 0].astype(np.int64), values[known, 0] > threshold
        else:
            several = positive.sum(axis=1) > 1
            if several.any():
                raise InputError(
                    f"targets: row {int(several.argmax())} has several positives in attribute {name!r}, expected one"
                )
            known = positive.any(axis=1)
            truth, guess = positive[known].argmax(axis=1), values[known].argmax(axis=1)
        if np.isnan(values[known]).any():
            raise InputError(f"scores: found NaN in attribute {name!r}, expected numbers")
        support = np.bincount(truth, minlength=max(size, 2))
        right = np.bincount(truth[truth == guess], minlength=max(size, 2))
        total, occurring = int(support.sum()), support > 0
        rows.append(
            {
                "attribute": name,
                "known": total,
                "accuracy": 100 * right.sum() / total if total else np.nan,
                "balanced_accuracy": 100 * (right[occurring] / support[occurring]).mean() if total else np.nan,
                "majority": 100 * support.max() / total if total else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["attribute", "known", "accuracy", "balanced_accuracy", "majority"])
