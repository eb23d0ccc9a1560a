"""Tables of labels: one row per image, one column per attribute or class, or lists of labels; any cell may be unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from csl.errors import InputError, NoSplit
from csl.labels.annotations import Annotations, ColumnSummary
from csl.labels.class_set import several_values
from csl.labels.column_names import names_people
from csl.labels.columns import INTEGER, LIST, ONE, YES_NO, Column, columns_of_classes, folded, plain
from csl.labels.dialect import header_of
from csl.labels.image_column import image_column
from csl.labels.layouts import ATTRIBUTES, Images
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import SPLITS, contents, existing, known_split, split_name
from csl.labels.schema import Schema, infer
from csl.labels.shapes import reshaping
from csl.labels.split_column import split_column, split_words
from csl.labels.split_files import with_split
from csl.labels.table import SPLIT, Table
from csl.labels.table_files import own_folders, split_file, split_of_table, training_file_of
from csl.labels.table_options import ROLES, TableOptions

_EXAMPLES = 3  # of a column's cells, in its summary


def parse_attributes(text: str) -> dict[str, int]:
    """Sizes of attribute columns: "neck:7,sleeve_length:4" -> {"neck": 7, "sleeve_length": 4}.

    Raises:
        InputError: a part that is not NAME:SIZE with a size of at least 1, or a name given twice.
    """
    sizes = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.rpartition(":"))
        if not name or not (size.isascii() and size.isdigit()) or int(size) < 1:
            raise InputError(f"--attributes: found {part.strip()!r}, expected NAME:SIZE as in neck:7,sleeve_length:4")
        if name in sizes:
            raise InputError(f"--attributes: found {name!r} twice, expected each column once")
        sizes[name] = int(size)
    return sizes


def parse_roles(text: str) -> dict[str, str]:
    """Roles of columns: "Finding Labels=list,Age=ignored" -> {"Finding Labels": "list", "Age": "ignored"}.

    Raises:
        InputError: a part that is not NAME=ROLE.
    """
    roles = {}
    for part in text.split(","):
        name, equals, role = (piece.strip() for piece in part.rpartition("="))
        if not equals or not name:
            raise InputError(f"--roles: found {part.strip()!r}, expected NAME=ROLE with {', '.join(ROLES)}")
        roles[name] = role
    return roles


def read_attributes(
    path: str | Path,
    images: Images = None,
    split: str | None = None,
    attributes: Mapping[str, int] | None = None,
    ignore_columns: Sequence[str] | str = (),
    classes: Sequence[str] | None = None,
    groups: Mapping[str, slice] | None = None,
    columns: Sequence[str] = (),
    filename_column: str | None = None,
    roles: Mapping[str, str] | None = None,
    minus_one: str | None = None,
    unlisted: str | None = None,
    no_label: Sequence[str] = (),
    vote_threshold: float | None = None,
) -> Annotations:
    """Read a table of labels.

    What each column is for is inferred (`csl.labels.schema.infer`) unless an argument or a file `labels.toml` beside the
    table says it, and stands in `Annotations.columns`. A yes/no column is one class of its name. Integers up to M make the
    classes `Neck 0` to `Neck M`, words the classes `colour:Red` and so on by falling frequency, then by name: the known
    value is positive and the others of its group are negative; an unknown cell (`csl.labels.table.UNKNOWN`) leaves the whole
    group un-annotated. In a column of lists each word is a class, positive where it is listed.

    `weight` is how often an image is to be drawn in training: positive numbers of any scale, which only count against
    each other.

    The classes come from all rows of the file, whatever their split, so that the splits agree; where each split has
    its own file, they come from the training file. Several rows for one image are united: a label that they contradict each
    other in is un-annotated.

    Args:
        path: a CSV or another table (`csl.labels.dialect.SUFFIXES`), or a folder in which the first of these that exists is
            read: `attributes_{split}.csv`, `{split}.csv`, `{split}_labels.csv`, `{split}/_classes.csv`,
            `{split}/metadata.{csv,jsonl,parquet}`, Parquet of a split, also in parts (`train-00000-of-00003.parquet`) and in
            `data`, `attributes.csv`, or the only other table with a column of image names.
        images: the folder, or folders, that image names are relative to. By default they are looked for in (for
            `attributes_{split}.csv`) `images_augmented/train/images` (training split only) and
            `images_split/{split}/images`, then `images`, `{split}`, `images_split/{split}/images`, the table's own folder
            and where all readers look (`Layout.photos`).
        split: "train", "val" or "test": the rows with that word ("valid" and "validation" are val) in the split column, or
            those whose images are named `val/...` where all are named so, or all rows of a file of that split. A file that
            says nothing about splits is for training. None reads every row, in a folder with one file per split those of
            the training file.
        attributes: {column: size} of integer columns whose size the data need not show (`parse_attributes`).
        ignore_columns: names of columns that are no attributes, a sequence or one comma-separated string.
        classes: class names of a training run to read the file against; other columns are ignored.
        groups: {column: slice} of that run; without it every class is a yes/no column.
        columns, filename_column, roles, minus_one, unlisted, no_label, vote_threshold: as `TableOptions` takes them.

    Returns:
        Annotations in the order of the file, with `groups` for every column (slices of length 1 for yes/no), the rows
        as written in `table` and, where the file has them, `weights`.

    Raises:
        InputError: the file does not fit, or leaves open what it means; the message names file, line, column or flag.
    """
    path = existing(path)
    split = known_split(split)
    if isinstance(ignore_columns, str):
        ignore_columns = [name.strip() for name in ignore_columns.split(",")]
    file = split_file(path, split or "train") if path.is_dir() else path
    if file is None:
        split = split or "train"
        raise NoSplit(
            f"{path}: no CSV of the {split} split, expected attributes_{split}.csv, {split}.csv, attributes.csv or one table "
            f"with a column of image names; found {contents(path)}"
        )
    said = TableOptions(
        filename_column=filename_column, columns=columns, ignore_columns=ignore_columns, attributes=dict(attributes or {}),
        roles=dict(roles or {}), minus_one=minus_one, unlisted=unlisted, no_label=no_label, vote_threshold=vote_threshold,
    ).over_file(file)  # fmt: skip
    table = Table.read(file)
    if table.about.photos and images is not None:
        raise InputError(f"--images: found {images}, expected none for {file}, which holds the images")
    inside = images if table.about.photos is None else table.about.photos[1]
    photos = ATTRIBUTES.photos(file, split or split_of_table(file) or "train", inside, path, own_folders(file, split))
    training_file = training_file_of(path, file)
    training_table = table if training_file == file else Table.read(training_file)
    said = said.of_columns(training_table.columns)
    image = image_column(training_table, said, photos.has)
    table, training_table, said = as_read(table, training_table, said, image)
    if classes is not None:  # what the run takes for an attribute is not asked about again
        attributes_of_run = several_values(groups).keys() & set(training_table.columns)
        roles_of_run = dict.fromkeys(attributes_of_run, "attribute")
        said = replace(said, roles=roles_of_run | said.roles)
    found = infer(training_table, said, photos.has, classes is not None)
    if classes is not None:
        of_run = _columns_of_run(found, classes, groups)
        weight = None if found.weight in {column.name for column in of_run} else found.weight
        found = replace(found, columns=of_run, weight=weight)
        _check_sizes(found.columns, said.attributes)
    there = [column for column in found.columns if column.name in table.columns]
    if found.columns and not there and found.image in table.columns:
        raise NoSplit(f"{file}: none of the columns with labels, so that no row of the {split} split has any")
    for name in [found.image, *(column.name for column in found.columns)]:
        if name not in table.columns:
            raise InputError(f"{file}, line 1: no column {name!r}, expected it as in the training file")
    splits = _splits(table, found)
    return _annotations(table, _rows(table, split, found, splits), found, photos, classes, splits)


def as_read(table: Table, training_table: Table, said: TableOptions, image: str) -> tuple[Table, Table, TableOptions]:
    """A table and the training table as they are read, and what is said of them then.

    That is in the usual shape (`csl.labels.shapes`), with points for decimal commas, without sums, and with the split that
    files beside a table say where it says none.

    Raises:
        InputError: as `csl.labels.shapes.reshaping`.
    """
    first = _as_read(training_table, said, image)
    reshape, after = reshaping(first, said, image) if image in first.columns else ((lambda one: one), said)
    second = first if table is training_table else _as_read(table, said, image)
    return reshape(second), reshape(first), after


def _as_read(table, said, image):
    if image not in table.columns:
        return table
    lists = {name for name, role in said.roles.items() if role.partition(":")[0] == "list"}
    table = table.with_points(lists).without_sums(image)
    says = split_of_table(table.path) or split_column(table, said, image) or _split_folders(table, image) is not None
    return table if says else with_split(table, image)


def recognise(path: Path) -> bool:
    """Whether the path is a table of labels, by its name or by a column of image names, or a folder with such a file."""
    files = [split_file(path, split) for split in SPLITS] if path.is_dir() else [path]
    return any(file is not None and (ATTRIBUTES.is_label_file(file) or bool(header_of(file))) for file in files)


def _annotations(whole, rows, found, photos, classes, splits):
    """The annotations of some rows of a table by its schema."""
    table = whole.select(rows)
    names = table.text(found.image)
    if len(empty := np.flatnonzero(names == "")):
        raise InputError(f"{table.at(empty[0], found.image)}: found nothing, expected the name of an image")
    parts = [_in_run(column, table, classes) for column in found.columns]
    labels = np.concatenate(parts, axis=1)  # int8 [N, C]
    names_of_classes = [name for column in found.columns for name in column.classes]
    weights = table.weights(found.weight) if found.weight is not None and found.weight in table.columns else None
    notes = [*table.notes, *found.notes]
    own = [split_of_table(whole.path)] * len(rows) if splits is None else list(splits[rows])
    files = photos.found(names, splits=own)
    paths = np.array(files["images"], dtype=object)
    rows, first, group = np.unique(paths.astype(str), return_index=True, return_inverse=True)
    if len(rows) < len(names):
        group = np.argsort(np.argsort(first))[group]  # [N] number of each row's image, in the order of the file
        first = np.sort(first)
        of_list, in_cells = (
            np.array([is_so(column) for column in found.columns for _ in column.classes], dtype=bool)
            for is_so in (lambda column: column.kind == LIST, lambda column: column.separator != ONE)
        )
        united = of_list  # further rows add labels to a list
        if person := next(filter(names_people, table.columns), None):  # each of whom looked for all labels of a list
            _, who = np.unique(table.text(person).astype(str), return_inverse=True)
            _, one, who = np.unique(group * len(names) + who, return_index=True, return_inverse=True)
            labels, both = _united(labels, who, len(one))
            labels[both & ~of_list] = UNANNOTATED
            group, united = group[one], of_list & ~in_cells & ("annotation_id" not in table.columns)
        labels, both = _united(labels, group, len(rows))
        labels[both & ~united] = UNANNOTATED
        contradicted, differ = np.argwhere(both & ~united), np.flatnonzero((both & united & in_cells).any(axis=1))
        notes.append(f"{len(names) - len(rows):,} rows are further ones of an image: their labels are united")
        for image, label in contradicted[:3]:
            where = f"rows of {names[first[image]]!r} contradict each other"
            notes.append(f"{where} in {names_of_classes[label]!r}: not known")
        if len(contradicted) > 3:
            notes.append(f"... and {len(contradicted) - 3:,} more labels that rows contradict each other in")
        if len(differ):
            notes.append(
                f"{len(differ):,} images have rows with different lists, such as {names[first[differ[0]]]!r}: united"
            )
        table, paths = table.select(first), paths[first]
        names, weights = table.text(found.image), None if weights is None else weights[first]
    groups, start = {}, 0
    for name, size in (pair for column in found.columns for pair in column.groups.items()):
        groups[name] = slice(start, start + size)
        start += size
    return Annotations(
        **files | {"images": list(paths), "notes": (*notes, *files["notes"])},
        labels=LabelMatrix.from_dense(labels, UNANNOTATED),
        classes=names_of_classes,
        groups=groups,
        source=str(table.path),
        table=table.frame,
        weights=weights,
        columns=_summaries(table, whole, found, parts),
    )


def _in_run(column, table, classes):
    """Labels of a column; of a list read against a run, words that are no class of the run are left out."""
    if classes is None or column.kind != LIST:
        return column.labels(table)
    _, texts = table.known(column.name)
    known = {one for value in column.values for one in (value, folded(value))}
    words = {word for text in texts for word in column.words(text) or ()}
    strangers = {word for word in words if word not in known and folded(word) not in known}
    return replace(column, no_label=column.no_label | set(map(plain, strangers))).labels(table)


def _united(labels, group, count):
    """Labels [count, C] of images from those of their rows, and bool [count, C] where rows contradict each other."""
    united = []
    for value in (POSITIVE, NEGATIVE):
        has = np.zeros((count, labels.shape[1]), dtype=bool)
        np.logical_or.at(has, group, labels == value)
        united.append(has)
    yes, no = united
    return np.where(yes, POSITIVE, np.where(no, NEGATIVE, UNANNOTATED)).astype(np.int8), yes & no


def _summaries(table, whole, found, parts):
    """What each column of the table was taken for; examples are of the whole of it."""
    roles = {found.image: "image", found.split: "split", found.weight: "weight"}
    of_column = {column.name: (column, labels) for column, labels in zip(found.columns, parts, strict=True)}
    summaries = []
    for name in table.columns:
        if name in of_column:
            column, labels = of_column[name]
            role = {YES_NO: "class", LIST: "list"}.get(column.kind, "attribute")
            values = (POSITIVE, NEGATIVE, UNANNOTATED)
            shares = [float((labels == value).mean()) if labels.size else 0.0 for value in values]
            why = _meaning(column, table)
            size = len(column.classes)
        else:
            role, shares, size = roles.get(name, "ignored"), [None] * 3, 0
            why = "" if role != "ignored" else found.ignored.get(name, "no class of the run")
        _, texts = whole.known(name)
        summaries.append(ColumnSummary(name, role, size, *shares, tuple(texts[:_EXAMPLES]), why))
    return tuple(summaries)


def _meaning(column, table):
    """What the cells of a label column mean, in words."""
    words = {NEGATIVE: "negative", UNANNOTATED: "unknown"}
    unknown = table.unknown(column.name)
    known = {text: value for text, value in column.known_blanks(table).items() if value != UNANNOTATED}
    none = {text: unknown[text] for text in known} if column.kind == LIST else {}
    codes, texts = table.known(column.name)
    for text, count in zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)), strict=True):
        if column.kind == LIST and not column.vector and not (words_of_cell := column.words(text)):
            (unknown if words_of_cell is None else none)[text] = int(count)
    spelt = _counted({text: count for text, count in unknown.items() if text not in known})
    if column.kind == LIST:
        separated = {"": "one label a row", "json": "in brackets", " ": "separated by blanks", "\n": "a label a line"}
        how = separated.get(column.separator, f"separated by {column.separator}")
        more = f"; no label: {_counted(none)}" if none else ""
        return f"{how}; unlisted: {words[column.unlisted]}{more}" + (f"; unknown: {spelt}" if spelt else "")
    negative = [f"{text or 'empty'}: negative" for text in known]
    return "; ".join([*negative, *([f"unknown: {spelt}"] if spelt else [])])


def _counted(cells):
    return ", ".join(f"{text or 'empty'} ({count:,})" for text, count in cells.items())


def _columns_of_run(found: Schema, classes, groups) -> list[Column]:
    """The columns to read for the classes of a training run; those that are no columns of the table are words of its lists."""
    columns = columns_of_classes(classes, groups or {name: slice(k, k + 1) for k, name in enumerate(classes)})
    by_name = {column.name: column for column in found.columns}
    lists = [column for column in found.columns if column.kind == LIST]
    result: list[Column] = []
    words: dict[str, list[str]] = {}
    for column in columns:
        other = by_name.get(column.name)
        if column.kind == YES_NO and other is None and lists:
            owner = next((one for one in lists if column.name in one.values), lists[0])
            if owner.name not in words:
                result.append(owner)
            words.setdefault(owner.name, []).append(column.name)
        elif column.kind == YES_NO and other is not None and other.kind == YES_NO:
            result.append(other)
        else:
            result.append(column)
    return [replace(column, values=tuple(words[column.name])) if column.name in words else column for column in result]


def _check_sizes(columns, sizes):
    """Check that --attributes agrees with the run whose classes are used."""
    by_name = {column.name: column for column in columns}
    for name, size in sizes.items():
        column = by_name.get(name)
        if column is None or column.kind != INTEGER or len(column.values) != size:
            found = "no such attribute" if column is None else f"{column.kind} with classes {column.classes}"
            raise InputError(f"--attributes: found {name}:{size}, expected what the run was trained with: {found}")


def _splits(table, found):
    """The split of every row, object [N], by a column or the names of images; None where they do not say it."""
    if found.split is not None and found.split in table.columns:
        return split_words(table, found.split)
    return None if split_of_table(table.path) else _split_folders(table, found.image)


def _rows(table, split, found, splits):
    """Row numbers of the split, int64."""
    own = split_of_table(table.path)
    if split is None or (splits is None and split == (own or "train")):
        rows = np.arange(len(table))
        what = "a header without rows"
    elif splits is None:
        raise NoSplit(
            f"{table.path}: no rows of the {split} split, as there is no {SPLIT!r} column; "
            f"expected that column or a file attributes_{split}.csv (`python -m csl prepare attributes` makes it)"
        )
    else:
        rows = np.flatnonzero(splits == split)
        what = f"{found.split or found.image!r} with only {', '.join(sorted(set(splits))) or 'a header'}"
    if not len(rows):
        raise NoSplit(f"{table.path}: no rows of the {split or 'train'} split, found {what}")
    return rows


def _split_folders(table, image):
    """The split of every row by the first folder in the name of its image, where all are in folders of splits; or None."""
    folders = [name.replace("\\", "/").removeprefix("./").partition("/")[0] for name in table.text(image)]
    of_folder = {folder: split_name(folder) for folder in set(folders)}
    return np.array([of_folder[one] for one in folders], dtype=object) if all(of_folder.values()) else None
