"""A picture of the annotation model: how much more an unknown label of each class says, beside what CSL would make of it."""

import numpy as np
import pandas as pd

from csl.plots.style import ANNOTATED, BODY, ESTIMATE, FAINT, NAMED, SMALL, SOFT, Page, log_axis, styled


@styled()
def draw_annotation(model: pd.DataFrame, threshold: float) -> Page:
    """Delta of each class (`csl.losses.annotation`), by falling delta, with its interval where there is one.

    Delta 0 leaves an unknown label out, a large one makes it a negative. Colours say which of the two CSL
    does by its threshold.

    Args:
        model: `csl.training.annotation.table`, with a row for each of C classes.
        threshold: the prior above which CSL leaves unknown labels of a class out, `--prior_threshold`.
    """
    model = model.sort_values("delta", ascending=False, kind="stable").reset_index(drop=True)
    named = len(model) <= NAMED
    pitch = float(np.clip(6 / max(len(model), 1), 0.175, 0.3)) if named else 6 / len(model)
    left, top, width, height = (2.75 if named else 0.95), 1.55, 5.6, pitch * len(model)
    page = Page(left + width + 0.5, top + height + 0.75)
    page.title("What an unknown label of each class says", [
        "delta 0 leaves it out, a large delta makes it a negative; the annotation loss goes by delta, "
        "CSL by a threshold alone",
    ])  # fmt: skip
    out = (model["prior"] > threshold).to_numpy()
    styles = (("CSL leaves it out", ESTIMATE, out), ("CSL makes it a negative", ANNOTATED, ~out))
    page.legend(left, top - 0.45, [
        ("●", colour, f"{what} (prior {'>' if what.endswith('out') else '<='} {100 * threshold:g} %): {chosen.sum():,}")
        for what, colour, chosen in styles
    ])  # fmt: skip
    axes = page.axes(left, top, width, height, ylim=(len(model) - 0.5, -0.5))
    rows, delta = np.arange(len(model)), model["delta"].to_numpy()
    ends = [model[f"delta_{end}"].to_numpy() if f"delta_{end}" in model else delta for end in ("low", "high")]
    axes.set_xlim(min(0.0, 1.1 * ends[0].min()), max(0.02, 1.15 * ends[1].max()))
    log_axis(axes.xaxis, linear_below=0.01)
    axes.grid(axis="x")
    axes.axvline(0, color=SOFT, lw=0.8, zorder=1)
    axes.hlines(rows, *ends, color=FAINT, lw=1.6, zorder=1)
    for what, colour, chosen in styles:
        axes.plot(delta[chosen], rows[chosen], ls="", marker="o", ms=5 if named else 2.6, mew=0, color=colour, label=what,
                  clip_on=False, rasterized=not named, zorder=3)  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(
        "delta; linear up to 0.01, then logarithmic" + ("; lines: interval" if "delta_low" in model else "")
    )
    for row, name in enumerate(model["class"] if named else ()):
        size = BODY if pitch > 0.2 else SMALL
        page.text(left - 0.12, top + pitch * (row + 0.5), page.fit(name, left - 0.5, size), size, ha="right",
                  va="center_baseline")  # fmt: skip
    return page
