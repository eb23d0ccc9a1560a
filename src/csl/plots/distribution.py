"""How often each value of each attribute is seen in training, before and after balancing: a table and a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from csl.labels import Annotations
from csl.machine.files import replacing
from csl.plots.style import BODY, DPI, INK, NEGATIVE, POSITIVE, SMALL, TITLE, styled

UNKNOWN = "unknown"
_MOST = 40  # values of one attribute that are shown


def value_counts(annotations: Annotations, seen: np.ndarray) -> pd.DataFrame:
    """A row for each value of each attribute, and one for its unknown: how many images have it, and how often it is seen.

    Args:
        annotations: of N images, with groups.
        seen: [N], how often each image is seen, on any scale.

    Returns:
        A table `attribute`, `value` (the class name, yes or no for a yes/no attribute, or "unknown"), `images`,
        `before` and `after`, the share of what is seen in percent.
    """
    labels = annotations.labels.to_dense()  # [N, C]
    total = seen.sum()
    rows = []
    for attribute, group in annotations.groups.items():
        block = labels[:, group]  # [N, G]
        names = list(annotations.classes[group])
        positive = block == 1
        if len(names) == 1:
            positive, names = np.concatenate([block == 0, positive], axis=1), ["no", "yes"]
        unknown = ~positive.any(axis=1)
        for name, has in zip([*names, UNKNOWN], [*positive.T, unknown], strict=True):
            rows.append((attribute, name, has.sum(), 100 * has.mean(), 100 * seen[has].sum() / total))
    table = pd.DataFrame(rows, columns=["attribute", "value", "images", "before", "after"])
    return table.round({"before": 2, "after": 2})


@styled()
def plot_distribution(table: pd.DataFrame, groups: Mapping[str, slice], path: str | Path, title: str) -> Path:
    """A PNG with a panel for each attribute: a pair of bars for each value and for the unknown, before and after.

    Yes/no attributes share one panel, of their "yes" and their unknown. An attribute of more than 40 values shows the 40
    most frequent.

    Args:
        table: of `value_counts`.
        groups: the slice of classes of each attribute.
        path: PNG to write, whole or not at all.
        title: of the figure.

    Returns:
        `path`.
    """
    from matplotlib.figure import Figure

    panels = _panels(table, groups)
    widths = [max(len(table), 4) for _, table in panels]
    rows = _rows(widths)
    figure = Figure(figsize=(12, 3.6 * len(rows) + 0.8), dpi=DPI, layout="constrained")
    for subfigure, row in zip(np.atleast_1d(figure.subfigures(len(rows), 1)), rows, strict=True):
        axes = np.atleast_1d(subfigure.subplots(1, len(row), width_ratios=[widths[i] for i in row]))
        for axis, i in zip(axes, row, strict=True):
            _draw(axis, *panels[i])
        axes[0].set_ylabel("% of the images seen")
    handles, names = figure.subfigs[0].axes[0].get_legend_handles_labels()
    figure.suptitle(title, fontsize=TITLE, weight="bold")
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _panels(table, groups):
    """(title, rows of the table) of each panel."""
    panels, yes_no = [], []
    for attribute, group in groups.items():
        rows = table[table.attribute == attribute]
        if group.stop - group.start == 1:
            shown = rows[rows.value != "no"].copy()
            shown["value"] = [attribute, f"{attribute} {UNKNOWN}"]
            yes_no.append(shown)
            continue
        known, unknown = rows[rows.value != UNKNOWN], rows[rows.value == UNKNOWN]
        left_out = len(known) - _MOST
        if left_out > 0:
            known = known.nlargest(_MOST, "images")
        title = attribute.replace("_", " ") + (f" ({left_out} rarer values not shown)" if left_out > 0 else "")
        prefix = _common_prefix(list(known.value))
        shown = pd.concat([known, unknown])
        shown["value"] = [value.removeprefix(prefix) for value in shown.value]
        panels.append((title, shown))
    for part in np.array_split(np.arange(len(yes_no)), -(-len(yes_no) * 2 // _MOST)) if yes_no else ():
        panels.append(("yes/no attributes", pd.concat([yes_no[i] for i in part])))
    return panels


def _common_prefix(names):
    """`colour:` of its values, which the panel's title says already; numbered values keep their name."""
    prefix = names[0].partition(":")[0] + ":"
    return prefix if all(name.startswith(prefix) for name in names) else ""


def _rows(widths, most=30):
    """Panels side by side while they hold at most so many pairs of bars."""
    rows, room = [], 0
    for number, width in enumerate(widths):
        if not rows or width > room:
            rows.append([])
            room = most
        rows[-1].append(number)
        room -= width
    return rows


def _draw(axis, title, table):
    x = np.arange(len(table))
    unknown = table.value.str.endswith(UNKNOWN).to_numpy()
    for shift, column, colour, label in (
        (-0.2, "before", NEGATIVE, "before"),
        (0.2, "after", POSITIVE, "after balancing"),
    ):
        bars = axis.bar(x + shift, table[column], width=0.4, color=colour, label=label)
        for bar, hatched in zip(bars, unknown, strict=True):
            if hatched:
                bar.set(hatch="///", edgecolor="white")
    for place, value in zip(x, table.after, strict=True):
        axis.annotate(
            f"{value:.3g}", (place + 0.2, value), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=SMALL
        )
    axis.set_xticks(x, table.value, rotation=45 if max(map(len, table.value)) < 14 else 90, ha="right", fontsize=SMALL)
    axis.set_title(title, fontsize=BODY + 1, color=INK, loc="left")
    axis.set_xlim(-0.6, len(table) - 0.4)
    axis.margins(y=0.14)
