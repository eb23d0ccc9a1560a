"""The role of each column of a table: which names the image, which holds labels and of which kind, and which is ignored.

Roles are said by a person (`TableOptions`, from flags or from `labels.toml` beside the table) or inferred; what is
inferred is printed, and what a table leaves open is asked: an InputError that names the flag which answers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.box_columns import box_places, class_of_boxes, list_of_boxes, only_class_of_boxes
from csl.labels.column_guess import guess, list_column, notes_of, yes_no
from csl.labels.column_questions import (
    ask_for_minus_one,
    ask_for_yes,
    expect_classes,
    refuse_shared_names,
    refuse_unused,
)
from csl.labels.columns import Column
from csl.labels.columns_together import beside_labels, one_a_row, votes
from csl.labels.image_column import image_column
from csl.labels.matching import few
from csl.labels.split_column import split_column, split_notes, splits_in
from csl.labels.table import WEIGHT, Table
from csl.labels.table_options import TableOptions


@dataclass(frozen=True)
class Schema:
    """The roles of a table's columns.

    Attributes:
        image: the column that names the images.
        split, weight: the columns of the split and of the sampling weight, None without one.
        columns: those that hold labels.
        ignored: {column: why}.
        notes: what was decided beside that, one line each.
    """

    image: str
    split: str | None
    weight: str | None
    columns: list[Column]
    ignored: dict[str, str]
    notes: list[str]


def infer(table: Table, options: TableOptions, is_photo: Callable[[str], bool], classes_known: bool = False) -> Schema:
    """The schema of a table.

    Args:
        table: all rows of the training file.
        options: what a person says of it.
        is_photo: whether a cell names an image file that is there.
        classes_known: a run says the classes, so that the table need not show any.

    Raises:
        InputError: a column that is named does not exist, no column names images or holds labels, two columns have a class
            of one name, or the table leaves open what -1 or a share of votes means.
    """
    image = image_column(table, options, is_photo)
    split = split_column(table, options, image)
    weight = _weight_column(table, options)
    wanted = options.wanted(table.columns, table.path)
    asked = dict.fromkeys(wanted, "any") | dict.fromkeys(options.attributes, "attribute") | options.label_roles
    ruled_out = options.ignored
    left = _Columns([name for name in table.columns if name not in {image, split, weight}])

    # What a person rules out is not looked into, nor what says a split once more or where a box is.
    left.ignore({name: "as --ignore_columns says" for name in left.names if name in ruled_out})
    left.ignore({name: "not in --columns" for name in left.names if wanted and name not in wanted})
    left.ignore(_of_splits(table, [name for name in left.names if name not in asked], split))
    _expect_cells(table, left.names)
    places = [name for name in box_places(table, left.names) if name not in asked]
    left.ignore(dict.fromkeys(places, "of a box"))
    has_boxes = bool(places) and not options.label_roles
    boxes = class_of_boxes(left.names) if has_boxes else None
    if boxes is not None:  # beside the class of a box all else is of the box, too
        left.ignore({name: "of a box" for name in left.names if name != boxes})
    else:
        # Each column by its own cells, then beside the others: a fact about the photo, a constant, a share of votes.
        for name in left.names:
            left.decide(name, *guess(table, name, options, asked.get(name)))
        left.ignore(beside_labels(table, left.labels, asked))
        for name in votes(table, left.ignored, left.labels, options):
            left.decide(name, yes_no(table, name, options))
        boxes = only_class_of_boxes(table, left.labels) if has_boxes else None
    # Where an image has several rows, what would be one label else is one of a list.
    if boxes is not None:
        left.decide(boxes, list_of_boxes(table, boxes, options))
    for name in one_a_row(table, left.labels, image, asked):
        left.decide(name, list_column(table, name, options, kinds.ONE))

    columns = list(left.labels.values())
    if not classes_known:
        expect_classes(table, columns, left.ignored)
        if options.minus_one is None:
            ask_for_minus_one(table, columns)
    refuse_unused(table, columns, options)
    if not classes_known:
        ask_for_yes(table, columns, asked)
    refuse_shared_names(table, columns)
    notes = split_notes(table, split)
    if boxes is not None:
        notes.append(f"a table of boxes: an image has each class of column {boxes!r} that it has a box of")
    notes += [note for column in columns for note in notes_of(table, column)]
    return Schema(image, split, weight, columns, left.ignored, notes)


class _Columns:
    """The columns of a table that may hold labels.

    Attributes:
        names: those that are not ignored.
        labels: those of them that are known to hold labels.
        ignored: {column: why}.
    """

    def __init__(self, names):
        self.names, self.labels, self.ignored = names, {}, {}

    def ignore(self, reasons):
        self.ignored |= reasons
        self.names = [name for name in self.names if name not in reasons]
        self.labels = {name: column for name, column in self.labels.items() if name not in reasons}

    def decide(self, name, column, why=""):
        """A column of labels, or None and why it holds none."""
        if column is None:
            self.ignored[name] = why
        else:
            self.ignored.pop(name, None)
            self.labels[name] = column


def _weight_column(table, options):
    """The column of the sampling weight: said, or called so; None where that is said to be another, or without one."""
    called = WEIGHT if WEIGHT in table.columns and options.roles.get(WEIGHT, "weight") == "weight" else None
    weight = options.column_of("weight") or called
    return None if weight in {*options.ignored, *options.attributes, *options.columns} else weight


def _of_splits(table, names, split):
    """{column: why} of those of these columns in which each cell says a split."""
    why = "words of a split" + (f", beside {split!r}" if split else "")
    said = {name: set(splits_in(table, name).values()) for name in names}
    return {name: why for name, splits in said.items() if splits and None not in splits}


def _expect_cells(table, names):
    """Refuse a table without a column that may hold labels, or without rows."""
    if not names:
        raise InputError(f"{table.path}, line 1: found no attribute among {few(table.columns)}, expected columns")
    if not len(table):
        raise InputError(f"{table.path}: found a header without rows, expected one row per image")
