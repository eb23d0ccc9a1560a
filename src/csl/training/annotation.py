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


def table(train: Annotations, prior: Tensor) -> pd.DataFrame:
    """The annotation model by class: prior, annotated share of its positives and negatives, delta (`csl.losses.annotation`).

    Args:
        train: the training split.
        prior: [C] the frequency of each class.
    """
    of_positives, of_negatives = annotated_shares(prior, shares_known(train.labels))
    return pd.DataFrame(
        {
            "class": list(train.classes),
            "prior": np.asarray(prior, dtype=float),
            "annotated_positives": of_positives.numpy(),
            "annotated_negatives": of_negatives.numpy(),
            "delta": annotation_delta(of_positives, of_negatives).numpy(),
        }
    )


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
