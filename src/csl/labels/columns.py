"""The label columns of a table: yes/no, exclusive attributes of integers or words, and lists; cells to labels and back."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from csl.errors import InputError
from csl.labels.brackets import items_of, words_of
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED
from csl.labels.table import UNKNOWN, Table

YES_NO, INTEGER, STRING, LIST = "yes/no", "integer", "string", "list"

YES = frozenset(
    {
        "1", "1.0", "true", "t", "yes", "y", "present", "x", "✓", "✔", "ja", "j", "wahr", "oui", "vrai", "si", "sí", "sì",
        "sim", "+", "on", "pos", "positive", "positiv", "positif", "positivo", "checked", "detected", "vorhanden", "présent",
        "verdadero", "vero", "verdadeiro", "waar", "sant", "tak", "prawda", "ano", "áno", "igen", "igaz", "kyllä", "tosi",
        "evet", "doğru", "da", "да", "истина", "так", "ναι", "はい", "有", "あり", "○", "◯", "●", "是", "예",
        "있음", "نعم", "כן", "हाँ",
    }
)  # fmt: skip
NO = frozenset(
    {
        "0", "0.0", "false", "f", "no", "n", "absent", "nein", "nee", "falsch", "non", "faux", "não", "nao",
        "off", "neg", "negative", "negativ", "négatif", "negativo", "unchecked", "not detected", "undetected", "not present",
        "nicht vorhanden", "falso", "onwaar", "falskt", "nej", "nei", "nie", "fałsz", "ne", "nem", "hamis", "ei", "epätosi",
        "hayır", "hayir", "yanlış", "nu", "нет", "ложь", "ні", "όχι", "いいえ", "无", "無", "なし", "否", "아니오",
        "아니요", "없음", "لا", "לא", "नहीं",
    }
)  # fmt: skip
"""In any case: in English and in the languages of many spreadsheets."""
YES_OR_NO = YES | NO
MINUS_ONE = frozenset({"-1", "-1.0"})

MARKS = frozenset({"x", "✓", "✔", "+", "○", "◯", "●"})
"""Marks, beside which an empty cell is not marked: unlisted, and not unknown."""

MINUS = frozenset({"-", "\N{MINUS SIGN}", "\N{EN DASH}"})
"""Beside a +, no; else unknown."""

NO_LABEL = frozenset({"no finding", "no findings", "no label", "no labels", "nothing"})
"""Words for an empty list, in lower case with blanks for underscores."""

_IN_LISTS = frozenset({"none"})
"""Such words within a list; as a whole cell they are unknown, unless a person says that they are words for an empty list."""

JSON, ONE = "json", ""
"""Separators of lists: of a list in brackets, as JSON and Python write it, and of one label in each row."""

_INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """One label column.

    Attributes:
        name: as in the table's header.
        kind: "yes/no", "integer", "string" or "list".
        values: the text of each value, in the order of its classes; ("0", "1") for yes/no, which is one class.
        separator: of a list: what its labels are separated by, `JSON` or `ONE`.
        key: of a list of JSON's objects: under which key they name their class.
        vector: of a list: whether its words are the 0 or 1 of each place; the places are its labels.
        no_label: of a list: words for an empty one, in lower case.
        unlisted: what a label that a list lacks, or a cell without a mark, counts as: 0 or -1.
        minus_one: what -1 means in a yes/no column: -1 or 0.
        threshold: of shares of votes: from which on yes, in (0, 1].
        marks: whether a yes/no column holds marks alone, so that an empty cell is unlisted.
        signs: whether a yes/no column holds + and -, so that the latter is no.
        yes: the word for yes that a person said, beside which any other is no; "" for the usual ones.
    """

    name: str
    kind: str
    values: tuple[str, ...]
    separator: str = ONE
    key: str = ""
    vector: bool = False
    no_label: frozenset[str] = NO_LABEL
    unlisted: int = NEGATIVE
    minus_one: int = UNANNOTATED
    threshold: float | None = None
    marks: bool = False
    signs: bool = False
    yes: str = ""

    @property
    def classes(self) -> list[str]:
        """Names of its classes."""
        if self.kind == YES_NO:
            return [self.name]
        if self.kind == INTEGER:
            return [f"{title(self.name)} {value}" for value in self.values]
        return list(self.values) if self.kind == LIST else [f"{self.name}:{value}" for value in self.values]

    @property
    def groups(self) -> dict[str, int]:
        """The number of classes of each attribute in it; a class of a list is one of its own, as it excludes no other."""
        return dict.fromkeys(self.values, 1) if self.kind == LIST else {self.name: len(self.classes)}

    def labels(self, table: Table) -> np.ndarray:
        """Labels int8 [N, len(classes)] of the table's rows.

        Raises:
            InputError: a known cell is none of the values; the message names its line.
        """
        codes, texts = table.known(self.name)  # [N]
        places = {value: place for place, value in enumerate(self.values)}
        for place, value in enumerate(self.values):  # the first of equal values
            places.setdefault(folded(value), place)
        of_text = [self._labels_of(text, places) for text in texts]
        code = next((k for k, found in enumerate(of_text) if found is None), None)
        if code is not None:
            where = table.at(np.argmax(codes == code), self.name)
            raise InputError(f"{where}: found {texts[code]!r}, expected {self._expected()}")
        blank = np.full(len(self.classes), UNANNOTATED, np.int8)
        labels = np.stack([*of_text, blank])[codes]  # [N, classes]; the code -1 takes the last
        known = self.known_blanks(table)
        cells = table.text(self.name) if known else []
        for text, value in known.items():
            labels[cells == text] = value
        return labels

    def known_blanks(self, table: Table) -> dict[str, int]:
        """{cell that else is unknown: label of each class} of a yes/no column or of lists, as far as the table has it."""
        meant = {}
        for text in table.unknown(self.name):
            if self.kind == LIST and plain(text) in self.no_label:
                meant[text] = self.unlisted
            elif self.kind == YES_NO and text in MINUS_ONE:
                meant[text] = self.minus_one
            elif (self.marks and not text) or (self.signs and text in MINUS):
                meant[text] = self.unlisted if self.marks else NEGATIVE
        return meant

    def _labels_of(self, text, places):
        """int8 [classes] of a known cell, by the place of each value; None where it is none of them."""
        if self.kind == YES_NO:
            if self.threshold is not None and (share := number(text)) is not None:
                return np.array([share >= self.threshold], np.int8)
            if self.yes:
                return np.array([folded(text) == folded(self.yes)], np.int8)
            word = text.lower()
            return np.array([word in YES], np.int8) if word in YES or word in NO else None
        if self.kind == LIST:
            if (words := self.words(text)) is None:
                return np.full(len(self.values), UNANNOTATED, np.int8)
            found, rest = [places.get(word, places.get(folded(word))) for word in words], self.unlisted
        else:
            found, rest = [places.get(folded(text), places.get(canonical(text)))], NEGATIVE
        if None in found:
            return None
        labels = np.full(len(self.values), rest, np.int8)
        labels[found] = POSITIVE
        return labels

    def words(self, text: str) -> list[str] | None:
        """The labels in a cell of a list; None where it holds words for what is not known alone: `["?"]` and `[null]`."""
        words = split(text, self.separator, self.key)
        if self.vector:
            return [f"{title(self.name)} {place}" for place, word in enumerate(words) if word.lower() in YES]
        none = self.no_label | _IN_LISTS
        labels = [word for word in words if plain(word) not in none]
        if labels and len(labels) == len(words) and all(word.lower() in UNKNOWN for word in labels):
            return None
        return [word for word in labels if word]

    def _expected(self):
        if self.kind == YES_NO:
            known = "0 or 1" if self.threshold is None else "a share from 0 to 1"
        elif self.kind == INTEGER:
            known = f"0 to {len(self.values) - 1}"
        else:
            more = f" and {len(self.values) - 5} more" if len(self.values) > 5 else ""
            among = "one of" if self.kind == STRING else "labels among"
            known = f"{among} {', '.join(map(repr, self.values[:5]))}{more}"
        return f"{known} (the values of the training file), or #N/A where it is not known"


def split(text: str, separator: str, key: str = "") -> list[str]:
    """The labels in a cell; what a list in brackets holds that is no text is written as text, of objects what the key has."""
    if separator == ONE:
        return [text]
    if separator == JSON:
        return words_of(items_of(text), key)
    return [part for piece in text.split(separator) if (part := piece.strip())]


def folded(text: str) -> str:
    """One spelling for values that differ in case, blanks or the form of Unicode alone."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def plain(word: str) -> str:
    """A word in lower case with blanks for underscores."""
    return word.lower().replace("_", " ")


def title(column: str) -> str:
    """`sleeve_length` -> `Sleeve Length`, the form in which the classes of integer columns are named."""
    return column.replace("_", " ").title()


def integer(text: str) -> int | None:
    """The integer that a cell holds ("3", "3.0"), or None."""
    return int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else None


def number(text: str) -> float | None:
    """The number that a cell holds, or None."""
    return float(text) if _NUMBER.fullmatch(text) else None


def canonical(text: str) -> str:
    """One spelling for each integer; other texts as they are."""
    found = integer(text)
    return text if found is None else str(found)


def columns_of_classes(classes: Sequence[str], groups: Mapping[str, slice]) -> list[Column]:
    """The columns of a training run, from its class names and the slice of each attribute: the inverse of `classes`.

    Raises:
        InputError: the groups do not cover the classes, or a class is not named as one of its column is.
    """
    columns, end = [], 0
    for name, group in sorted(groups.items(), key=lambda item: item[1].start):
        if group.start != end or not group.start < group.stop <= len(classes):
            raise InputError(
                f"groups: {name!r} has classes {group.start} to {group.stop - 1} of {len(classes)}, expected {end} on"
            )
        end = group.stop
        columns.append(_column_named(name, list(classes[group])))
    if end != len(classes):
        raise InputError(f"groups: they end at class {end}, expected all {len(classes)} classes in one")
    return columns


def _column_named(name, classes):
    column = Column(name, INTEGER, tuple(map(str, range(len(classes)))))
    if classes == [name]:
        return Column(name, YES_NO, ("0", "1"))
    if classes == column.classes:
        return column
    prefix = f"{name}:"
    for class_name in classes:
        if not class_name.startswith(prefix):
            raise InputError(
                f"groups: class {class_name!r} of attribute {name!r} has another name than expected: "
                f"{name!r}, '{title(name)} 0' or '{prefix}value'"
            )
    return Column(name, STRING, tuple(class_name.removeprefix(prefix) for class_name in classes))
