"""The role of each column of a table: which names the image, which holds labels and of which kind, and which is ignored.

Roles are said by a person (`TableOptions`, from flags or from `labels.toml` beside the table) or inferred; what is
inferred is printed, and what a table leaves open is asked: an InputError that names the flag which answers.
"""

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.columns import Column, canonical, integer, number
from csl.labels.dialect import is_index
from csl.labels.matching import few, few_names
from csl.labels.matrix import NEGATIVE, UNANNOTATED
from csl.labels.paths import split_name
from csl.labels.table import FILENAME, SPLIT, WEIGHT, Table
from csl.labels.table_options import TableOptions
from csl.machine.image_formats import is_image_name

_IMAGE_NAMES = (
    "filename", "filenames", "imagename", "imagefilename", "imagefile", "imagepath", "imgpath", "image", "images", "img",
    "imageurl", "photo", "photos", "picture", "file", "files", "fname", "path", "paths", "filepath", "imageindex", "imageid",
    "imgid", "sourceref", "id", "name",
)  # fmt: skip
_SPLIT_NAMES = (
    "split",
    "splits",
    "splitname",
    "datasplit",
    "set",
    "subset",
    "partition",
    "phase",
    "isvalid",
    "isval",
    "fold",
)
_NUMBERED = {"0": "train", "1": "val", "2": "test"}
_BOXES = (
    {"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"}, {"bboxx", "bboxy", "bboxwidth", "bboxheight"}, {"bbox"}
)  # fmt: skip
_BOX_CLASS = ("class", "classname", "label", "labelname", "category", "categoryname", "name", "tag")
_MEASURES = frozenset(
    {
        "age", "width", "height", "area", "lat", "latitude", "lon", "lng", "longitude",
        "x", "y", "xmin", "ymin", "xmax", "ymax", "timestamp", "time", "date", "pixels", "price",
    }
)  # fmt: skip
"""Words in the name of a column of numbers that is no label."""
_IDENTIFIERS = frozenset({"id", "ids", "uuid", "index", "idx"})
"""Words in the name of a column that holds no label, even where all of its few rows have a 1."""
_PEOPLE = frozenset(
    {"annotator", "annotators", "rater", "labeler", "labeller", "reviewer", "worker", "user", "author", "photographer"}
)
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([ T].*)?|\d{1,2}:\d{2}(:\d{2})?"
)
_PLACE = re.compile(r"\w+://\S+|.*[/\\].*\.\w{2,5}")
_SENTENCE = re.compile(r"[.!?](\s|$)|\s['\"(]|['\")]\s")

_SMALL = 50  # values that any column may have, however few its rows
_SPARSE = 4  # integers that leave out more than three of four values are names, not counts
_FREE_TEXT = 0.25  # distinct values per known row above which a column is no attribute
_CONSTANT = 20  # rows in which a word that never changes is no attribute
_BLOCK = 5  # yes/no columns beside which words are taken for facts about the photo
_VOTERS = 10  # at most
_LIST_SEPARATORS = "|;, "


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


def split_words(table: Table, column: str) -> np.ndarray:
    """The split of every row by that column, object [N] of "train", "val" and "test".

    Raises:
        InputError: another word in it.
    """
    texts = table.text(column)
    of_text = {text: _split_of(column, text) for text in set(texts)}
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
    split = _split_column(table, options, image)
    weight = WEIGHT if WEIGHT in table.columns and options.roles.get(WEIGHT, "weight") == "weight" else None
    weight = next((name for name, role in options.roles.items() if role == "weight"), weight)
    ignored_names = {*options.ignore_columns, *(name for name, role in options.roles.items() if role == "ignored")}
    if weight in ignored_names or weight in options.attributes or weight in options.columns:
        weight = None
    wanted = _wanted(table, options.columns)
    said = {name: role for name, role in options.roles.items() if role in ("class", "attribute", "list")}
    rest = [name for name in table.columns if name not in {image, split, weight}]
    ignored = {name: "as --ignore_columns says" for name in rest if name in ignored_names}
    rest = [name for name in rest if name not in ignored]
    if wanted:
        ignored |= {name: "not in --columns" for name in rest if name not in wanted}
        rest = [name for name in rest if name in wanted]
    if not rest:
        raise InputError(f"{table.path}, line 1: found no attribute among {few(table.columns)}, expected columns")
    if not len(table):
        raise InputError(f"{table.path}: found a header without rows, expected one row per image")

    notes = []
    boxes = _box_class(rest) if not wanted and not said else None
    if boxes is not None:
        others = {name: "of a box" for name in rest if name != boxes}
        notes.append(f"a table of boxes: an image has each class of column {boxes!r} that it has a box of")
        return Schema(image, split, weight, [_list_column(table, boxes, options, kinds.ONE)], ignored | others, notes)

    found: dict[str, Column] = {}
    for name in rest:
        asked = said.get(name, "attribute" if name in options.attributes else "any" if wanted else None)
        column, why = _column(table, name, options, asked)
        if column is None:
            ignored[name] = why
        else:
            found[name] = column
    firm = {*said, *options.attributes, *wanted}
    for name, why in _no_labels(table, found, firm).items():
        ignored[name] = why
        del found[name]
    found |= _votes(table, ignored, found, options)
    for name in _one_a_row(table, found, image, firm):
        found[name] = _list_column(table, name, options, kinds.ONE)
    if not found and not classes_known:
        reasons = few([f"{name} ({why})" for name, why in ignored.items()])
        raise InputError(
            f"{table.path}: no column holds labels: {reasons}; expected some, or --columns NAMES says which do"
        )
    columns = list(found.values())
    if options.minus_one is None and not classes_known:
        _ask_for_minus_one(table, columns)
    _check_used(table, columns, options)
    _check_classes(table, columns)
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
                raise InputError(f"{flag}: no column {name!r} in {table.path}, {_nearest(name, table.columns)}")


def _nearest(name, names):
    near = difflib.get_close_matches(name, names, 3, 0.6)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"found {few(names)}"


def _wanted(table, patterns):
    """The columns that the patterns name, in the order of the table."""
    names, wanted = table.columns, set()
    for pattern in patterns:
        if ".." in pattern:
            first, last = sorted(names.index(end) for end in pattern.split("..", 1))
            wanted |= set(names[first : last + 1])
        else:
            wanted |= {name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)}
    if patterns and not wanted:
        raise InputError(f"--columns {','.join(patterns)}: names no column of {table.path}, found {few(names)}")
    return [name for name in names if name in wanted]


def image_column(table: Table, options: TableOptions, is_photo: Callable[[str], bool]) -> str:
    """The column that names the images: said, called so, or known by its cells.

    Raises:
        InputError: there is none, or the options name a column that does not exist.
    """
    _check_names(table, options)
    said = options.filename_column or next((name for name, role in options.roles.items() if role == "image"), None)
    said = said or (table.about.photos[0] if table.about.photos else None)
    if said is not None or FILENAME in table.columns:
        return said or FILENAME
    by_plain = {_plain(name): name for name in reversed(table.columns)}
    candidates = [by_plain[name] for name in _IMAGE_NAMES if name in by_plain]

    def names_photos(column):
        return any(is_photo(text) for text in table.text(column)[:16])

    for column in [*candidates, *(name for name in table.columns if name not in candidates)]:
        if names_photos(column):
            return column
    by_ending = (name for name in table.columns if any(is_image_name(text) for text in table.text(name)[:16]))
    if column := next(iter(candidates), next(by_ending, None)):
        return column
    found = few_names(table.columns)
    raise InputError(
        f"{table.path}, line 1: no {FILENAME!r} column, found {found}; expected one, or --filename_column NAME"
    )


def _split_column(table, options, image):
    said = next((name for name, role in options.roles.items() if role == "split"), None)
    if said is not None or (SPLIT in table.columns and options.roles.get(SPLIT) is None):
        return said or SPLIT
    taken = {*options.roles, *options.attributes, *options.columns, *options.ignore_columns, image}
    for column in table.columns:
        if _plain(column) in _SPLIT_NAMES and column not in taken:
            texts = set(table.text(column))
            if texts and all(_split_of(column, text) for text in texts):
                return column
    return None


def _split_of(column, text):
    plain, word = _plain(column), text.lower()
    if plain in ("isvalid", "isval"):
        return "val" if word in kinds.YES else "train" if word in kinds.NO else None
    return split_name(text) or _NUMBERED.get(canonical(text))


# ------------------------------------------------------------------------------------------------------- one column


def _column(table, name, options, asked):
    """(the label column, "") or (None, why it holds no labels).

    `asked` is the role that a person gave it, "any" for whichever label role fits, None to decide.
    """
    codes, texts = table.known(name)
    labelled = [text for text in texts if text.lower() not in {*kinds.NO_LABEL, *map(str.lower, options.no_label)}]
    if asked == "list":
        return _list_column(table, name, options, _separator(labelled, table, name, is_list=True) or ","), ""
    if asked == "class" or (asked != "attribute" and _is_yes_no(table, name, texts)):
        words = _words_of(name)
        constant = len({text.lower() in kinds.YES for text in texts}) < 2
        if asked is None and (words & _IDENTIFIERS or (words & _PEOPLE and constant)):
            return None, "identifiers, by its name no label"
        return _yes_no(table, name, options), ""
    if not texts and name not in options.attributes:
        return None, "nothing in it"
    if asked != "attribute" and (names := table.about.classes.get(name)):
        is_list = all(map(kinds.is_bracketed, texts))
        of_list = _list_column(table, name, options, kinds.JSON)
        return replace(of_list if is_list else Column(name, kinds.STRING, ()), values=tuple(names)), ""
    if asked is None or asked == "any":
        separator = _separator(labelled, table, name)
        if separator is not None:
            return _list_column(table, name, options, separator), ""
    if asked is None and (why := _no_attribute(table, name, codes, texts)):
        return None, why
    return _attribute(table, name, options.attributes.get(name)), ""


def _yes_no(table, name, options):
    words = {text.lower() for text in table.known(name)[1]}
    return Column(
        name, kinds.YES_NO, ("0", "1"), unlisted=_label(options.unlisted, NEGATIVE),
        minus_one=_label(options.minus_one, UNANNOTATED), threshold=options.vote_threshold,
        marks=bool(words) and words <= kinds.MARKS,
    )  # fmt: skip


def _label(word, default):
    return default if word is None else NEGATIVE if word == "negative" else UNANNOTATED


def _is_yes_no(table, name, texts):
    words = {text.lower() for text in texts}
    if words and words <= kinds.YES | kinds.NO:
        return True
    return not words and any(text in ("-1", "-1.0") for text in table.unknown(name))


def _list_column(table, name, options, separator):
    no_label = kinds.NO_LABEL | {word.lower().replace("_", " ") for word in options.no_label}
    column = Column(
        name, kinds.LIST, (), separator=separator, no_label=no_label, unlisted=_label(options.unlisted, NEGATIVE)
    )
    _, texts = table.known(name)
    words = dict.fromkeys(word for text in texts for word in column.words(text))
    numbered = all(integer(word) is not None for word in words)
    return replace(column, values=tuple(sorted(words, key=int if numbered and words else None)))


def _separator(texts, table, name, is_list=False):
    """What the labels in a column's cells are separated by; None where it is no column of lists, unless it is said to be."""
    if texts and all(map(kinds.is_bracketed, texts)):
        return kinds.JSON
    if is_list and (
        found := next((sign for sign in _LIST_SEPARATORS[:-1] if any(sign in text for text in texts)), None)
    ):
        return found
    if len(texts) < 2 or any(number(text) is not None and "." in text for text in texts):
        return None
    for separator in _LIST_SEPARATORS:
        parts = [kinds.split(text, separator) for text in texts]
        lengths = {len(words) for words in parts}
        labels = {word for words in parts for word in words}
        if len(lengths) < 2 or any(len(set(words)) < len(words) for words in parts):  # a sentence may say a word twice
            continue
        counts = Counter(word for words in parts for word in words)
        shared = sum(count > 1 for count in counts.values()) / len(counts)  # of the labels, in several combinations
        if separator != " ":
            if shared >= 0.6 or len(labels) <= 0.75 * len(texts):
                return separator
        elif len(labels) <= 1000 and not any(map(_SENTENCE.search, texts)):
            if is_list or len(labels) <= 0.5 * len(texts):
                return separator
            if shared >= 0.7 and len(texts) > 3:
                raise InputError(
                    f"{table.path}: column {name!r} may hold lists separated by blanks or names of several words "
                    f"({', '.join(map(repr, texts[:3]))}): expected --roles {name!r}=list or {name!r}=attribute"
                )
    return None


def _words_of(name):
    """The words in a column's name: `imageId` and `image_id` have image and id."""
    return set(re.findall(r"[a-z]+(?=[^a-z]|$)", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))


def _no_attribute(table, name, codes, texts):
    """Why a column of known texts is no attribute, in words; "" where it may be one."""
    known, numbers = int((codes >= 0).sum()), [number(text) for text in texts]
    words = _words_of(name)
    if words & _PEOPLE:
        return "who looked or took it, by its name"
    if all(text[:1] == "{" and text[-1:] == "}" for text in texts):
        return "nested JSON"
    if re.fullmatch(r"unnamed: \d+", name.lower()) or (known > 2 and is_index(list(table.text(name)))):
        return "counts the rows"
    if None not in numbers:
        if words & (_MEASURES | _IDENTIFIERS):
            return "numbers, by its name no label"
        if any("." in text and float(text) != int(float(text)) for text in texts):
            return "shares of votes?" if min(numbers) >= 0 and max(numbers) <= 1 else "measured numbers"
    if all(map(_DATE.fullmatch, texts)):
        return "dates or times"
    if all(map(_PLACE.fullmatch, texts)):
        return "addresses or paths"
    if len(texts) > _SMALL and len(texts) > _FREE_TEXT * known:
        return f"free text or identifiers: {len(texts):,} different values in {known:,} known rows"
    if len(texts) > _SMALL and None not in numbers:
        return f"numbers: {len(texts):,} different ones"
    if known >= 10 and len(texts) == known and known > 2 * len({len(text) for text in texts}) and None in numbers:
        return "identifiers: no value twice"
    if len(texts) == 1 and known >= _CONSTANT:
        return f"the same in every row: {texts[0]}"
    return ""


def _attribute(table, name, size=None):
    """The exclusive attribute in a column: with a `size` the integers 0 to size - 1. Otherwise integers up to M make M + 1
    classes, unless they are few and far between, in which case each that occurs is a name; anything else is words, by falling
    frequency, then by name."""
    codes, texts = table.known(name)
    numbers = [integer(text) for text in texts]

    def where(position):  # texts stand in order of appearance: the first wrong one is on the first wrong line
        return table.at(np.argmax(codes == position), name)

    if size is not None:
        for position, value in enumerate(numbers):
            if value is None or not 0 <= value < size:
                raise InputError(
                    f"{where(position)}: found {texts[position]!r}, expected 0 to {size - 1} "
                    f"(--attributes {name}:{size}), or #N/A where it is not known"
                )
        return Column(name, kinds.INTEGER, tuple(map(str, range(size))))
    integers = None not in numbers
    if integers and numbers and min(numbers) < 0:
        position = next(k for k, value in enumerate(numbers) if value < 0)
        raise InputError(
            f"{where(position)}: found {texts[position]!r}, expected 0 or more, or #N/A where it is not known"
        )
    frequency: dict[str, int] = {}
    spelling: dict[str, str] = {}  # "Red" and "red" are one value, too
    for text, count in zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)), strict=True):
        value = (
            canonical(text) if integers else spelling.setdefault(text.casefold(), text)
        )  # "3" and "3.0" are one value
        frequency[value] = frequency.get(value, 0) + int(count)
    if integers and numbers:
        num_values = max(numbers) + 1
        if num_values <= max(_SMALL, _SPARSE * len(frequency)):
            return Column(name, kinds.INTEGER, tuple(map(str, range(num_values))))
    return Column(name, kinds.STRING, tuple(sorted(frequency, key=lambda value: (-frequency[value], value))))


# ---------------------------------------------------------------------------------------------- the columns together


def _box_class(names):
    by_plain = {_plain(name): name for name in names}
    if not any(box <= by_plain.keys() for box in _BOXES):
        return None
    return next((by_plain[name] for name in _BOX_CLASS if name in by_plain), None)


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
    if lists:
        no_labels |= dict.fromkeys(others, f"a fact about the photo, beside the list {lists[0]!r}?")
    elif len(of_kind[kinds.YES_NO]) >= max(_BLOCK, 3 * len(words)):
        no_labels |= dict.fromkeys(
            words, f"a fact about the photo, beside {len(of_kind[kinds.YES_NO])} yes/no columns?"
        )
    return no_labels


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
        return {name: _yes_no(table, name, options) for name in shares}
    yes_no = any(column.kind == kinds.YES_NO for column in found.values())
    asked = [name for name in shares if not found or (yes_no and _are_votes(table.known(name)[1]))]
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
        if getattr(options, name) and not is_used:
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
