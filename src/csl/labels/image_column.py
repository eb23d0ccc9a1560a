"""Which column of a table names the images."""

from collections.abc import Callable

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.column_names import first_called, plain_name
from csl.labels.columns import number
from csl.labels.matching import few_names
from csl.labels.table import FILENAME, Table
from csl.labels.table_options import TableOptions
from csl.machine.image_formats import is_image_name

_NAMES = (
    "filename", "filenames", "imagename", "imagefilename", "imagefile", "imagepath", "imgpath", "image", "images", "img",
    "imageurl", "photo", "photos", "picture", "file", "files", "fname", "path", "paths", "filepath", "imageindex", "imageid",
    "imgid", "sourceref", "idcode", "bild", "bilddatei", "bildname", "dateiname", "foto",
)  # fmt: skip
_PERHAPS = ("id", "name")  # of images, or of anything else
_LOOKED_AT = 16  # rows whose cells may name photos


def names_images(column: str) -> bool:
    """Whether a column of that name usually names images; `id` and `name` alone may be of anything."""
    return plain_name(column) in _NAMES


def image_column(table: Table, options: TableOptions, is_photo: Callable[[str], bool]) -> str:
    """The column that names the images: said, called so, or known by its cells.

    Args:
        table: all rows of the training file.
        options: what a person says of it.
        is_photo: whether a cell names an image file that is there.

    Raises:
        InputError: there is none, or the options name a column that does not exist.
    """
    options.check_names(table.columns, table.path)
    said = options.image or (table.about.photos[0] if table.about.photos else None)
    if said is not None or FILENAME in table.columns:
        return said or FILENAME
    named = [column for name in (*_NAMES, *_PERHAPS) if (column := first_called(table.columns, [name])) is not None]
    sure = [column for column in named if names_images(column)]
    head = table.select(np.arange(min(len(table), _LOOKED_AT)))

    def photos_in(column):
        """How many of the first cells name photos that are there; twice as much where they end as image files do."""
        texts = set(head.text(column))
        yes_no = {text.lower() for text in texts} <= kinds.YES_OR_NO
        return 0 if yes_no else sum((1 + is_image_name(text)) * is_photo(text) for text in texts)

    # Photos that are there tell most: in a column that is called so, else in whichever has most of them.
    if column := next((column for column in sure if photos_in(column)), None):
        return column
    column = max([*named, *table.columns], key=photos_in, default=None)
    if column is not None and photos_in(column):
        if column not in named and (is_photo(column) or {*table.columns} - {column} <= {"0", "1", "-1"}):
            raise InputError(
                f"{table.path}, line 1: found {few_names(table.columns)}, the labels of a photo? Expected a header: put one "
                f"above it, or --filename_column {column} if it is one"
            )
        return column
    # Where none is there, the name of a column, then how its cells end, then a name that may be of anything.
    by_ending = (name for name in table.columns if any(map(is_image_name, head.text(name))))
    if column := next(iter([*sure, *by_ending, *named]), None):
        return column
    distinct = [column for column in table.columns if _are_names(table, column)]
    if len(distinct) == 1:
        return distinct[0]
    found = few_names(table.columns)
    raise InputError(
        f"{table.path}, line 1: no {FILENAME!r} column, found {found}; expected one, or --filename_column NAME"
    )


def _are_names(table, column):
    """Whether the cells are words without blanks, no value twice."""
    texts = table.text(column)
    distinct = len(texts) > _LOOKED_AT and len(set(texts)) == len(texts)
    return distinct and all(text and " " not in text and number(text) is None for text in texts)
