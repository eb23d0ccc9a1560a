"""The columns of a table of boxes: a row a box, with its place and its class."""

import re
from collections.abc import Iterable, Mapping, Sequence

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.brackets import is_bracketed
from csl.labels.column_guess import list_column
from csl.labels.column_names import first_called, plain_name
from csl.labels.columns import Column
from csl.labels.matching import few_names
from csl.labels.table import Table
from csl.labels.table_options import TableOptions

_BOXES = (
    {"xmin", "ymin"}, {"minx", "miny"}, {"x1", "y1", "x2", "y2"}, {"x0", "y0", "x1", "y1"}, {"x", "y", "w", "h"},
    {"x", "y", "width", "height"}, {"xcenter", "ycenter"}, {"centerx", "centery"}, {"xc", "yc"}, {"cx", "cy"},
    {"left", "top", "right", "bottom"}, {"left", "top", "width", "height"}, {"bbox"}, {"boundingbox"},
    {"regionshapeattributes"},
)  # fmt: skip
"""Names of columns that place a box, without "bbox" before them; the others of `_PLACES` are with them."""
_PLACES = frozenset(
    {"w", "h", "width", "height", "xmax", "ymax", "maxx", "maxy", "fileattributes", "regionattributes"}
).union(*_BOXES)
_CLASS = (
    "class", "classname", "label", "labels", "labelname", "category", "categoryname", "name", "tag", "cls", "species", "object",
    "objectname", "objectclass", "type", "classid", "labelid", "categoryid",
)  # fmt: skip


def are_boxes(names: Iterable[str]) -> bool:
    """Whether columns of these names are those of boxes."""
    return any(box <= _without_box(names).keys() for box in _BOXES)


def _without_box(names):
    """{plain name, without a word for a box before it: name}."""
    return {re.sub("^(bbox|box|boundingbox|rect|roi)(?=.)", "", plain_name(name)): name for name in names}


def box_places(table: Table, names: Sequence[str]) -> list[str]:
    """Those of these columns that say where a box is; [] where there is no box, or all of them hold yes and no."""
    places = [name for plain, name in _without_box(names).items() if plain in _PLACES]
    texts = (text.lower() for name in places for text in table.known(name)[1])
    return places if are_boxes(names) and any(text not in kinds.YES_OR_NO for text in texts) else []


def class_of_boxes(names: Sequence[str]) -> str | None:
    """The column that is called as one of the classes of boxes, or None."""
    return first_called(names, _CLASS)


def only_class_of_boxes(table: Table, found: Mapping[str, Column]) -> str | None:
    """Where none is called so, the only column that may hold the classes; None beside yes/no columns, or without one.

    Raises:
        InputError: several may.
    """
    columns = [name for name, column in found.items() if column.kind != kinds.YES_NO]
    if len(columns) > 1:
        raise InputError(
            f"{table.path}: a table of boxes: {few_names(columns)} may hold their classes; expected --roles NAME=list"
        )
    return columns[0] if len(columns) == len(found) == 1 else None


def list_of_boxes(table: Table, name: str, options: TableOptions) -> Column:
    """The column of the classes of boxes, as the list of an image's labels."""
    bracketed = all(map(is_bracketed, table.known(name)[1]))
    return list_column(table, name, options, kinds.JSON if bracketed else kinds.ONE)
