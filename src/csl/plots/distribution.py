"""A table and a picture of how often training sees each value of each attribute, before and after balancing."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from csl.labels import Annotations
from csl.plots.style import NEGATIVE, POSITIVE, SMALL, SOFT, Page, styled

UNKNOWN = "unknown"
_MOST = 40  # values of one attribute that are shown
_PITCH = 0.27  # inches from row to row


def value_counts(annotations: Annotations, seen: np.ndarray) -> pd.DataFrame:
    """How many images have each value of each attribute, or an unknown value, and how often training sees them.

    Args:
        annotations: N images, with groups.
        seen: [N] how often each image is seen, on any scale.

    Returns:
        A table `attribute`, `value` (the class name, yes or no for a yes/no attribute, or "unknown"), `images`,
        `before` and `after`, shares of the images seen in percent.
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
def draw_distribution(table: pd.DataFrame, groups: Mapping[str, slice], title: str) -> Page:
    """A pair of bars, before and after, for each value of each attribute and for its unknown values.

    Yes/no attributes stand together, with their "yes" and their unknown. An attribute of more than 40 values shows the 40
    most frequent.

    Args:
        table: of `value_counts`.
        groups: the slice of classes of each attribute.
        title: of the picture.
    """
    rows = _rows(table, groups)
    left, width, top = 2.75, 5.9, 1.1
    page = Page(left + width + 1.65, top + _PITCH * len(rows) + 0.6)
    page.title(title)
    page.legend(left, 0.68, [("■", NEGATIVE, "before balancing"), ("■", POSITIVE, "after"), ("▨", SOFT, UNKNOWN)])
    axes = page.axes(left, top, width, _PITCH * len(rows), ylim=(len(rows) - 0.5, -0.5), xlabel="% of the images seen")
    axes.grid(axis="x")
    axes.set_yticks([])
    for y, (name, row) in enumerate(rows):
        middle = top + _PITCH * (y + 0.5)
        if row is None:
            page.text(0.3, middle, page.fit(name, left + 1.0, weight="bold"), va="center_baseline", weight="bold")
            continue
        page.text(left - 0.1, middle, page.fit(name, left - 0.5), ha="right", va="center_baseline")
        hatch = {"hatch": "////", "edgecolor": "white", "lw": 0} if row.value == UNKNOWN else {}
        axes.barh(y - 0.2, row.before, 0.38, color=NEGATIVE, **hatch)
        axes.barh(y + 0.2, row.after, 0.38, color=POSITIVE, **hatch)
        numbers = f"{row.before:.3g} → {row.after:.3g} %"
        page.text(page.width - 0.3, middle, numbers, SMALL, color=SOFT, ha="right", va="center_baseline")
    return page


def _rows(table, groups):
    """(text, row of the table) from top to bottom; headings have no row."""
    rows, yes_no = [], []
    for attribute, group in groups.items():
        values = table[table.attribute == attribute]
        known, unknown = values[values.value != UNKNOWN], values[values.value == UNKNOWN]
        if group.stop - group.start == 1:
            yes_no += [(attribute, row) for row in known[known.value == "yes"].itertuples()]
            yes_no += [(f"{attribute} {UNKNOWN}", row) for row in unknown.itertuples()]
            continue
        shown = known.nlargest(_MOST, "images") if len(known) > _MOST else known
        left_out = f" ({len(known) - len(shown)} rarer values not shown)" if len(shown) < len(known) else ""
        rows.append((attribute.replace("_", " ") + left_out, None))
        # The heading says the attribute already: `colour:red` is shown as `red`.
        rows += [(row.value.removeprefix(f"{attribute}:"), row) for row in shown.itertuples()]
        rows += [(UNKNOWN, row) for row in unknown.itertuples()]
    if yes_no:
        rows += [("yes or no", None), *yes_no]
    return rows
