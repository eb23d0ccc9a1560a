"""The questions that unknown labels are, and the first of them by what an answer is worth."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch

from csl.errors import InputError
from csl.labels.class_set import several_values
from csl.suggest.best import Best
from csl.suggest.folds import Folded, fit_calibrated, fit_folds, probabilities
from csl.suggest.material import Material

Worth = Callable[[np.ndarray], np.ndarray]
"""Of probabilities [B, C] in [0, 1] what an answer is worth, [B, C]."""


def folded_of(material: Material) -> Folded:
    """Heads and maps for the material (`csl.suggest.folds`), with a line that says what they reach."""
    rows, features, known = material.sample()
    options = material.options
    fit = fit_calibrated if material.earlier else fit_folds
    annotations = material.annotations
    collected = torch.from_numpy(annotations.as_collected[rows])  # int8 [n, C]
    return fit(
        rows, features, known, options.folds, options.seed, annotations.groups, material.say, collected=collected
    )


def questions(known: np.ndarray, p: np.ndarray, groups: Mapping[str, slice] | None) -> np.ndarray:
    """Which entries are asked about, bool [B, C]: the unknown ones; of the values of an attribute the likeliest, and none
    where the value is known.

    Args:
        known: int8 [B, C] in {1, 0, -1}.
        p: [B, C] probabilities.
        groups: for attributes, the slice of classes of each.
    """
    asked = known == -1
    for group in several_values(groups).values():
        open_ = asked[:, group] & ~(known[:, group] == 1).any(1, keepdims=True)
        likeliest = np.where(open_, p[:, group], -1).argmax(1)[:, None] == np.arange(group.stop - group.start)
        asked[:, group] = open_ & likeliest
    return asked


def first(material: Material, folded: Folded, worth: Worth, top: int, per_class: int | None) -> dict[str, np.ndarray]:
    """The unknown entries whose answers are worth the most, the most first.

    Args:
        material: whose images are gone through once.
        folded: of the material.
        worth: of probabilities.
        top, per_class: how many, and of one class.

    Returns:
        The columns of `csl.suggest.best.Best`: value, row, class; `score`, the probability; and `network`, the network's own.

    Raises:
        InputError: no label is unknown.
    """
    annotations, options = material.annotations, material.options
    best = Best(top, len(annotations.classes), per_class)
    for seen in material.batches("scoring"):
        known = seen.known.numpy()
        t = folded.among_all(seen.rows, seen.features, seen.known)
        p = probabilities(t, folded.delta, seen.known, annotations.groups).numpy()
        value = np.where(questions(known, p, annotations.groups), worth(p), -np.inf)
        best.add(value, seen.rows, score=p, network=torch.sigmoid(seen.logits).numpy())
    found = best.entries()
    if not len(found["row"]):
        raise InputError(
            f"{annotations.source}: no label of the {options.split} split is unknown, expected some; --for errors looks at "
            "known ones"
        )
    return found


def table(found: dict[str, np.ndarray]) -> pd.DataFrame:
    """The table of such entries, as `csl.suggest.options.Purpose` has it."""
    return pd.DataFrame(
        {
            "image": found["row"],
            "class": found["class"],
            "score": found["score"],
            "known": -1,
            "network": found["network"],
        }
    )
