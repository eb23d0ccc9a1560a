"""Label files from strangers: checks of class and image names, and escaping of cells that spreadsheets would run."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from csl.errors import InputError, printable
from csl.labels.paths import ImagePaths

# Control characters (C0, DEL, C1), marks that reverse the text behind them, and halves of surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What a spreadsheet would run or fetch: "=" begins any formula; after "+", "-" and "@" it takes a call, a command or
# another sheet, which tells a formula from a file called -abc.jpg. Spaces before it, of any kind, may be stripped by whoever
# writes the cell again, and East Asian versions take the wide forms of the signs.
_FORMULA = re.compile(r"[\s\ufeff\u200b]*([=＝]|[+\-@＋－＠].*[(|!])", re.DOTALL)


def escape_cell(text: str) -> str:
    """A cell as it is written into a CSV: one that a spreadsheet would run begins with an apostrophe, `'=1+1`."""
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) else text


def unescape_cell(text: str) -> str:
    """The cell that `escape_cell` wrote."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text.lstrip("'")) else text


def escape_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is written into a CSV: `escape_cell` of all texts and of the column names."""
    table = table.copy()
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].map(lambda cell: escape_cell(cell) if isinstance(cell, str) else cell)
    return table.rename(columns=escape_cell)


def path_cell(path: str) -> str:
    """The path of an image as it is written into a table of results: printable, and no formula: `./=a.jpg`."""
    return printable(f"./{path}" if path.startswith(("=", "+", "-", "@")) or _FORMULA.match(path) else path)


def check_class_names(names: Iterable[str], place: str | Path) -> None:
    """Names of classes are shown on terminals.

    Raises:
        InputError: one has a control character or is no text in Unicode.
    """
    for number, name in enumerate(names):
        if CONTROL.search(name):
            raise InputError(
                f"{place}: class {number} is called {name[:80]!r}, which has a control character; expected a plain name"
            )


def require_inside(images: Sequence[str], folders: Sequence[str], path: Path, source: str) -> tuple[str, ...]:
    """Check that all images are named inside the data folder, and return the folders in which they must lie.

    Inside is: below a folder that names are relative to, or below the data folder. All may be links themselves.
    This looks at names, before anything is opened; `csl.data.images` checks where links lead when an image is opened.

    Args:
        images: full paths, as a reader returned them.
        folders: what the names are relative to, the folder of most first.
        path: the data folder, or the annotation file in it.
        source: the annotation file, as in messages.

    Returns:
        The folders with links resolved, for `Annotations.roots`.

    Raises:
        InputError: a name that is absolute or climbs with `..` and leads elsewhere, or one with a control character.
    """
    roots = [*map(os.path.abspath, folders), os.path.abspath(path if path.is_dir() else path.parent)]
    for row in _suspicious(images, folders[0]):
        image = images[int(row)]
        place = f"{source}: image {row + 1} is {image[:200]!r}"
        if CONTROL.search(image):
            raise InputError(f"{place}, a name with a control character; expected a plain name")
        absolute = os.path.abspath(image)  # without `..`, links not followed
        if not any(absolute == root or absolute.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
            raise InputError(f"{place}, outside of the data folder {roots[-1]}; expected one inside, or --follow_links")
    return tuple(dict.fromkeys(os.path.realpath(root) for root in roots))


def _suspicious(images, folder):
    """Rows whose names need a closer look: few, even of 9 million."""
    if isinstance(images, ImagePaths):
        return _suspicious_bytes(images.data, images.offsets)
    prefix = os.path.join(folder, "")
    # What lies elsewhere counts as `..`.
    inner = (image[len(prefix) :] if image.startswith(prefix) else ".." for image in images)
    return [row for row, name in enumerate(inner) if ".." in name or CONTROL.search(name)]


def _suspicious_bytes(data, offsets):
    """Rows of UTF-8 names with `..`, a slash at the start or a control character."""
    found = re.finditer(rb"\.\.|[\x00-\x1f\x7f]|\xc2[\x80-\x9f]", memoryview(np.ascontiguousarray(data)))
    places = [match.start() for match in found]
    starts = offsets[:-1][offsets[1:] > offsets[:-1]]
    rows = [np.flatnonzero(offsets[1:] > offsets[:-1])[data[starts] == ord("/")]] if len(starts) else []
    if places:
        rows.append(np.searchsorted(offsets, places, side="right") - 1)
    return np.unique(np.concatenate(rows)) if rows else []
