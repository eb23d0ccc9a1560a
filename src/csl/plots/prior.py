"""Pictures of the estimated class prior beside the annotated frequency and the true one, if known."""

from collections.abc import Sequence

import numpy as np

from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.metrics.agreement import rank_correlation, top_overlap
from csl.plots.style import (
    ANNOTATED,
    BODY,
    ESTIMATE,
    FAINT,
    INK,
    NAMED,
    POSITIVE,
    SMALL,
    SOFT,
    TRUTH,
    Page,
    log_axis,
    share,
    styled,
)

TOP = 10


def frequency(labels: LabelMatrix) -> np.ndarray:
    """[C] share of the images that are annotated as having the class; of full labels, how frequent it is."""
    return labels.counts().positives / max(len(labels), 1)


def draw_prior_of(annotations: Annotations, prior: np.ndarray, truth: LabelMatrix | None, title: str) -> Page:
    """The picture of the prior [C] of annotations; `truth` is not shown as the truth if any label of it is unknown."""
    known = None if truth is None or truth.counts().unannotated.any() else frequency(truth)
    return draw_prior(prior, frequency(annotations.labels), annotations.classes, known, title)


@styled()
def draw_prior(
    prior: np.ndarray,
    annotated: np.ndarray,
    classes: Sequence[str],
    truth: np.ndarray | None = None,
    title: str = "Class prior",
) -> Page:
    """The estimated prior of each class against its annotated frequency and the truth, with the top ten of each.

    Up to `NAMED` classes have a named row each, by falling estimate; more become scatter plots on logarithmic axes. The
    lists say how many of the top ten are shared and how well the ranks correlate (`csl.metrics.agreement`).

    Args:
        prior: [C] in [0, 1], NaN where nothing was estimated.
        annotated: [C] share of the images that are annotated as having the class, in [0, 1].
        classes: C names.
        truth: [C] share of the images that have the class, where that is known.
        title: of the picture.

    Raises:
        InputError: lists of different lengths.
    """
    known = {"estimated": prior, "annotated": annotated} | ({} if truth is None else {"true": truth})
    known = {name: np.asarray(values, dtype=np.float64) for name, values in known.items()}
    for name, values in known.items():
        if values.shape != (len(classes),):
            raise InputError(f"prior: found {values.shape} {name} frequencies, expected {len(classes)}, one a class")
    draw = _draw_rows if len(classes) <= NAMED else _draw_scatter
    return draw(known, classes, title)


_MARKS = {"estimated": ("●", ESTIMATE, "estimated prior"), "annotated": ("◆", ANNOTATED, "annotated as positive"),
          "true": ("|", TRUTH, "truth")}  # fmt: skip


def _draw_rows(known, classes, title):
    prior = known["estimated"]
    order = np.argsort(np.where(np.isnan(prior), np.inf, -prior), kind="stable")
    lists = len(known) * (0.87 + 0.19 * min(TOP, len(classes)))
    pitch = np.clip((lists - 0.7) / max(len(order), 1), 0.175, 0.3)
    size = BODY if pitch > 0.2 else SMALL
    left, width, top = 2.75, 5.6, 1.35
    page = Page(left + width + 3.6, max(top + pitch * len(order) + 0.7, top - 0.42 + lists + 0.2))
    page.title(title, [_summary(known, classes)])
    page.legend(left, top - 0.42, [_MARKS[name] for name in known])

    axes = page.axes(left, top, width, pitch * len(order), ylim=(len(order) - 0.5, -0.5))
    floor = _floor(known)
    y = np.arange(len(order))
    axes.set_xlim(floor, 1.15)
    log_axis(axes.xaxis, percent=True)
    axes.grid(axis="x")
    shown = {name: np.maximum(values[order], floor) for name, values in known.items()}
    stacked = np.stack(list(shown.values()))
    some = ~np.isnan(stacked).all(0)
    axes.hlines(y[some], np.nanmin(stacked[:, some], 0), np.nanmax(stacked[:, some], 0), color=FAINT, lw=1.6, zorder=1)
    styles = {"annotated": {"marker": "D", "ms": 4.5}, "true": {"marker": "|", "ms": 9, "mew": 2.2},
              "estimated": {"marker": "o", "ms": 5.5}}  # fmt: skip
    for name in (n for n in styles if n in known):
        axes.plot(shown[name], y, ls="", color=_MARKS[name][1], label=name, clip_on=False, zorder=3, **styles[name])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("share of the images, logarithmic; smaller values stand at the left edge")
    for i, c in enumerate(order):
        page.text(left - 0.12, top + pitch * (i + 0.5), page.fit(classes[c], left - 0.5, size), size, ha="right",
                  va="center_baseline")  # fmt: skip
    _draw_lists(page, left + width + 0.45, top - 0.42, known, classes)
    return page


def _draw_scatter(known, classes, title):
    others = [name for name in ("annotated", "true") if name in known]
    side, top = 5.3, 1.5
    lists = len(known) * (0.87 + 0.19 * TOP)
    page = Page(0.95 + len(others) * (side + 0.75) + 3.3, max(top + side + 0.85, top - 0.32 + lists + 0.2))
    page.title(title, [_summary(known, classes)])
    floor = _floor(known)
    estimate = np.maximum(known["estimated"], floor)
    top_ten = _top(known["estimated"])
    left = 0.95
    for name in others:
        values = np.maximum(known[name], floor)
        axes = page.axes(left, top, side, side, xlim=(floor, 1.15), ylim=(floor, 1.15))
        for axis in (axes.xaxis, axes.yaxis):
            log_axis(axis, percent=True)
        axes.grid()
        axes.plot([floor, 1], [floor, 1], color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1)
        axes.plot(values, estimate, ls="", marker="o", ms=2.6, mew=0, color=ESTIMATE, alpha=0.28, label=name,
                  clip_on=False, rasterized=True)  # fmt: skip
        axes.plot(values[top_ten], estimate[top_ten], ls="", marker="o", ms=6, mfc=ESTIMATE, mec="white", mew=0.8,
                  label="top ten", clip_on=False)  # fmt: skip
        axes.set_xlabel(f"{_MARKS[name][2]}, share of the images")
        if name == others[0]:
            axes.set_ylabel("estimated prior, share of the images")
        else:
            axes.tick_params(labelleft=False)
        heading = {"annotated": "Against the annotated frequency", "true": "Against the truth"}[name]
        page.text(left, top - 0.32, heading, BODY + 1, weight="bold")
        left += side + 0.75
    note = "each dot a class, the top ten of the estimate large; dashed: equal; smaller values stand at the edge"
    page.text(0.95, top + side + 0.6, note, SMALL, color=SOFT)
    _draw_lists(page, left, top - 0.32, known, classes)
    return page


def _draw_lists(page, left, top, known, classes):
    """The top ten of each; a tick where the class is in the reference's top ten."""
    reference = "true" if "true" in known else "annotated"
    wanted = set(_top(known[reference]).tolist()) if _ranks(known[reference]) else set()
    for name, values in known.items():
        page.text(left, top, f"Top ten, {name}", BODY + 0.5, weight="bold", color=INK)
        if name == reference:
            lines = ["what the others are held against"]
        else:
            shared = top_overlap(values, known[reference], TOP)
            correlation = rank_correlation(values, known[reference])
            lines = [f"{shared:.3g} of {min(TOP, len(classes))} shared with the {_NOUN[reference]}"]
            lines.append("no rank correlation" if np.isnan(correlation) else f"rank correlation {correlation:.2f}")
        chosen = _top(values) if _ranks(values) else np.zeros(0, int)
        if not len(chosen):
            lines.append("ranks nothing: all equal or unknown")
        for i, text in enumerate(lines):
            page.text(left, top + 0.19 + 0.165 * i, text, SMALL, color=SOFT)
        first = top + 0.4 + 0.165 * len(lines)
        for i, c in enumerate(chosen):
            y = first + 0.19 * i
            if c in wanted:
                page.text(left, y, "✓", SMALL, color=POSITIVE, weight="bold", va="baseline")
            page.text(left + 0.36, y, str(i + 1), SMALL, color=SOFT, ha="right", va="baseline")
            page.text(left + 0.46, y, page.fit(classes[c], page.width - left - 1.4, SMALL), SMALL, va="baseline")
            page.text(page.width - 0.3, y, share(values[c]), SMALL, ha="right", va="baseline")
        top = first + 0.19 * len(chosen) + 0.14


_NOUN = {"true": "truth", "annotated": "annotation"}


def _summary(known, classes):
    reference = "true" if "true" in known else "annotated"
    text = f"{len(classes):,} classes; a tick in the lists marks a class of the {_NOUN[reference]}'s top ten"
    missing = int(np.isnan(known["estimated"]).sum())
    return text + (f"; {missing:,} classes have no estimate" if missing else "")


def _ranks(values):
    """Whether these numbers put any class before another."""
    values = values[~np.isnan(values)]
    return len(values) == 1 or (len(values) > 1 and np.ptp(values) > 0)


def _top(values):
    """The ten highest classes, the highest first, NaN never."""
    order = np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")[:TOP]
    return order[~np.isnan(values[order])]


def _floor(known):
    """A power of ten at or below nearly all frequencies over 0, and 1e-6 at the least."""
    values = np.concatenate(list(known.values()))
    values = values[values > 0]
    low = np.quantile(values, 0.002) if len(values) else 0.1
    return 10.0 ** np.clip(np.floor(np.log10(low)), -6, -1)
