"""Pictures of a run: loss and mAP, labels, prior, and predictions of its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from csl.labels import Annotations, LabelMatrix
from csl.labels.trust import unescape_cell
from csl.plots.annotation import draw_annotation
from csl.plots.labels import draw_labels
from csl.plots.optional import drawn
from csl.plots.prior import draw_prior_of
from csl.plots.style import BODY, CURVES, SMALL, SOFT, Page, styled
from csl.plots.validation import plot_scored
from csl.predict.scoring import Scores
from csl.prior import read_prior
from csl.runs.folder import RunFolder, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = (
    ("mAP_model", "annotated, regular weights", CURVES[2], "-"),
    ("mAP_ema", "annotated, EMA", CURVES[0], (0, (5, 2))),
    ("mAP_negative_ema", "un-annotated negative, EMA", SOFT, (0, (1.5, 1.5))),
)


def plot_training(
    run: RunFolder,
    train: Annotations,
    full_labels: LabelMatrix | None = None,
    truth: LabelMatrix | None = None,
    val: Annotations | None = None,
    scores: Scores | None = None,
    background: str = "none",
) -> list[Path]:
    """The pictures of a finished run, into its `plots/`.

    `training.png` (loss and mAP), `labels.png` (`draw_labels`), `prior.png` (the run's estimate of the class prior) and,
    if there are scores, `predictions.png` and `precision_recall.png`.

    Args:
        run: a run with its `log.jsonl` and `train_avg_preds.csv`.
        train: what it was trained on.
        full_labels: the training labels before some were left out.
        truth: all labels of the training split, where they are known.
        val: what it was validated on.
        scores: of its best weights, on images of `val`.
        background: as in `csl.plots.Sheet`.

    Returns:
        The files; a picture that cannot be drawn is a warning.
    """
    made = drawn(
        run.plots,
        {
            "training.png": lambda: draw_curves(read_log(run.log)),
            "labels.png": lambda: draw_labels(train, full_labels),
        },
    )
    made += plot_run_prior(run, train, truth)
    if val is not None and scores is not None and len(scores.indices):
        scored, whose = val.select(scores.indices), "validation images, by the best weights"
        made += plot_scored(scored, scores.probabilities[0], run.plots, whose, background=background)
    return made


def plot_run_prior(run: RunFolder, train: Annotations, truth: LabelMatrix | None = None) -> list[Path]:
    """`plots/prior.png` of a run, from its `train_avg_preds.csv`; returns the file, none where it cannot be drawn.

    Args:
        run: a run that has it.
        train: what it was trained on.
        truth: all labels of those images; not shown as the truth if any of them is un-annotated.
    """

    def draw():
        prior = read_prior(run.train_prior, train.classes).numpy()
        return draw_prior_of(train, prior, truth, "Class prior, the mean prediction over the last epoch")

    return drawn(run.plots, {"prior.png": draw})


def plot_run_annotation(run: RunFolder, threshold: float) -> list[Path]:
    """`plots/annotation.png` of a run, from its `annotation_model.csv`; none where it has none or it cannot be drawn."""
    if not run.annotation_model.exists():
        return []
    model = pd.read_csv(run.annotation_model, na_filter=False)
    model["class"] = model["class"].map(unescape_cell)
    return drawn(run.plots, {"annotation.png": lambda: draw_annotation(model, threshold)})


@styled()
def draw_curves(log: list[dict]) -> Page:
    """Training loss and validation mAP over the epochs of a `log.jsonl`."""
    page = Page(12.9, 4.6)
    last = f"{len(log):,} epochs" if len(log) != 1 else "1 epoch"
    page.title(f"Training, {last}")
    left = page.axes(0.85, 1.1, 4.1, 2.9, xlabel="epoch")
    right = page.axes(5.85, 1.1, 4.1, 2.9, xlabel="epoch")
    page.text(0.85, 0.72, "Training loss per image", BODY + 1, weight="bold")
    page.text(5.85, 0.72, "Validation mAP, %", BODY + 1, weight="bold")
    draw_loss(left, log)
    y = 1.35
    for label, colour, dash in draw_precision(right, log):
        page.line(10.2, y, 10.55, colour, dash)
        page.text(10.65, y, label, SMALL, va="center_baseline")
        y += 0.24
    return page


def draw_loss(axes: Axes, log: list[dict]) -> None:
    """The training loss over the epochs of a `log.jsonl`."""
    axes.plot(_values(log, "epoch"), _values(log, "loss"), color=CURVES[0], **_marks(log))
    _finish(axes)


def draw_precision(axes: Axes, log: list[dict]) -> list[tuple[str, str, str | tuple]]:
    """The validation mAPs over the epochs of a `log.jsonl`; returns (label, colour, dash) of each line, for a legend."""
    drawn_lines = []
    for key, label, colour, dash in _LINES:
        values = _values(log, key)
        if np.isnan(values).all():  # a run without moving average, labels without a defined AP
            continue
        axes.plot(_values(log, "epoch"), values, color=colour, ls=dash, label=label, **_marks(log))
        drawn_lines.append((label, colour, dash))
    _finish(axes)
    return drawn_lines


def _marks(log):
    return {"marker": "o" if len(log) <= 60 else "", "ms": 3.5}


def _finish(axes):
    axes.grid()
    axes.margins(y=0.08)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _values(log, key):
    values = [entry.get(key) for entry in log]
    return [np.nan if value is None else value for value in values]
