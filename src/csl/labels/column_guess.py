"""What one column of a table holds: yes/no, an exclusive attribute, a list of labels, or no labels at all."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels import list_guess as lists
from csl.labels.brackets import is_bracketed, items_of, label_key
from csl.labels.column_names import CODES, LABELS, TEXTS, identifies, is_measure, letters, names_people, words_of
from csl.labels.columns import Column, canonical, integer, number
from csl.labels.dialect import is_index
from csl.labels.matching import few_names
from csl.labels.matrix import NEGATIVE, UNANNOTATED
from csl.labels.table import Table
from csl.labels.table_options import TableOptions
from csl.machine.image_formats import is_image_name

_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([ T].*)?|\d{1,2}:\d{2}(:\d{2})?"
    r"|[A-Z][a-z]{2,8}\.? \d{1,2}(st|nd|rd|th)?,? \d{4}.*|\d{1,2}\.? [A-Z][a-z]{2,8}\.?,? \d{4}.*"
)
_PLACE = re.compile(r"\w+://\S+|.*[/\\].*\.\w{2,5}")

_SMALL = 50  # values that any column may have, however few its rows
_SPARSE = 4  # integers that leave out more than three of four values are names, not counts
_FREE_TEXT = 0.25  # distinct values per known row above which a column is no attribute
_CONSTANT = 20  # rows in which a word that never changes is no attribute
_ODD_WORDS, _ODD_NUMBERS = 4, 8  # known cells to one that is no yes/no word, from which on this one is a slip
_MOST_ODD_NUMBERS = 2  # more of them are values, as most of an attribute may be 0 and 1, too
SHARES = "shares of votes?"
"""Why a column is ignored, unless a person says from which share on a vote is a label."""
_ONCE = "identifiers: no value twice"
_VECTOR = "a vector of 0 and 1, whose places other columns may name; --roles {}=list makes each place a class"
_SAID = {"comma": ",", "blank": lists.BLANK, "blanks": lists.BLANK}


def guess(table: Table, name: str, options: TableOptions, asked: str | None) -> tuple[Column | None, str]:
    """(the label column, "") or (None, why it holds no labels).

    `asked` is the role that a person gave it, "any" for whichever label role fits, None to decide.

    Raises:
        InputError: the cells leave open whether they are lists, or do not fit the role.
    """
    role, _, sign = (asked or "").partition(":")
    codes, texts = table.known(name)
    no_label = kinds.NO_LABEL | set(map(kinds.plain, options.no_label))
    labelled = [text for text in texts if kinds.plain(text) not in no_label]
    if role == "list":
        separator, is_open = (_SAID.get(sign, sign), False) if sign else lists.said_separator(labelled, name)
        if is_open:
            _ask_whether_lists(table, name, labelled, separator, asked)
        return list_column(table, name, options, separator), ""
    if role == "class" or (role != "attribute" and _is_yes_no(table, name, codes, texts)):
        constant = len({text.lower() in kinds.YES for text in texts}) < 2
        if asked is None and (identifies(name) or (names_people(name) and constant)):
            return None, "identifiers or counts, by its name no label"
        return yes_no(table, name, options, sign), ""
    if not texts and name not in options.attributes:
        return None, "nothing in it"
    if role != "attribute" and (names := table.about.classes.get(name)):
        is_list = all(map(is_bracketed, texts))
        of_list = list_column(table, name, options, kinds.JSON)
        return replace(of_list if is_list else Column(name, kinds.STRING, ()), values=tuple(names)), ""
    if role == "attribute":
        return _attribute(table, name, options.attributes.get(name)), ""
    known = int((codes >= 0).sum())
    if asked is None and words_of(name) & TEXTS and 2 * len(texts) > known and any(" " in text for text in texts):
        return None, "free text, by its name"
    if (separator := lists.vector_separator(labelled)) is not None:
        if asked is None:
            return None, _VECTOR.format(repr(name))
        return list_column(table, name, options, separator), ""
    separator, how = lists.separator(labelled, name)
    if separator == kinds.JSON and asked is None and (why := _no_labels_in_brackets(table, name, labelled)):
        return None, why
    if how == lists.SURE:
        return list_column(table, name, options, separator), ""
    if asked is None and (why := no_attribute(table, name, codes, texts)):
        return None, why
    why = _too_many(codes, texts) if asked is None else ""
    if how == lists.LIKELY or (how and why in ("", _ONCE)):
        _ask_whether_lists(table, name, texts, separator)
    return (None, why) if why else (_attribute(table, name), "")


def _ask_whether_lists(table, name, texts, separator, asked=None):
    others = "names of several words" if separator == lists.BLANK else "single values"
    separated = "blanks" if separator == lists.BLANK else repr(separator)
    sign = "blank" if separator == lists.BLANK else separator
    plain = separator in lists.SIGNS + lists.BLANK and asked is None
    said = f"--roles {name!r}=list" if plain else f"--roles {f'{name}=list:{sign}'!r}"
    single = f"{name!r}=attribute" if asked is None else f"{f'{name}=list:comma'!r}"
    example = [text for text in texts if separator in text]
    examples = ", ".join(map(repr, dict.fromkeys([*example[:1], *texts][:3])))
    raise InputError(
        f"{table.path}: column {name!r} may hold lists separated by {separated} or {others} ({examples}): expected "
        f"{said} or {single}"
    )


def yes_no(table: Table, name: str, options: TableOptions, yes: str = "") -> Column:
    """The column as one class of its name; `yes` is the word for it that a person said.

    Raises:
        InputError: no cell holds that word.
    """
    if yes and kinds.folded(yes) not in map(kinds.folded, table.known(name)[1]):
        raise InputError(
            f"--roles {name}=class:{yes}: {table.path} has no {yes!r} there, found {few_names(table.known(name)[1])}"
        )
    words = {text.lower() for text in table.known(name)[1]}
    signs = "+" in words and not kinds.MINUS.isdisjoint(table.unknown(name))
    return Column(
        name, kinds.YES_NO, ("0", "1"), unlisted=_label(options.unlisted, NEGATIVE),
        minus_one=_label(options.minus_one, UNANNOTATED), threshold=options.vote_threshold,
        marks=bool(words) and words <= kinds.MARKS and not signs, signs=signs, yes=yes,
    )  # fmt: skip


def _label(word, default):
    return default if word is None else NEGATIVE if word == "negative" else UNANNOTATED


def _is_yes_no(table, name, codes, texts):
    """Whether all known cells are words for yes and no.

    Raises:
        InputError: nearly all are.
    """
    words = {text.lower() for text in texts}
    odd = [k for k, text in enumerate(texts) if text.lower() not in kinds.YES_OR_NO]
    if not odd:
        return bool(words) or not kinds.MINUS_ONE.isdisjoint(table.unknown(name))
    numbers = [number(texts[k]) for k in odd]
    if None not in numbers and any(value % 1 for value in numbers):  # shares of votes?
        return False
    is_odd, known = np.isin(codes, odd), int((codes >= 0).sum())
    count = int(is_odd.sum())
    both = words & kinds.YES and words & kinds.NO
    if None in numbers:
        plain = both or any(len(word) > 1 or word in kinds.MARKS or word in "01" for word in words & kinds.YES_OR_NO)
        slip = plain and count * _ODD_WORDS <= known
    else:
        slip = both and count <= _MOST_ODD_NUMBERS and count * _ODD_NUMBERS <= known
    if slip:
        row = np.argmax(is_odd)
        raise InputError(
            f"{table.at(row, name)}: found {texts[codes[row]]!r} among words for yes and no ({known - count:,} of "
            f"{known:,} known cells), expected 1 or 0, or nothing where it is not known; --roles {name!r}=attribute takes each "
            "value for a class of its own"
        )
    return False


def list_column(table: Table, name: str, options: TableOptions, separator: str) -> Column:
    """The column as lists of labels, with every label that occurs. Words that are spelt alike are one label.

    Raises:
        InputError: its cells hold JSON's objects in which no key plainly names the class.
    """
    no_label = kinds.NO_LABEL | set(map(kinds.plain, options.no_label))
    _, texts = table.known(name)
    key = label_key([items_of(text) for text in texts]) if separator == kinds.JSON else ""
    if key is None:
        raise InputError(
            f"{table.path}: column {name!r} holds nested JSON ({texts[0][:80]!r}), expected lists of words or of objects with "
            "a key such as label, class, category or name"
        )
    vector = separator != kinds.ONE and not key and lists.is_vector(texts, separator)
    column = Column(
        name, kinds.LIST, (), separator=separator, key=key, vector=vector, no_label=no_label,
        unlisted=_label(options.unlisted, NEGATIVE),
    )  # fmt: skip
    if vector:
        if wrong := next((text for text in texts if "-1" in text), None):
            raise InputError(f"{table.path}: column {name!r} holds {wrong!r}, a vector with -1; expected 0 and 1 alone")
        places = max(len(kinds.split(text, separator)) for text in texts)
        return replace(column, values=tuple(f"{kinds.title(name)} {place}" for place in range(places)))
    words: dict[str, str] = {}
    for text in texts:
        for word in column.words(text) or ():
            words.setdefault(kinds.folded(word), word)
    numbered = all(integer(word) is not None for word in words)
    return replace(column, values=tuple(sorted(words.values(), key=integer if numbered else None)))


def notes_of(table: Table, column: Column) -> list[str]:
    """What was decided about a column's cells that its kind does not say, one line each."""
    notes = []
    if column.key:
        notes.append(f"column {column.name!r} holds lists of objects: the {column.key!r} of each is a label")
    raw = table.frame[column.name][table.known(column.name)[0] >= 0].unique()
    spellings: dict[str, dict[str, None]] = {}
    for text in raw if column.kind == kinds.STRING else ():
        spellings.setdefault(kinds.folded(text), {})[text] = None
    for text in raw if column.kind == kinds.LIST and not column.vector else ():
        for word in column.words(text.strip()) or ():
            spellings.setdefault(kinds.folded(word), {})[word] = None
    if several := [list(words) for words in spellings.values() if len(words) > 1]:
        alike = " = ".join(map(repr, several[0][:3]))
        notes.append(
            f"column {column.name!r}: {len(several):,} values are spelt in several ways, each is one class ({alike})"
        )
    return notes


def _no_labels_in_brackets(table, name, texts):
    """Why lists in brackets hold no labels, in words; "" where they may.

    Raises:
        InputError: they hold as many integers each, which may be measures.
    """
    if label_key([items_of(text) for text in texts]) is None:
        return "nested JSON"
    words = [kinds.split(text, kinds.JSON) for text in texts]
    numbers = [number(word) for of_cell in words for word in of_cell]
    if not numbers or None in numbers:
        return ""
    if is_measure(name):
        return "numbers, by its name no label"
    if any(value % 1 for value in numbers):
        return "measured numbers"
    lengths = set(map(len, words))
    if len(lengths) == 1 and lengths != {1} and not words_of(name) & LABELS:
        raise InputError(
            f"{table.path}: column {name!r} holds {max(lengths)} numbers in each cell ({texts[0]!r}), labels or measures: "
            f"expected --roles {name!r}=list or --ignore_columns {name!r}"
        )
    return ""


def no_attribute(table: Table, name: str, codes: np.ndarray, texts: Sequence[str]) -> str:
    """Why a column is no attribute, in words, by its name and its `Table.known`; "" where it may be one."""
    known, numbers = int((codes >= 0).sum()), [number(text) for text in texts]
    if names_people(name):
        return "who looked at it, took it or owns it, by its name"
    if all(text[:1] == "{" and text[-1:] == "}" for text in texts):
        return "nested JSON"
    if re.fullmatch(r"unnamed: \d+", name.lower()) or (known > 2 and is_index(list(table.text(name)))):
        return "counts the rows"
    may_be_codes = CODES.fullmatch(letters(name)) is not None
    coded = may_be_codes and ("patient" in name.lower() or all(re.search(r"\d", text) for text in texts))
    if coded or identifies(name):
        return "identifiers or counts, by its name no label"
    if None not in numbers:
        if is_measure(name):
            return "numbers, by its name no label"
        if any("." in text and float(text) != int(float(text)) for text in texts):
            return SHARES if min(numbers) >= 0 and max(numbers) <= 1 else "measured numbers"
    parts = [number(part) for text in texts for part in re.split(r"[,;\s]+", text)]
    if len(parts) > len(texts) and None not in parts and any(part % 1 for part in parts):
        return "measured numbers"
    if all(map(_DATE.fullmatch, texts)):
        return "dates or times"
    if all(map(is_image_name, texts)):
        return "names of other photos"
    if all(map(_PLACE.fullmatch, texts)):
        return "addresses or paths"
    return ""


def _too_many(codes, texts):
    """Why a column of so many texts is no attribute, in words; "" where it may be one."""
    known, numbers = int((codes >= 0).sum()), [number(text) for text in texts]
    if len(texts) > _SMALL and len(texts) > _FREE_TEXT * known:
        return f"free text or identifiers: {len(texts):,} different values in {known:,} known rows"
    if len(texts) > _SMALL and None not in numbers:
        return f"numbers: {len(texts):,} different ones"
    if known >= 10 and len(texts) == known and known > 2 * len({len(text) for text in texts}) and None in numbers:
        return _ONCE
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
    spelling: dict[str, str] = {}  # "Red" and "red" are one value, as "3" and "3.0" are
    for text, count in zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)), strict=True):
        value = canonical(text) if integers else spelling.setdefault(kinds.folded(text), text)
        frequency[value] = frequency.get(value, 0) + int(count)
    if integers and numbers:
        num_values = max(numbers) + 1
        if num_values <= max(_SMALL, _SPARSE * len(frequency)):
            return Column(name, kinds.INTEGER, tuple(map(str, range(num_values))))
    return Column(name, kinds.STRING, tuple(sorted(frequency, key=lambda value: (-frequency[value], value))))
