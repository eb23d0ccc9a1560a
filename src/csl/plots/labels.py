"""Pictures of the labels of each class: known positives, known negatives, unknown; before and after a simulation."""

from itertools import pairwise

import numpy as np

from csl.labels import Annotations, LabelMatrix
from csl.labels.class_set import several_values
from csl.plots.style import (
    BODY,
    FAINT,
    INK,
    NAMED,
    NEGATIVE,
    POSITIVE,
    SMALL,
    SOFT,
    UNKNOWN,
    Page,
    log_axis,
    one_line,
    share,
    styled,
)

_KINDS = (("positives", POSITIVE, "known positive"), ("negatives", NEGATIVE, "known negative"),
          ("unannotated", UNKNOWN, "unknown"))  # fmt: skip
_LISTED = 14  # classes at either end of a long tail


@styled()
def draw_labels(annotations: Annotations, full_labels: LabelMatrix | None = None) -> Page:
    """How many images of each class are known positive, known negative and unknown.

    Up to `NAMED` classes have a named row each, the most frequent first, by attribute if there are
    attributes. More are ranked by their known positives, on logarithmic axes, with the other counts as bands and
    the names at both ends.

    Args:
        annotations: whose labels are counted.
        full_labels: the labels of the same images before some were left out, shown beside.
    """
    counts = annotations.labels.counts()
    before = None if full_labels is None else full_labels.counts()
    below = [_shares(counts, "")]
    if before is not None:
        below = [_shares(before, "before the simulation "), _shares(counts, "after it ")]
    title = f"Labels of {len(annotations):,} images, {len(annotations.classes):,} classes"
    draw = _draw_rows if len(annotations.classes) <= NAMED else _draw_ranks
    return draw(annotations, counts, before, title, below)


def _draw_rows(annotations, counts, before, title, below):
    """A row for each class: its positives as dots on one scale, and its shares as a bar."""
    rows = _rows(annotations, counts if before is None else before)
    pitch = 0.235 if len(rows) <= 50 else 0.175
    size = BODY if len(rows) <= 50 else SMALL
    left, dots, bar, gap = 2.75, 2.9, 3.4 if before is None else 2.3, 0.35
    numbers = [f"{value:,}" for value in counts.positives]
    if before is not None:
        numbers = [f"{now} of {then:,}" for now, then in zip(numbers, before.positives, strict=True)]
    figures = 0.3 + 0.068 * max(map(len, numbers), default=0)  # inches that the numbers beside the dots take
    top = 1.2 if before is None else 1.64
    bars = 1 if before is None else 2
    page = Page(left + dots + figures + bars * (bar + gap) + 0.15, top + pitch * len(rows) + 0.6)
    page.title(title, below)

    places = [(i, c) for i, (_, c) in enumerate(rows) if c is not None]
    y = np.array([i for i, _ in places], dtype=float)
    chosen = np.array([c for _, c in places], dtype=int)
    for i, (text, c) in enumerate(rows):
        middle = top + pitch * (i + 0.5)
        if c is None:
            text = page.fit(text, left - 0.4, size, "bold")
            page.text(0.3, middle, text, size, va="center_baseline", weight="bold")
            continue
        page.text(left - 0.1, middle, page.fit(text, left - 0.5, size), size, ha="right", va="center_baseline")
        page.text(left + dots + figures, middle, numbers[c], SMALL, color=SOFT, ha="right", va="center_baseline")

    height = pitch * len(rows)
    axes = page.axes(left, top, dots, height, ylim=(len(rows) - 0.5, -0.5))
    _draw_dots(axes, y, counts.positives[chosen], None if before is None else before.positives[chosen])
    legend = [("●", POSITIVE, "images with the class")] + ([] if before is None else [("○", SOFT, "before")])
    page.legend(left, top - 0.32, legend)
    at = left + dots + figures + gap
    page.legend(at, top - (0.32 if before is None else 0.55), [("■", colour, word) for _, colour, word in _KINDS])
    parts = ((counts, ""),) if before is None else ((before, "before the simulation"), (counts, "after it"))
    for values, word in parts:
        axes = page.axes(at, top, bar, height, ylim=(len(rows) - 0.5, -0.5), xlim=(0, 100))
        _draw_shares(axes, y, values, chosen)
        page.text(at, top - 0.28, word, BODY, weight="bold")
        at += bar + gap
    return page


def _rows(annotations, ranked_by):
    """(text, class) from top to bottom; an attribute has a row of its own, without a class, above its values."""
    single, rows = np.ones(len(annotations.classes), dtype=bool), []
    for attribute, group in several_values(annotations.groups).items():
        single[group] = False
        rows.append((attribute.replace("_", " "), None))
        rows.extend((annotations.classes[c], c) for c in range(group.start, group.stop))
    others = [c for c in np.argsort(-ranked_by.positives, kind="stable") if single[c]]
    if rows and others:
        rows.append(("yes or no", None))
    return rows + [(annotations.classes[c], c) for c in others]


def _draw_dots(axes, y, now, before):
    highest = max(now.max(initial=0), 0 if before is None else before.max(initial=0), 1)
    known = now[now > 0]
    wide = len(known) > 0 and highest > 40 * known.min()
    axes.set_xlim(0, highest * (1.5 if wide else 1.04))
    if wide:
        log_axis(axes.xaxis, linear_below=1)
    else:
        _whole_ticks(axes)
    axes.grid(axis="x")
    axes.hlines(y, 0, now, color=POSITIVE, lw=1.4)
    if before is not None:
        axes.hlines(y, now, before, color=FAINT, lw=1.4, zorder=1)
        axes.plot(before, y, "o", mfc="white", mec=SOFT, ms=5, label="before", clip_on=False)
    axes.plot(now, y, "o", color=POSITIVE, ms=5, label="now", clip_on=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _whole_ticks(axes):
    from matplotlib.ticker import MaxNLocator

    high = axes.get_xlim()[1]
    ticks = [tick for tick in MaxNLocator(4, integer=True).tick_values(0, high) if 0 <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])


def _draw_shares(axes, y, counts, chosen):
    totals = np.maximum(sum(counts)[chosen], 1)
    start = np.zeros(len(chosen))
    for name, colour, word in _KINDS:
        width = 100 * getattr(counts, name)[chosen] / totals
        axes.barh(y, width, left=start, height=0.72, color=colour, label=word)
        start = start + width
    axes.set_xticks([0, 50, 100], ["0", "50 %", "100 %"])
    axes.get_xticklabels()[0].set_ha("left")
    axes.get_xticklabels()[-1].set_ha("right")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _draw_ranks(annotations, counts, before, title, below):
    """All classes by rank, and the names at both ends."""
    page = Page(13.2, 8.1 + 0.19 * (len(below) - 1))
    page.title(title, below)
    top = 1.5 + 0.19 * (len(below) - 1)
    colours = {name: colour for name, colour, _ in _KINDS} | {"unannotated": "#8c8c8c"}  # a line is thinner than a bar
    legend = [("■", colours[name], word) for name, _, word in _KINDS]
    if before is not None:
        legend.append(("■", INK, "positive before the simulation"))
    page.legend(0.3, top - 0.62, legend)

    ranked_by = counts if before is None else before
    order = np.argsort(-ranked_by.positives, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    axes = page.axes(1.0, top, 7.3, 5.8, xlim=(0.9, len(order) * 1.1), ylim=(0, max(len(annotations), 1) * 2))
    log_axis(axes.xaxis)
    log_axis(axes.yaxis, linear_below=1)
    axes.grid()
    when = "" if before is None else " before the simulation"
    axes.set_xlabel(
        f"classes, ranked by their known positives{when}; bands: eight in ten classes of neighbouring ranks"
    )
    axes.set_ylabel("images")
    for name, _, word in reversed(_KINDS[0 if before else 1 :]):
        _draw_band(axes, getattr(counts, name)[order], colours[name], word)
    axes.plot(ranks, ranked_by.positives[order], color=INK if before else POSITIVE, lw=1.6 if before else 2.4,
              label="before" if before else "known positive")  # fmt: skip

    some = order[ranked_by.positives[order] > 0]
    none = order[ranked_by.positives[order] == 0]
    at, row = 8.75, 0.185
    most, fewest = some[:_LISTED], some[_LISTED:][-_LISTED:]
    numbers = [f"{value:,}" for value in counts.positives]
    if before is not None:
        numbers = [f"{now} of {then:,}" for now, then in zip(numbers, before.positives, strict=True)]
    y = _list(page, at, top - 0.1, row, f"Most positives{when}", most, numbers, annotations.classes, 1)
    first = len(some) - len(fewest) + 1
    head = f"Fewest positives{when}, at least one"
    y = _list(page, at, y + 0.2, row, head, fewest, numbers, annotations.classes, first)
    if len(none):
        head = f"{len(none):,} classes without any known positive{when}"
        names = ", ".join(one_line(annotations.classes[c]) for c in none[:3]) + (", …" if len(none) > 3 else "")
        page.text(at, y + 0.2, head, BODY, weight="bold")
        page.text(at, y + 0.41, page.fit(names, page.width - at - 0.3, SMALL), SMALL, color=SOFT)
    return page


def _draw_band(axes, values, colour, word):
    """Median, and the range of eight in ten, of the classes of neighbouring ranks."""
    edges = np.unique(np.geomspace(1, len(values) + 1, 70).astype(int))
    middle = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    low, median, high = np.array([np.percentile(values[a - 1 : b - 1], (10, 50, 90)) for a, b in pairwise(edges)]).T
    axes.fill_between(middle, low, high, color=colour, alpha=0.28, lw=0)
    axes.plot(middle, median, color=colour, lw=1.4, label=word)


def _list(page, left, top, row, heading, chosen, numbers, classes, first):
    page.text(left, top, heading, BODY, weight="bold")
    for i, c in enumerate(chosen):
        y = top + 0.17 + row * (i + 1)
        page.text(left + 0.48, y, f"{first + i:,}", SMALL, color=SOFT, ha="right", va="baseline")
        room = page.width - left - 1.1 - page.measure(numbers[c], SMALL)
        page.text(left + 0.6, y, page.fit(classes[c], room, SMALL), SMALL, va="baseline")
        page.text(page.width - 0.3, y, numbers[c], SMALL, ha="right", va="baseline")
    return top + 0.05 + row * (len(chosen) + 1)


def _shares(counts, words):
    totals = [float(values.sum()) for values in counts]
    parts = [share(t / max(sum(totals), 1)) for t in totals]
    return f"{words}{parts[0]} of all labels known positive, {parts[1]} known negative, {parts[2]} unknown".capitalize()
