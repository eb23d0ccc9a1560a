"""Scores to names of classes, and to the columns of an attribute table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from csl.decisions import Decisions
from csl.decisions.decisions import UNSURE
from csl.labels.class_set import several_values


@dataclass(frozen=True)
class Prediction:
    """One predicted class.

    Attributes:
        name: name of the class.
        score: probability in [0, 1].
        attribute: the attribute whose value the class is, None for other classes.
        number: the class, from 0; of an attribute that is unsure its likeliest value.
    """

    name: str
    score: float
    attribute: str | None = None
    number: int | None = field(default=None, compare=False)


def name_scores(
    probabilities: np.ndarray,
    classes: Sequence[str],
    groups: dict[str, slice] | None = None,
    threshold: float = 0.7,
    top_k: int = 30,
    decisions: Decisions | None = None,
) -> list[Prediction]:
    """The predicted classes of an image.

    An attribute with several values gets the most likely value, whatever its score. Of all other classes those with a
    score over `threshold` are predicted, the most likely first, at most `top_k`. With decisions scores are calibrated
    probabilities, the threshold is that of each class, and an attribute whose best value is too unlikely is "unsure".

    Args:
        probabilities: [C] in [0, 1].
        classes: C names.
        groups: attribute -> slice of classes.
        threshold: in [0, 1].
        top_k: 1 or more.
        decisions: of the network; None for scores as they are.
    """
    if decisions is not None:
        probabilities, threshold = decisions.calibrated(probabilities), decisions.thresholds
    single = np.ones(len(classes), dtype=bool)
    predictions = []
    for attribute, group in several_values(groups).items():
        single[group] = False
        best, score, sure = _best_value(attribute, probabilities[group], decisions)
        name = classes[group.start + best] if sure else f"{attribute} {UNSURE}"
        predictions.append(Prediction(name, score, attribute, group.start + best))
    over = np.flatnonzero(single & (probabilities > threshold))
    over = over[np.argsort(-probabilities[over], kind="stable")][:top_k].tolist()
    return predictions + [Prediction(classes[c], float(probabilities[c]), number=c) for c in over]


def _best_value(attribute, probabilities, decisions):
    """Which of the values [K] is the best, its score, and whether it is sure."""
    if decisions is not None:
        return decisions.best_value(attribute, probabilities)
    best = int(probabilities.argmax())
    return best, float(probabilities[best]), True


def attribute_table(
    table: pd.DataFrame,
    probabilities: np.ndarray,
    groups: dict[str, slice],
    values: dict,
    decisions: Decisions | None = None,
) -> pd.DataFrame:
    """The rows of an attribute CSV with a column `Predicted NAME Type` added for each attribute.

    Args:
        table: N rows as they were read.
        probabilities: [N, C].
        groups: attribute -> slice of classes.
        values: attribute -> the value of each of its classes, from `attribute_values`.
        decisions: as `name_scores`.
    """
    table = table.copy()
    thresholds = np.full(probabilities.shape[1], 0.5) if decisions is None else decisions.thresholds
    probabilities = probabilities if decisions is None else decisions.calibrated(probabilities)
    for attribute, group in groups.items():
        block = probabilities[:, group]  # [N, G]
        if block.shape[1] > 1:
            found = [_best_value(attribute, row, decisions) for row in block]
            chosen = [values[attribute][best] if sure else UNSURE for best, _, sure in found]
        else:
            chosen = [values[attribute][int(p)] for p in block[:, 0] > thresholds[group][0]]
        table[f"Predicted {attribute.replace('_', ' ').title()} Type"] = chosen
    return table


def attribute_values(classes: Sequence[str], groups: dict[str, slice]) -> dict[str, list[str]]:
    """The values of each attribute in its CSV column, class by class: "3" for `Neck 3`, "Red" for `colour:Red`."""
    values = {}
    for attribute, group in groups.items():
        names = list(classes[group])
        if len(names) == 1:
            values[attribute] = ["0", "1"]
        else:
            values[attribute] = [_value_in(name, f"{attribute}:") for name in names]
    return values


def _value_in(name, prefix):
    """The last part of a class's name."""
    return name.removeprefix(prefix) if name.startswith(prefix) else name.rsplit(" ", 1)[-1]
