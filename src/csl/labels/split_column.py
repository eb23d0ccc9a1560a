"""Which column of a table says the split of an image, and what its cells say."""

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.column_names import plain_name
from csl.labels.columns import canonical
from csl.labels.paths import split_in, split_name
from csl.labels.table import SPLIT, Table
from csl.labels.table_options import TableOptions

_OF_FLAGS = {
    "isvalid": ("val", "train"), "isval": ("val", "train"), "istest": ("test", "train"), "istrain": ("train", "val"),
    "istraining": ("train", "val"),
}  # fmt: skip
"""{plain name of a column: the split of yes and that of no}"""
SPLIT_NAMES = frozenset(
    {
        "split", "splits", "splitname", "datasplit", "set", "subset", "partition", "phase", "fold", "evaluationstatus",
        *_OF_FLAGS,
    }
)  # fmt: skip
"""Plain names of such columns."""
_NUMBERED = {"0": "train", "1": "val", "2": "test"}
_LOOKED_AT = 16  # cells of a column that is called otherwise, one of which must say a split


def names_split(column: str) -> bool:
    """Whether a column of that name usually says the split."""
    return plain_name(column) in SPLIT_NAMES


def split_column(table: Table, options: TableOptions, image: str) -> str | None:
    """The column that says the split: said, or known by its name and its cells; or None.

    Raises:
        InputError: a column says the split in some rows and something else in others.
    """
    said = options.column_of("split")
    if said is not None or (SPLIT in table.columns and SPLIT not in options.roles):
        return said or SPLIT
    taken = {*options.named, image}
    for column in table.columns:
        if column in taken:
            continue
        splits = splits_in(table, column)
        values = set(splits.values())
        if splits and None not in values and (names_split(column) or {"train"} < values):
            return column
        known = {found or split_in(text) for text, found in splits.items()} if "train" in values else set()
        name = plain_name(column)
        if name != "fold" and (len(known - {None}) > 1 or (splits and name in _OF_FLAGS)):
            texts = table.text(column)
            stray = next(row for row, text in enumerate(texts) if splits[text] is None)
            raise InputError(
                f"{table.at(stray, column)}: found {texts[stray]!r}, and the split in other rows; expected train, val or test "
                f"in each, or --roles {column}=ignored"
            )
    return None


def splits_in(table: Table, column: str) -> dict[str, str | None]:
    """{cell: the split that it says, or None}; {} where the first cells say none."""
    if names_split(column):
        return {text: split_of_cell(column, text) for text in set(table.text(column))}
    if not any(map(split_name, table.frame[column].head(_LOOKED_AT))):
        return {}
    return {text: split_name(text) for text in set(table.text(column))}


def split_of_cell(column: str, text: str) -> str | None:
    """The split that a cell of a column of that name says, or None."""
    name, word = plain_name(column), text.lower()
    if name in _OF_FLAGS:
        yes, no = _OF_FLAGS[name]
        return yes if word in kinds.YES else no if word in kinds.NO else None
    return split_name(text) or _NUMBERED.get(canonical(text))


def split_words(table: Table, column: str) -> np.ndarray:
    """The split of every row by that column, object [N] of "train", "val" and "test".

    Raises:
        InputError: another word in it.
    """
    texts = table.text(column)
    of_text = {text: split_of_cell(column, text) for text in set(texts)}
    for row, text in enumerate(texts):
        if of_text[text] is None:
            raise InputError(f"{table.at(row, column)}: found {text!r}, expected one of train, val, test")
    return np.array([of_text[text] for text in texts], dtype=object)


def split_notes(table: Table, column: str | None) -> list[str]:
    """A line where the column is called otherwise than "split", or its cells say a split in other words."""
    if column is None:
        return []
    meant = [(text, split_of_cell(column, text)) for text in sorted(set(table.text(column)))]
    words = ", ".join(f"{text} is {said}" for text, said in meant if said not in (None, text.lower()))
    if not words and plain_name(column) == SPLIT:
        return []
    return [f"column {column!r} says the split" + (f": {words}" if words else "")]
