"""The drawings of a page, as SVG that stands in its text: letters stay letters, and lines are sharp at any size."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from csl.plots.style import CURVES, SOFT, styled
from csl.plots.training import draw_loss, draw_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10
"""Of a reliability diagram, of equal width."""


def svg(draw: Callable[[Axes], object], xlabel: str, ylabel: str, size: tuple[float, float] = (4.4, 2.9)) -> Markup:
    """An inline SVG of what `draw` puts on axes; `size` in inches is its shape, and the page decides how large it is."""
    with styled():
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        draw(axes)
        file = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "csl"}):
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])  # matplotlib escapes names


def training(log: list[dict]) -> list[tuple[str, Markup]]:
    """(title, drawing) of the loss and the mAP over the epochs of a `log.jsonl`; [] of an empty one."""

    def precision(axes):
        if draw_precision(axes, log):
            axes.legend(fontsize=7)

    if not log:
        return []
    charts = [("Validation mAP, %", svg(precision, "epoch", ""))]
    if any(entry.get("loss") is not None for entry in log):  # a probe has none
        charts.insert(0, ("Training loss per image", svg(lambda axes: draw_loss(axes, log), "epoch", "")))
    return charts


def runs(logs: dict[str, list[dict]]) -> Markup:
    """The mAP on annotated entries of several runs over their epochs: that of the moving average where there is one."""

    def draw(axes):
        for (name, log), colour in zip(logs.items(), np.resize(CURVES, len(logs)), strict=True):
            points = [(entry.get("epoch"), entry.get("mAP_ema", entry.get("mAP_model"))) for entry in log]
            points = [(epoch, value) for epoch, value in points if value is not None and epoch is not None]
            axes.plot(
                *zip(*points, strict=True) if points else ([], []), color=str(colour), marker="o", ms=3, label=name
            )
        axes.grid()
        axes.legend(fontsize=7)

    return svg(draw, "epoch", "mAP, %", (6.4, 3.2))


def reliability(bins: np.ndarray, calibrated: np.ndarray | None = None) -> Markup:
    """A reliability diagram of `csl.report.classes.reliability_bins` [BINS, 3], all classes together.

    calibrated: the same of calibrated probabilities.
    """

    def line(axes, bins, **style):
        total, of_scores, hits = bins[bins[:, 0] > 0].T
        axes.plot(of_scores / total, hits / total, ms=4, **style)

    def draw(axes):
        axes.plot([0, 1], [0, 1], color=SOFT, lw=0.8, ls=(0, (4, 3)))
        share = bins[:, 0] / max(bins[:, 0].sum(), 1)
        edges = np.arange(BINS) / BINS
        axes.bar(edges, share, 1 / BINS, align="edge", color=CURVES[4], alpha=0.35, label="share of the labels")
        line(axes, bins, color=CURVES[0], marker="o", label="share that is positive")
        if calibrated is not None:
            line(axes, calibrated, color=CURVES[3], marker="s", ls=(0, (5, 2)), label="the same, calibrated")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=7)

    return svg(draw, "score", "", (4.4, 3.4))
