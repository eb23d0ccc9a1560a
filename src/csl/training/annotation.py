"""The annotation model of a run: which share of each class is annotated, where it is there and where it is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from csl.labels import Annotations, LabelMatrix
from csl.labels.trust import escape_cell
from csl.losses.annotation import annotated_shares, annotation_delta
from csl.machine.files import replacing


def shares_known(labels: LabelMatrix) -> Tensor:
    """float64 [2, C] the shares of images in which each class is known to be there, and known not to be."""
    counts = labels.counts()
    return torch.from_numpy(np.stack([counts.positives, counts.negatives]) / max(len(labels), 1))


def shares_of(y: Tensor) -> Tensor:
    """The same of labels [N, C] as a tensor."""
    return torch.stack([(y == 1).double().mean(0), (y == 0).double().mean(0)])


def table(train: Annotations, prior: Tensor, interval: tuple[Tensor, Tensor] | None = None) -> pd.DataFrame:
    """The annotation model by class: prior, annotated share of its positives and negatives, delta (`csl.losses.annotation`).

    Args:
        train: the training split.
        prior: [C] the frequency of each class.
        interval: [C] its lower and upper ends. Shares and delta have an interval then, too: what follows from these ends.
    """
    known = shares_known(train.as_collected)
    columns = {"class": list(train.classes)} | _model(prior, known)
    if interval is not None:
        ends = [_model(end, known) for end in interval]
        for name in ends[0]:
            both = np.sort([end[name] for end in ends], axis=0)  # a greater prior has smaller shares of positives
            columns |= {f"{name}_low": both[0], f"{name}_high": both[1]}
    return pd.DataFrame(columns)


def _model(prior, known):
    """{column: [C]} what follows from a prior."""
    of_positives, of_negatives = annotated_shares(prior, known)
    return {
        "prior": np.asarray(prior, dtype=float),
        "annotated_positives": of_positives.numpy(),
        "annotated_negatives": of_negatives.numpy(),
        "delta": annotation_delta(of_positives, of_negatives).numpy(),
    }


def write(path: Path, model: pd.DataFrame) -> None:
    """Write the table as a CSV."""
    with replacing(path) as temporary:
        model.assign(**{"class": model["class"].map(escape_cell)}).to_csv(temporary, index=False)


def line(model: pd.DataFrame) -> str:
    """The model in one line."""
    low, middle, high = np.quantile(model["delta"], [0, 0.5, 1])
    share = [100 * model[name].median() for name in ("annotated_positives", "annotated_negatives")]
    return (
        f"annotation model (medians over classes): {share[0]:.3g} % of positives and {share[1]:.3g} % of negatives are "
        f"annotated; delta {middle:.3g} ({low:.3g} to {high:.3g}), where 0 leaves un-annotated labels out and more counts "
        "them as negatives"
    )
