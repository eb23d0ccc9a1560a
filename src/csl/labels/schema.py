"""The role of each column of a table: which names the image, which holds labels and of which kind, and which is ignored.

Roles are said by a person (`TableOptions`, from flags or from `labels.toml` beside the table) or inferred; what is
inferred is printed, and what a table leaves open is asked: an InputError that names the flag which answers.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.brackets import is_bracketed
from csl.labels.column_guess import guess, list_column, notes_of, yes_no
from csl.labels.columns import Column, canonical, number
from csl.labels.matching import few, few_names
from csl.labels.paths import split_in, split_name
from csl.labels.table import FILENAME, SPLIT, WEIGHT, Table
from csl.labels.table_options import SIDE_FILE, TableOptions, columns_named
from csl.machine.image_formats import is_image_name

_IMAGE_NAMES = (
    "filename", "filenames", "imagename", "imagefilename", "imagefile", "imagepath", "imgpath", "image", "images", "img",
    "imageurl", "photo", "photos", "picture", "file", "files", "fname", "path", "paths", "filepath", "imageindex", "imageid",
    "imgid", "sourceref", "idcode", "bild", "bilddatei", "bildname", "dateiname", "foto", "id", "name",
)  # fmt: skip
_SPLIT_FLAGS = {
    "isvalid": ("val", "train"), "isval": ("val", "train"), "istest": ("test", "train"), "istrain": ("train", "val"),
    "istraining": ("train", "val"),
}  # fmt: skip
"""{name of a column: the split of yes and that of no}"""
SPLIT_NAMES = frozenset(
    {
        "split", "splits", "splitname", "datasplit", "set", "subset", "partition", "phase", "fold", "evaluationstatus",
        *_SPLIT_FLAGS,
    }
)  # fmt: skip
_NUMBERED = {"0": "train", "1": "val", "2": "test"}
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
_BOX_CLASS = (
    "class", "classname", "label", "labels", "labelname", "category", "categoryname", "name", "tag", "cls", "species", "object",
    "objectname", "objectclass", "type", "classid", "labelid", "categoryid",
)  # fmt: skip
_LOOKED_AT = 16  # cells of a column, which may name photos
_BLOCK = 5  # yes/no columns beside which words are taken for facts about the photo
_VOTERS = 10  # at most
_ALIKE = 3  # columns of the same two words


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


def names_images(column: str) -> bool:
    """Whether a column of that name usually names images; `id` and `name` alone may be of anything."""
    return _plain(column) in _IMAGE_NAMES[:-2]


def names_split(column: str) -> bool:
    """Whether a column of that name usually says the split."""
    return _plain(column) in SPLIT_NAMES


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
    weight = WEIGHT if WEIGHT in table.columns and options.roles.get(WEIGHT, "weight") == "weight" else None
    weight = next((name for name, role in options.roles.items() if role == "weight"), weight)
    ignored_names = {*options.ignore_columns, *(name for name, role in options.roles.items() if role == "ignored")}
    if weight in ignored_names or weight in options.attributes or weight in options.columns:
        weight = None
    wanted = _wanted(table, options.columns)
    said = {
        name: role for name, role in options.roles.items() if role.partition(":")[0] in ("class", "attribute", "list")
    }
    firm = {*said, *options.attributes, *wanted}
    rest = [name for name in table.columns if name not in {image, split, weight}]
    ignored = {name: "as --ignore_columns says" for name in rest if name in ignored_names}
    rest = [name for name in rest if name not in ignored]
    if wanted:
        ignored |= {name: "not in --columns" for name in rest if name not in wanted}
        rest = [name for name in rest if name in wanted]
    splits = {name: set(_splits_in(table, name).values()) for name in rest if name not in firm}
    others = [name for name, values in splits.items() if values and None not in values]
    ignored |= dict.fromkeys(others, "words of a split" + (f", beside {split!r}" if split else ""))
    rest = [name for name in rest if name not in others]
    if not rest:
        raise InputError(f"{table.path}, line 1: found no attribute among {few(table.columns)}, expected columns")
    if not len(table):
        raise InputError(f"{table.path}: found a header without rows, expected one row per image")

    notes = _split_notes(table, split)
    places = [] if wanted else [name for name in _box_places(table, rest) if name not in firm]
    ignored |= dict.fromkeys(places, "of a box")
    rest = [name for name in rest if name not in places]
    boxes = _named(rest, _BOX_CLASS) if places and not said else None
    if boxes is not None:
        ignored |= {name: "of a box" for name in rest if name != boxes}
        rest = []

    found: dict[str, Column] = {}
    for name in rest:
        asked = said.get(name, "attribute" if name in options.attributes else "any" if wanted else None)
        column, why = guess(table, name, options, asked)
        if column is None:
            ignored[name] = why
        else:
            found[name] = column
    for name, why in (_no_labels(table, found, firm) | _constants(table, found, firm)).items():
        ignored[name] = why
        del found[name]
    found |= _votes(table, ignored, found, options)
    of_boxes = boxes if said or not places or boxes is not None else _column_of_boxes(table, found)
    if of_boxes is not None:
        separator = kinds.JSON if all(map(is_bracketed, table.known(of_boxes)[1])) else kinds.ONE
        found[of_boxes] = list_column(table, of_boxes, options, separator)
        notes.append(f"a table of boxes: an image has each class of column {of_boxes!r} that it has a box of")
    for name in _one_a_row(table, found, image, firm):
        found[name] = list_column(table, name, options, kinds.ONE)
    if not any(column.classes for column in found.values()) and not classes_known:
        reasons = few([f"{name} ({why})" for name, why in ignored.items()])
        raise InputError(
            f"{table.path}: no column holds labels: {reasons}; expected some, or --columns NAMES says which do"
        )
    columns = list(found.values())
    if options.minus_one is None and not classes_known:
        _ask_for_minus_one(table, columns)
    _check_used(table, columns, options)
    if not classes_known:
        _ask_for_yes(table, columns, firm)
    _check_classes(table, columns)
    notes += [note for column in columns for note in notes_of(table, column)]
    return Schema(image, split, weight, columns, ignored, notes)


# ---------------------------------------------------------------------------------------------------- image and split


def _plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _check_names(table, options):
    ranges = [end for name in options.columns if ".." in name for end in name.split("..", 1)]
    plain = [name for name in options.columns if ".." not in name and not re.search(r"[*?[]", name)]
    named = {
        "--filename_column": [options.filename_column] if options.filename_column else [],
        "--columns": [*ranges, *plain],
        "--ignore_columns": options.ignore_columns,
        "--attributes": options.attributes,
        "--roles": options.roles,
    }
    for flag, names in named.items():
        for name in names:
            if name not in table.columns:
                beside = f" or {SIDE_FILE}" if (table.path.parent / SIDE_FILE).is_file() else ""
                raise InputError(f"{flag}{beside}: no column {name!r} in {table.path}, {_nearest(name, table.columns)}")


def _nearest(name, names):
    near = difflib.get_close_matches(name, names, 3, 0.6)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"found {few(names)}"


def _wanted(table, patterns):
    """The columns that the patterns name, in the order of the table."""
    names = table.columns
    wanted = {name for pattern in patterns for name in columns_named(names, pattern)}
    if patterns and not wanted:
        raise InputError(f"--columns {','.join(patterns)}: names no column of {table.path}, found {few(names)}")
    return [name for name in names if name in wanted]


def image_column(table: Table, options: TableOptions, is_photo: Callable[[str], bool]) -> str:
    """The column that names the images: said, called so, or known by its cells.

    Raises:
        InputError: there is none, or the options name a column that does not exist.
    """
    _check_names(table, options)
    said = options.image or (table.about.photos[0] if table.about.photos else None)
    if said is not None or FILENAME in table.columns:
        return said or FILENAME
    head = table.select(np.arange(min(len(table), _LOOKED_AT)))
    named = [column for name in _IMAGE_NAMES if (column := _named(table.columns, [name])) is not None]
    sure = [column for column in named if names_images(column)]

    def photos_in(column):
        texts = set(head.text(column))
        yes_no = {text.lower() for text in texts} <= kinds.YES | kinds.NO
        return 0 if yes_no else sum((1 + is_image_name(text)) * is_photo(text) for text in texts)

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
    return (
        len(texts) > _LOOKED_AT
        and len(set(texts)) == len(texts)
        and all(text and " " not in text and number(text) is None for text in texts)
    )


def split_column(table: Table, options: TableOptions, image: str) -> str | None:
    """The column that says the split: said, or known by its name and its cells; or None."""
    said = next((name for name, role in options.roles.items() if role == "split"), None)
    if said is not None or (SPLIT in table.columns and options.roles.get(SPLIT) is None):
        return said or SPLIT
    taken = {*options.roles, *options.attributes, *options.columns, *options.ignore_columns, image}
    for column in table.columns:
        if column in taken:
            continue
        if _says_split(table, column):
            return column
        splits, plain = _splits_in(table, column), _plain(column)
        known = {found or split_in(text) for text, found in splits.items()} if "train" in splits.values() else set()
        if plain != "fold" and (len(known - {None}) > 1 or (splits and plain in _SPLIT_FLAGS)):
            texts = table.text(column)
            stray = next(row for row, text in enumerate(texts) if splits[text] is None)
            raise InputError(
                f"{table.at(stray, column)}: found {texts[stray]!r}, and the split in other rows; expected train, val or test "
                f"in each, or --roles {column}=ignored"
            )
    return None


def _says_split(table, column):
    """Whether each cell says a split: of a column that is called so, or one with training and another."""
    splits = set(_splits_in(table, column).values())
    return bool(splits) and None not in splits and (_plain(column) in SPLIT_NAMES or {"train"} < splits)


def _splits_in(table, column):
    """{cell: the split that it says, or None}; {} where the first cells say none."""
    if _plain(column) in SPLIT_NAMES:
        return {text: split_of_cell(column, text) for text in set(table.text(column))}
    if not any(map(split_name, table.frame[column].head(_LOOKED_AT))):
        return {}
    return {text: split_name(text) for text in set(table.text(column))}


def split_of_cell(column: str, text: str) -> str | None:
    """The split that a cell of a column of that name says, or None."""
    plain, word = _plain(column), text.lower()
    if plain in _SPLIT_FLAGS:
        yes, no = _SPLIT_FLAGS[plain]
        return yes if word in kinds.YES else no if word in kinds.NO else None
    return split_name(text) or _NUMBERED.get(canonical(text))


def _split_notes(table, split):
    """What is taken for the split, where another might be meant."""
    if split is None:
        return []
    meant = [(text, split_of_cell(split, text)) for text in sorted(set(table.text(split)))]
    words = ", ".join(f"{text} is {said}" for text, said in meant if said not in (None, text.lower()))
    return (
        [f"column {split!r} says the split" + (f": {words}" if words else "")]
        if words or _plain(split) != SPLIT
        else []
    )


# ---------------------------------------------------------------------------------------------- the columns together


def are_boxes(names: Iterable[str]) -> bool:
    """Whether columns of these names are those of boxes."""
    return any(box <= _without_box(names).keys() for box in _BOXES)


def _without_box(names):
    """{plain name, without a word for a box before it: name}."""
    return {re.sub("^(bbox|box|boundingbox|rect|roi)(?=.)", "", _plain(name)): name for name in names}


def _named(names, wanted):
    """The first column that is called as one of these, the first of these first; None without one."""
    by_plain = {_plain(name): name for name in reversed(names)}
    return next((by_plain[name] for name in wanted if name in by_plain), None)


def _box_places(table, names):
    """The columns that say where a box is, which are not all yes/no; [] where there is no box."""
    by_plain = _without_box(names)
    places = [name for plain, name in by_plain.items() if plain in _PLACES]
    is_box = are_boxes(names) and any(
        text.lower() not in kinds.YES | kinds.NO for name in places for text in table.known(name)[1]
    )
    return places if is_box else []


def _column_of_boxes(table, found):
    """The only column of words or numbers that may hold the classes of boxes; None beside yes/no columns, or without one."""
    columns = [name for name, column in found.items() if column.kind != kinds.YES_NO]
    if len(columns) > 1:
        raise InputError(
            f"{table.path}: a table of boxes: {few_names(columns)} may hold their classes; expected --roles NAME=list"
        )
    return columns[0] if len(columns) == len(found) == 1 else None


def _no_labels(table, found, firm):
    """{column: why} of columns that hold no labels beside the others, unless a person named them (`firm`)."""
    of_kind = {kind: [n for n, c in found.items() if c.kind == kind] for kind in (kinds.YES_NO, kinds.LIST)}
    no_labels = {}
    for name in of_kind[kinds.LIST]:
        words = set(found[name].values)
        if name not in firm and words and words <= set(of_kind[kinds.YES_NO]):
            no_labels[name] = "repeats the yes/no columns"
    lists = [name for name in of_kind[kinds.LIST] if name not in no_labels]
    others = [n for n, c in found.items() if c.kind in (kinds.INTEGER, kinds.STRING) and n not in firm]
    words = [name for name in others if found[name].kind == kinds.STRING]
    sizes = [n for n in others if re.search("size$", n, re.IGNORECASE) and None not in map(number, found[n].values)]
    if len(sizes) < len(found):  # else they are what the table is about
        no_labels |= dict.fromkeys(sizes, "numbers, by its name no label")
    if lists:
        no_labels |= dict.fromkeys(others, f"a fact about the photo, beside the list {lists[0]!r}?")
    elif len(of_kind[kinds.YES_NO]) >= max(_BLOCK, 3 * len(words)):
        no_labels |= dict.fromkeys(
            words, f"a fact about the photo, beside {len(of_kind[kinds.YES_NO])} yes/no columns?"
        )
    return no_labels


def _constants(table, found, firm):
    """{column: why} of attributes that never vary, where others do, unless a person named them (`firm`). A letter for yes or
    no that no varying column has is one, too: F beside 0 and 1 is a word for female."""
    words = {name: {text.lower() for text in table.known(name)[1]} for name in found}
    of_others = {word for name in found if len(words[name]) > 1 for word in words[name]}
    same = {}
    for name in found if of_others and len(table) > 1 else ():
        letter = words[name] & {*"fntyj"} - of_others
        attribute = found[name].kind in (kinds.INTEGER, kinds.STRING)
        if len(words[name]) == 1 and (attribute or letter) and name not in firm and not table.unknown(name):
            same[name] = f"the same in every row: {table.known(name)[1][0]}"
    return same


def _one_a_row(table, found, image, firm):
    """Columns of words of which an image has several, in rows of its own: a label a row."""
    names = table.text(image)
    if len(set(names)) == len(names) or any(column.kind == kinds.YES_NO for column in found.values()):
        return []
    several = []
    for name, column in found.items():
        codes, _ = table.known(name)
        pairs = {(image_name, code) for image_name, code in zip(names, codes, strict=True) if code >= 0}
        if column.kind == kinds.STRING and name not in firm and len(pairs) > len({one for one, _ in pairs}):
            several.append(name)
    return several


def _votes(table, ignored, found, options):
    """The columns of shares of votes, which are labels where a threshold is said, or nothing else is a label."""
    shares = [name for name, why in ignored.items() if why == "shares of votes?"]
    if options.vote_threshold is not None:
        for name in shares:
            del ignored[name]
        return {name: yes_no(table, name, options) for name in shares}
    any_yes_no = any(column.kind == kinds.YES_NO for column in found.values())
    asked = [name for name in shares if not found or (any_yes_no and _are_votes(table.known(name)[1]))]
    if asked:
        raise InputError(
            f"{table.path}: column {asked[0]!r} holds numbers between 0 and 1, such as shares of votes; expected "
            "--vote_threshold X, from which on they count as yes"
            + (f", or --ignore_columns {asked[0]}" if found else "")
        )
    return {}


def _are_votes(texts):
    """Whether shares between 0 and 1 are those of the same few voters, as are 0.33, 0.67 and 1."""
    shares = np.array([float(text) for text in texts])
    return any(
        np.abs(shares * voters - np.round(shares * voters)).max() < 0.01 * voters for voters in range(2, _VOTERS)
    )


def _ask_for_minus_one(table, columns):
    """Ask what -1 means where a table has 1 and -1 and no 0 at all."""
    yes_no = [column for column in columns if column.kind == kinds.YES_NO]
    holds = [column for column in yes_no if {"-1", "-1.0"} & set(table.unknown(column.name))]
    if not holds or any(text.lower() in kinds.NO for column in yes_no for text in table.known(column.name)[1]):
        return
    raise InputError(
        f"{table.path}: column {holds[0].name!r} and {len(holds) - 1} more hold -1, and no yes/no column a 0: -1 may mean "
        "no or not known; expected --minus_one negative or --minus_one unknown"
    )


def _ask_for_yes(table, columns, firm):
    """Ask which word is yes where the same two stand in several columns, such as `low` and `high` or words of a language."""
    of_words: dict[frozenset, list[str]] = {}
    for column in columns:
        if column.kind == kinds.STRING and len(column.values) == 2 and column.name not in firm:
            of_words.setdefault(frozenset(map(kinds.folded, column.values)), []).append(column.name)
    for names in of_words.values():
        if len(names) >= _ALIKE:
            words = table.known(names[0])[1][:2]
            said = f"{names[0]}..{names[-1]}"
            raise InputError(
                f"{table.path}: {len(names)} columns hold {words[0]!r} and {words[1]!r} alone ({few_names(names)}), perhaps "
                f"for yes and no; expected --roles '{said}=class:WORD' with the word for yes, or '{said}=attribute' where each "
                "is a class of its own"
            )


def _check_used(table, columns, options):
    """Refuse what a person says of a kind of column that the table has none of."""
    yes_no = [column.name for column in columns if column.kind == kinds.YES_NO]
    lists = any(column.kind == kinds.LIST for column in columns)
    marks = any(column.marks for column in columns)
    used = {
        "minus_one": (any({"-1", "-1.0"} & set(table.unknown(name)) for name in yes_no), "no yes/no column holds -1"),
        "unlisted": (lists or marks, "there is no column of lists or marks"),
        "no_label": (lists, "there is no column of lists"),
        "vote_threshold": (
            any("." in text and number(text) % 1 for name in yes_no for text in table.known(name)[1] if number(text)),
            "no column holds shares of votes",
        ),
    }
    for name, (is_used, why) in used.items():
        if getattr(options, name) and name not in options.settled and not is_used:
            raise InputError(f"--{name} changes nothing: {why} in {table.path}; leave it out")


def _check_classes(table, columns):
    owner: dict[str, str] = {}
    for column in columns:
        for name in column.classes:
            if owner.setdefault(name, column.name) != column.name:
                raise InputError(
                    f"{table.path}, line 1: columns {owner[name]!r} and {column.name!r} both have a class {name!r}, "
                    "expected different names"
                )
