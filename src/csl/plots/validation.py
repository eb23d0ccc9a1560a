"""What `validate.py --plots` draws."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csl.labels import Annotations, LabelMatrix
from csl.plots.curves import plot_precision_recall
from csl.plots.labels import plot_labels
from csl.plots.predictions import choose_images, plot_contact_sheet, sheet_of
from csl.plots.prior import plot_prior
from csl.plots.training import frequency


def plot_validation(
    folder: str | Path,
    split: str,
    annotations: Annotations,
    indices: np.ndarray,
    probabilities: np.ndarray,
    targets: np.ndarray,
    threshold: float,
    truth: LabelMatrix | None = None,
    chosen: Sequence[int] | None = None,
    shown: int = 24,
) -> list[Path]:
    """The pictures of a measured network: labels, prior, predictions and precision against recall.

    `{split}_labels.png`, `{split}_prior.png` (the mean prediction), `{split}_predictions.png` and
    `{split}_precision_recall.png`.

    Args:
        folder: of the files.
        split: what the images are of: "val", "test", ...
        annotations: images and labels.
        indices: int64 [N], the images that were scored.
        probabilities: [N, C] of those.
        targets: [N, C] in {1, 0, -1}, their labels.
        threshold: over which a class is predicted, in [0, 1].
        truth: all labels of `annotations`, where they are known.
        chosen: classes to draw curves of; None for a few between the best and the worst.
        shown: images of the contact sheet, drawn with the same seed each time.

    Returns:
        The files.
    """
    folder = Path(folder)
    scored = annotations.select(indices)
    name = {"val": "validation"}.get(split, split)
    made = [plot_labels(scored, folder / f"{split}_labels.png")]
    full = None if truth is None else truth.select(indices)
    made.append(
        plot_prior(
            probabilities.mean(0, dtype=np.float64),
            frequency(scored.labels),
            scored.classes,
            folder / f"{split}_prior.png",
            truth=None if full is None or full.counts().unannotated.any() else frequency(full),
            title=f"Class prior, the mean prediction over {len(indices):,} {name} images",
        )
    )
    rows = choose_images(len(indices), shown)
    sheet = sheet_of(scored, rows, probabilities[rows], threshold)
    title = f"{len(rows):,} of {len(indices):,} {name} images"
    made.append(plot_contact_sheet(sheet, folder / f"{split}_predictions.png", title))
    made.append(
        plot_precision_recall(
            probabilities,
            targets,
            scored.classes,
            folder / f"{split}_precision_recall.png",
            chosen,
            title=f"Precision and recall on {len(indices):,} {name} images",
        )
    )
    return made
