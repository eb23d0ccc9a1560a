"""The pictures of `validate.py --plots`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csl.labels import Annotations, LabelMatrix
from csl.plots.curves import draw_precision_recall
from csl.plots.labels import draw_labels
from csl.plots.optional import drawn
from csl.plots.predictions import choose_images, draw_contact_sheet, sheet_of
from csl.plots.prior import draw_prior_of


def plot_validation(
    folder: str | Path,
    split: str,
    annotations: Annotations,
    indices: np.ndarray,
    probabilities: np.ndarray,
    threshold: float,
    truth: LabelMatrix | None = None,
    chosen: Sequence[int] | None = None,
    background: str = "none",
) -> list[Path]:
    """The pictures of a measured network: labels, prior, predictions and precision against recall.

    `{split}_labels.png`, `{split}_prior.png` (the mean prediction), `{split}_predictions.png` and
    `{split}_precision_recall.png`.

    Args:
        folder: of the files.
        split: name of the split: "val", "test", ...
        annotations: images and labels.
        indices: int64 [N], the images that were scored.
        probabilities: [N, C] of those.
        threshold: over which a class is predicted, in [0, 1].
        truth: all labels of `annotations`, if they are known.
        chosen: classes to draw curves of; None for a few between the best and the worst.
        background: as in `csl.plots.Sheet`.

    Returns:
        The files; a picture that cannot be drawn is a warning.
    """
    folder = Path(folder)
    scored = annotations.select(indices)
    name = {"val": "validation"}.get(split, split)
    full = None if truth is None else truth.select(indices)

    def prior():
        title = f"Class prior, the mean prediction over {len(indices):,} {name} images"
        return draw_prior_of(scored, probabilities.mean(0, dtype=np.float64), full, title)

    made = drawn(folder, {f"{split}_labels.png": lambda: draw_labels(scored), f"{split}_prior.png": prior})
    return made + plot_scored(
        scored, probabilities, folder, f"{name} images", f"{split}_", threshold, chosen, background
    )


def plot_scored(
    scored: Annotations,
    probabilities: np.ndarray,
    folder: Path,
    whose: str,
    prefix: str = "",
    threshold: float = 0.5,
    chosen: Sequence[int] | None = None,
    background: str = "none",
) -> list[Path]:
    """`{prefix}predictions.png`, some images with their predictions, and `{prefix}precision_recall.png`.

    Args:
        scored: N images and their labels.
        probabilities: [N, C].
        folder: of the files.
        whose: the images in words, for the titles.
        prefix: of the files' names.
        threshold: over which a class is predicted, in [0, 1].
        chosen: classes to draw curves of; None for a few between the best and the worst.
        background: as in `csl.plots.Sheet`.

    Returns:
        The files; a picture that cannot be drawn is a warning.
    """

    def predictions():
        rows = choose_images(len(scored))  # the same seed each time
        title = f"{len(rows):,} of {len(scored):,} {whose}"
        return draw_contact_sheet(sheet_of(scored, rows, probabilities[rows], threshold, background), title)

    def curves():
        labels = scored.labels[np.arange(len(scored))]
        title = f"Precision and recall on {len(scored):,} {whose}"
        return draw_precision_recall(probabilities, labels, scored.classes, chosen, title)

    return drawn(folder, {f"{prefix}predictions.png": predictions, f"{prefix}precision_recall.png": curves})
