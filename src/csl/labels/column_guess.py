"""What one column of a table holds: yes/no, an exclusive attribute, a list of labels, or no labels at all."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.columns import Column, canonical, integer, number
from csl.labels.dialect import is_index
from csl.labels.matrix import NEGATIVE, UNANNOTATED
from csl.labels.table import Table
from csl.labels.table_options import TableOptions

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
_LIST_SEPARATORS = "|;, "


def guess(table: Table, name: str, options: TableOptions, asked: str | None) -> tuple[Column | None, str]:
    """(the label column, "") or (None, why it holds no labels).

    `asked` is the role that a person gave it, "any" for whichever label role fits, None to decide.

    Raises:
        InputError: the cells leave open whether they are lists, or do not fit the role.
    """
    codes, texts = table.known(name)
    labelled = [text for text in texts if text.lower() not in {*kinds.NO_LABEL, *map(str.lower, options.no_label)}]
    if asked == "list":
        return list_column(table, name, options, _separator(labelled, table, name, is_list=True) or ","), ""
    if asked == "class" or (asked != "attribute" and _is_yes_no(table, name, texts)):
        words = _words_of(name)
        constant = len({text.lower() in kinds.YES for text in texts}) < 2
        if asked is None and (words & _IDENTIFIERS or (words & _PEOPLE and constant)):
            return None, "identifiers, by its name no label"
        return yes_no(table, name, options), ""
    if not texts and name not in options.attributes:
        return None, "nothing in it"
    if asked != "attribute" and (names := table.about.classes.get(name)):
        is_list = all(map(kinds.is_bracketed, texts))
        of_list = list_column(table, name, options, kinds.JSON)
        return replace(of_list if is_list else Column(name, kinds.STRING, ()), values=tuple(names)), ""
    if asked is None or asked == "any":
        separator = _separator(labelled, table, name)
        if separator is not None:
            return list_column(table, name, options, separator), ""
    if asked is None and (why := _no_attribute(table, name, codes, texts)):
        return None, why
    return _attribute(table, name, options.attributes.get(name)), ""


def yes_no(table: Table, name: str, options: TableOptions) -> Column:
    """The column as one class of its name."""
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


def list_column(table: Table, name: str, options: TableOptions, separator: str) -> Column:
    """The column as lists of labels, with every label that occurs."""
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
