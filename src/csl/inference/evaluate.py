"""A network on annotated images: the numbers that `validate.py` prints."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels import Annotations
from csl.machine import distributed
from csl.metrics import averaged_scores, class_table, group_accuracy, mean_average_precision, precision_recall_f1
from csl.predict import Predictor
from csl.predict.scoring import gather_scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a network on annotated images and what follows from them.

    Attributes:
        probabilities: float32 [N, C] of the images that could be read.
        targets: int8 [N, C].
        indices: int64 [N], rows of the annotations.
        numbers: name -> percent.
        classes: a row for each class: AP, positives, negatives, unannotated.
        attributes: a row for each attribute, None without any.
        bad: the images left out, one line each.
    """

    probabilities: np.ndarray
    targets: np.ndarray
    indices: np.ndarray
    numbers: dict[str, float]
    classes: pd.DataFrame
    attributes: pd.DataFrame | None
    bad: list[str]


def evaluate(
    predictor: Predictor,
    annotations: Annotations,
    threshold: float = 0.8,
    batch_size: int = 32,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Evaluation | None:
    """Score every image of `annotations` and compare with what is known about it.

    The processes of a job (`csl.machine.distributed`) score a part of the batches each: the same batches as one process would,
    so that the numbers are the same to the last digit. Rank 0 gets them, the others None.

    Args:
        predictor: the network; its classes may stand in another order than the annotations'.
        annotations: images and labels.
        threshold: of P_C ... F_O, in [0, 1].
        batch_size: images at a time, in each process.
        workers: processes that decode; None for one a core.
        say: prints one line.

    Raises:
        InputError: other classes than the network's, or no image that can be read.
    """
    columns = _columns(predictor, annotations, distributed.by_main(say))
    part = predictor.score(
        annotations.images, batch_size, workers, progress="validation", shared=True, roots=annotations.roots
    )
    scores = gather_scores(part)
    if scores is None:
        return None
    if not len(scores.indices):
        raise InputError(
            f"{annotations.source}: none of the {len(annotations):,} images can be read; {scores.bad[0].reason}"
        )
    probabilities = scores.probabilities[0][:, columns]  # [N, C]
    targets = annotations.labels[scores.indices]  # [N, C]
    return Evaluation(
        probabilities=probabilities,
        targets=targets,
        indices=scores.indices,
        numbers=summarise(probabilities, targets, threshold),
        classes=class_table(probabilities, targets, annotations.classes),
        attributes=group_accuracy(probabilities, targets, annotations.groups) if annotations.groups else None,
        bad=[image.reason for image in scores.bad],
    )


def summarise(probabilities: np.ndarray, targets: np.ndarray, threshold: float) -> dict[str, float]:
    """Both mAPs, P R F per class and overall at `threshold`, and micro, macro and samples averages at 0.5, in percent."""
    numbers = {
        "mAP": mean_average_precision(probabilities, targets),
        "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
        **precision_recall_f1(probabilities, targets, threshold),
    }
    for average, values in averaged_scores(probabilities, targets, 0.5).items():
        numbers |= {f"{average}_{name}": 100 * value for name, value in values.items()}
    return numbers


def _columns(predictor, annotations, say):
    """The network's column for each class of the annotations: by key or name where these agree, else by position."""
    theirs = list(predictor.classes)
    for ours in (list(annotations.keys), list(annotations.classes)):
        if ours == theirs:
            return slice(None)
        if sorted(ours) == sorted(theirs) and len(set(theirs)) == len(theirs):
            column = {name: i for i, name in enumerate(theirs)}
            return [column[name] for name in ours]
    if len(theirs) != len(annotations.classes):
        raise InputError(
            f"{annotations.source}: {len(annotations.classes)} classes, the network has {len(theirs)}; expected the same"
        )
    if not all(name.startswith("class ") for name in theirs):
        unknown = [name for name in theirs if name not in set(annotations.classes)]
        say(f"class names differ (the network has {', '.join(unknown[:3])}, ...): matched by position")
    return slice(None)
