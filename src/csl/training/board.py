"""TensorBoard's event files of a run: scalars, the class prior, and predictions for some validation images."""

import math
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from csl.labels import Annotations
from csl.plots.optional import tried
from csl.plots.predictions import choose_images, draw_contact_sheet, sheet_of
from csl.plots.prior import draw_prior, frequency

SHEET_IMAGES = 8
"""Validation images on the sheet of each epoch, always the same: about half a second to draw."""


class Board:
    """The event files of one run. A file is made when something is first written to it.

    What an earlier, stopped run wrote of the same or a later epoch (or step) is hidden. What cannot be drawn or written is
    left out with a warning, one for each kind.

    Args:
        folder: of the event files.
        train: its class frequencies are drawn beside the prior.
        val: some of its images are shown.
        threshold: probability over which a class counts as predicted.
        background: as in `csl.plots.Sheet`.
    """

    def __init__(
        self,
        folder: str | Path,
        train: Annotations,
        val: Annotations,
        threshold: float = 0.5,
        background: str = "none",
    ):
        self.folder, self.train, self.val = Path(folder), train, val
        self.threshold, self.background = threshold, background
        self._epochs = self._steps = None  # writers
        self._annotated: np.ndarray | None = None  # [C], taken with the first epoch
        self._tried = partial(tried, said=set())

    def write(self, epoch: int, scalars: Mapping[str, Any], prior: np.ndarray, scores: tuple | None = None) -> None:
        """Add an epoch.

        Args:
            epoch: from 1.
            scalars: those that are finite floats are written.
            prior: [C] in [0, 1], NaN where nothing was estimated.
            scores: rows of `val` [S] and probabilities [S, C] of the images to show; None for none.
        """
        pages = {}
        with self._tried("prior of TensorBoard"):
            if self._annotated is None:
                self._annotated = frequency(self.train.labels)
            page = draw_prior(prior, self._annotated, self.val.classes, title=f"Class prior, epoch {epoch}")
            pages["prior/classes"] = page.pixels()
        with self._tried("predictions of TensorBoard"):
            if scores is not None and len(scores[0]):
                rows, probabilities = scores
                sheet = sheet_of(self.val, rows, probabilities, self.threshold, self.background)
                title = f"{len(rows)} of {len(self.val):,} validation images, epoch {epoch}"
                pages["predictions"] = draw_contact_sheet(sheet, title, columns=4).pixels()
        with self._writing():
            self._epochs = self._epochs or _writer(self.folder, epoch)
            _add_scalars(self._epochs, scalars, epoch)
            estimated = prior[np.isfinite(prior)]
            if len(estimated):
                self._epochs.add_histogram("prior", estimated, epoch)
            for name, pixels in pages.items():
                self._epochs.add_image(name, pixels, epoch, dataformats="HWC")
            self._epochs.flush()

    def write_step(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Add the results of an evaluation in the middle of an epoch, after `step` steps."""
        with self._writing():
            self._steps = self._steps or _writer(self.folder / "steps", step)
            _add_scalars(self._steps, scalars, step)
            self._steps.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in (self._epochs, self._steps):
            if writer is not None:
                with self._writing():
                    writer.close()

    @contextmanager
    def _writing(self):
        """Write in the block. The thread that TensorBoard writes in is to raise its fault here, and not print it, too."""
        hook, threading.excepthook = threading.excepthook, lambda _: None
        try:
            with self._tried(self.folder):
                yield
        finally:
            threading.excepthook = hook


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
