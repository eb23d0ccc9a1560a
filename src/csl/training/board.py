"""TensorBoard's event files of a run: scalars, the class prior, and predictions for some validation images."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csl.labels import Annotations
from csl.plots.predictions import choose_images, draw_contact_sheet, sheet_of
from csl.plots.prior import draw_prior, frequency

SHEET_IMAGES = 8
"""Validation images on the sheet of each epoch, always the same: about half a second to draw."""


class Board:
    """The event files of one run. A file is made when something is first written to it.

    What an earlier, stopped run wrote of the same or a later epoch (or step) is hidden.

    Args:
        folder: of the event files.
        train: its class frequencies are drawn beside the prior.
        val: some of its images are shown.
        threshold: probability over which a class counts as predicted.
    """

    def __init__(self, folder: str | Path, train: Annotations, val: Annotations, threshold: float = 0.5):
        self.folder, self.train, self.val, self.threshold = Path(folder), train, val, threshold
        self._epochs = self._steps = None  # writers
        self._annotated: np.ndarray | None = None  # [C], taken with the first epoch

    def write(self, epoch: int, scalars: Mapping[str, Any], prior: np.ndarray, scores: tuple | None = None) -> None:
        """Add an epoch.

        Args:
            epoch: from 1.
            scalars: those that are finite floats are written.
            prior: [C] in [0, 1], NaN where nothing was estimated.
            scores: rows of `val` [S] and probabilities [S, C] of the images to show; None for none.
        """
        if self._epochs is None:
            self._epochs, self._annotated = _writer(self.folder, epoch), frequency(self.train.labels)
        _add_scalars(self._epochs, scalars, epoch)
        estimated = prior[np.isfinite(prior)]
        if len(estimated):
            self._epochs.add_histogram("prior", estimated, epoch)
        page = draw_prior(prior, self._annotated, self.val.classes, title=f"Class prior, epoch {epoch}")
        self._add_page("prior/classes", page, epoch)
        if scores is not None and len(scores[0]):
            rows, probabilities = scores
            sheet = sheet_of(self.val, rows, probabilities, self.threshold)
            title = f"{len(rows)} of {len(self.val):,} validation images, epoch {epoch}"
            self._add_page("predictions", draw_contact_sheet(sheet, title, columns=4), epoch)
        self._epochs.flush()

    def write_step(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Add the results of an evaluation in the middle of an epoch, after `step` steps."""
        if self._steps is None:
            self._steps = _writer(self.folder / "steps", step)
        _add_scalars(self._steps, scalars, step)
        self._steps.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in (self._epochs, self._steps):
            if writer is not None:
                writer.close()

    def _add_page(self, name, page, epoch):
        self._epochs.add_image(name, page.pixels(), epoch, dataformats="HWC")


def _writer(folder, purge_step):
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and a run of one step needs none

    return SummaryWriter(str(folder), purge_step=purge_step)


def _add_scalars(writer, scalars, at):
    for name, value in scalars.items():
        if isinstance(value, float) and math.isfinite(value):
            writer.add_scalar(name, value, at)


def scores_to_show(probabilities: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [S] and probabilities [S, C] of the images that `Board.write` shows, always the same.

    Args:
        probabilities: [N, C] of all validation images that could be read.
        indices: int64 [N], their rows.
    """
    chosen = choose_images(len(indices), SHEET_IMAGES)
    return indices[chosen], probabilities[chosen]
