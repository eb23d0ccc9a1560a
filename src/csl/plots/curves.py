"""Precision against recall of chosen classes, over annotated entries."""

import difflib
from collections.abc import Sequence

import numpy as np

from csl.errors import InputError
from csl.labels import POSITIVE, UNANNOTATED
from csl.metrics import average_precision
from csl.plots.style import BODY, CURVES, SMALL, SOFT, Page, styled

ENOUGH = 10
"""Positives that a class should have to be chosen without being named: with fewer a curve is a few steps."""


def choose_classes(ap: np.ndarray, positives: np.ndarray, most: int = 5) -> list[int]:
    """Classes that show the range: the best AP, the worst, the median and those between, by falling AP.

    Among classes with `ENOUGH` positives, or, if there are not `most` of these, with as many as the `most`-th has.

    Args:
        ap: [C] average precision, NaN where it is not defined.
        positives: [C] number of positives.
        most: 1 or more.
    """
    defined = np.flatnonzero(~np.isnan(ap))
    if not len(defined):
        return []
    least = min(ENOUGH, np.sort(positives[defined])[-min(most, len(defined))])
    able = defined[positives[defined] >= least]
    able = able[np.argsort(-ap[able], kind="stable")]
    places = np.unique(np.round(np.linspace(0, len(able) - 1, most)).astype(int))
    return [int(able[place]) for place in places]


def named_classes(names: Sequence[str], classes: Sequence[str], keys: Sequence[str] | None = None) -> list[int]:
    """The classes of these names or keys; a name that several classes share stands for all of them.

    Raises:
        InputError: a name of no class.
    """
    chosen = []
    for name in names:
        found = [c for c in range(len(classes)) if name in (classes[c], (keys or classes)[c])]
        if not found:
            close = difflib.get_close_matches(name, list(classes), n=3, cutoff=0.5) or list(classes)[:3]
            raise InputError(
                f"--plot_classes: no class {name!r} among {len(classes):,}, expected names such as {', '.join(close)}"
            )
        chosen += [c for c in found if c not in chosen]
    return chosen


@styled()
def draw_precision_recall(
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    chosen: Sequence[int] | None = None,
    title: str = "Precision and recall",
) -> Page:
    """Precision-recall curves of some classes, with their AP; un-annotated entries take no part.

    The points are those of `sklearn.metrics.precision_recall_curve`, drawn as steps: AP is the area under them.

    Args:
        scores: [N, C], larger is likelier.
        targets: [N, C] in {1, 0, -1}.
        classes: C names.
        chosen: classes, in the order of the legend; None for `choose_classes`.
        title: of the picture.
    """
    from sklearn.metrics import precision_recall_curve

    if chosen is None:
        chosen = choose_classes(average_precision(scores, targets), (targets == POSITIVE).sum(0))
        below = "classes from the best to the worst average precision; over annotated entries alone"
    else:
        below = "over annotated entries alone"
    side, top, pitch = 5.2, 1.1, 0.5
    page = Page(10.2, max(top + side + 0.75, top + pitch * len(chosen) + 0.3))
    page.title(title, [below])
    axes = page.axes(0.95, top, side, side, xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    axes.grid()
    left = 0.95 + side + 0.45
    if not len(chosen):
        page.text(left, top, "no class has both annotated positives and negatives", BODY, color=SOFT)
    for i, c in enumerate(chosen):
        colour, dash = CURVES[i % len(CURVES)], ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))
        dash = dash[i // len(CURVES) % len(dash)]
        known = targets[:, c] != UNANNOTATED
        hits = targets[known, c] == POSITIVE
        y = top + pitch * i
        detail = f"{hits.sum():,} of {len(hits):,} positive"
        if 0 < hits.sum() < len(hits):
            precision, recall, _ = precision_recall_curve(hits, scores[known, c])
            axes.plot(recall, precision, drawstyle="steps-post", color=colour, ls=dash, lw=1.8, label=classes[c],
                      clip_on=False)  # fmt: skip
            ap = average_precision(scores[known, c : c + 1], targets[known, c : c + 1])[0]
            detail = f"AP {100 * ap:.1f}   {detail}"
        else:
            detail = f"no curve: {detail}"
        page.line(left, y + 0.09, left + 0.42, colour, dash)
        page.text(left + 0.55, y, page.fit(classes[c], page.width - left - 0.85, BODY), BODY)
        page.text(left + 0.55, y + 0.185, detail, SMALL, color=SOFT)
    return page
