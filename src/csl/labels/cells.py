"""The cells of a table, as the reader of each kind of file returns them."""

from pathlib import Path
from typing import NamedTuple

FILENAME = "filename"
"""The column of image names, also of a file without a header."""
SPLIT = "split"


class Cells(NamedTuple):
    """The cells of a table, all of them text.

    Attributes:
        header: names of the columns, without spaces around.
        rows: N lists of cells, as long as the header.
        lines: the line of the file that each row starts at.
        notes: what is unusual about the file, one line each.
        classes: {column: names of its classes by their number}, where the file declares them.
        photos: the column that names the files of photos that the file itself holds, and their folder; None without.
        separator: of the columns, in a file of text.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: list[str]
    classes: dict[str, list[str]] = {}  # noqa: RUF012 (never written to)
    photos: tuple[str, Path] | None = None
    separator: str = ","
