"""What TensorBoard shows of a run: scalars, the class prior, and what the network says of some validation images."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csl.labels import Annotations
from csl.plots.predictions import choose_images, draw_contact_sheet, sheet_of
from csl.plots.prior import draw_prior
from csl.plots.training import frequency

SHOWN = 8
"""Validation images on the sheet of each epoch, always the same: about half a second to draw."""


class Board:
    """The event files of one run, written epoch by epoch.

    Args:
        folder: of the event files.
        train: its class frequencies stand beside the prior.
        val: of whose images some are shown.
        purge_step: epoch from which on TensorBoard forgets what an earlier, stopped run wrote.
        threshold: over which a class is predicted, in [0, 1].
    """

    def __init__(
        self, folder: str | Path, train: Annotations, val: Annotations, purge_step: int, threshold: float = 0.5
    ):
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and not needed by a test of two steps

        self.val, self.threshold = val, threshold
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        self._annotated = frequency(train.labels)

    def write(self, epoch: int, scalars: Mapping[str, Any], prior: np.ndarray, scores: tuple | None = None) -> None:
        """Add an epoch.

        Args:
            epoch: from 1.
            scalars: those that are finite floats are written.
            prior: [C] in [0, 1], NaN where nothing was estimated.
            scores: rows of `val` [S] and probabilities [S, C] of the images to show; None for none.
        """
        for name, value in scalars.items():
            if isinstance(value, float) and math.isfinite(value):
                self._writer.add_scalar(name, value, epoch)
        known = prior[np.isfinite(prior)]
        if len(known):
            self._writer.add_histogram("prior", known, epoch)
        page = draw_prior(prior, self._annotated, self.val.classes, title=f"Class prior, epoch {epoch}")
        self._add_page("prior/classes", page, epoch)
        if scores is not None and len(scores[0]):
            rows, probabilities = scores
            sheet = sheet_of(self.val, rows, probabilities, self.threshold)
            title = f"{len(rows)} of {len(self.val):,} validation images, epoch {epoch}"
            self._add_page("predictions", draw_contact_sheet(sheet, title, columns=4), epoch)
        self._writer.flush()

    def _add_page(self, name, page, epoch):
        self._writer.add_image(name, page.pixels(), epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()


def scores_to_show(probabilities: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [S] and probabilities [S, C] of the images that `Board.write` shows, always the same.

    Args:
        probabilities: [N, C] of all validation images that could be read.
        indices: int64 [N], their rows.
    """
    chosen = choose_images(len(indices), SHOWN)
    return indices[chosen], probabilities[chosen]
