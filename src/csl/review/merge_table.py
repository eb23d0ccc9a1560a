"""Answers written into the cells of a table, as the table writes such labels elsewhere."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels import POSITIVE, UNANNOTATED, Annotations, LabelMatrix
from csl.labels.table import Table

SUFFIXES = (".csv", ".tsv", ".txt")

_OPPOSITE = [("1", "0"), ("1.0", "0.0"), ("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"),
             ("present", "absent"), ("positive", "negative"), ("pos", "neg"), ("+", "-"), ("x", "")]  # fmt: skip
_STARTS = ("[", "{", "(", '"', "'")  # of lists in brackets, which are left as they are


def merged(file: Path, parts: Sequence[tuple[Annotations, LabelMatrix]]) -> tuple[bytes, list[str]]:
    """The bytes of a table with other labels, and lines about them.

    An attribute of which values are only known not to be there has no cell for that; one whose value is denied becomes unknown.

    Args:
        file: the table.
        parts: annotations that were read from it, and their labels now.

    Raises:
        InputError: it has no header, is in UTF-16, or is separated by blanks.
    """
    cells, table = _Cells(file), Table.read(file)
    edits: dict[int, dict[str, str]] = {}  # line -> column -> text
    for part, labels in parts:
        image = next(one.name for one in part.columns if one.role == "image")
        known, separator = part.labels.to_dense(), cache(partial(_separator, part))  # int8 [N, C]
        writers = [_Writer(part, name, group, known[:, group], separator) for name, group in part.groups.items()]
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(table.text(image)):
            rows_of.setdefault(name, []).append(row)
        for row in range(len(part)):
            before, after = part.labels[row], labels[row]
            if (before == after).all():
                continue
            rows = rows_of[part.table[image].iloc[row].strip()]
            lines = [int(table.lines[k]) for k in rows]
            for writer in writers:
                group = writer.group
                if writer.column and (before[group] != after[group]).any():
                    was = edits.get(lines[0], {}).get(writer.column, table.frame[writer.column].iloc[rows[0]])
                    now = writer.text(was, before[group], after[group], len(rows))
                    for line in lines if now is not None else ():
                        edits.setdefault(line, {})[writer.column] = now
    return cells.edited(edits, list(table.columns)), []


class _Writer:
    """How a column writes the labels of a group of classes."""

    def __init__(self, part, name, group, known, separator):  # known: int8 [N, K]
        self.group = group
        roles = {one.name: one.role for one in part.columns}
        lists = [name for name, role in roles.items() if role == "list"]
        self.is_list = roles.get(name) not in ("class", "attribute")
        self.column = name if not self.is_list else lists[0] if len(lists) == 1 else None
        if self.column is None:
            return
        texts = part.table[self.column]
        size = group.stop - group.start
        self.words = [_usual(texts, known[:, k] == POSITIVE) for k in range(size)]
        self.unknown = _usual(texts, (known == UNANNOTATED).all(axis=1)) or ""
        if self.is_list:
            self.word = part.classes[group.start]
            self.separator = separator(self.column)
        elif size == 1:
            yes, no = self.words[0], _usual(texts, known[:, 0] == 0)
            self.words = [yes if yes is not None else _opposite(no, 1)]
            self.no = no if no is not None else _opposite(yes, 0)
        else:
            prefix = f"{name}:"
            usual = [one.removeprefix(prefix) if one.startswith(prefix) else str(k)
                     for k, one in enumerate(part.classes[group.start : group.stop])]  # fmt: skip
            self.words = [word if word is not None else other for word, other in zip(self.words, usual, strict=True)]

    def text(self, was, before, after, rows):
        """The text of the cell with these labels, [K] before and after; None where it stays as it is."""
        there = np.flatnonzero(after == POSITIVE)
        if self.is_list:
            return self._listed(was, bool(len(there)), rows)
        if len(there):
            return self.words[there[0]]
        if len(after) == 1:
            return self.no
        return self.unknown if (before == POSITIVE).any() else None

    def _listed(self, was, there, rows):
        if rows > 1 or was.strip().startswith(_STARTS):
            return None
        words = [] if was == self.unknown or not was.strip() else was.split(self.separator) if self.separator else [was]
        words = [word for word in words if word.strip().casefold() != self.word.casefold()]
        if there and words and self.separator is None:
            return None
        return (self.separator or "").join([*words, self.word] if there else words)


def _usual(texts, rows):
    """The text that stands oftenest in some rows; None where there are none."""
    count = Counter(texts[rows])
    return count.most_common(1)[0][0] if count else None


def _opposite(text, value):
    """What is written for yes (1) or no (0) beside the word for the other, in its case."""
    plain = (text or "").strip().lower()
    for pair in _OPPOSITE:
        if text is not None and plain == pair[value == 1]:
            word = pair[1 - value]
            return word.upper() if text.isupper() and len(text) > 1 else word.title() if text.istitle() else word
    return str(value)


def _separator(part, column):
    """What stands between the words of a list; None where no cell has two."""
    names = sorted(map(re.escape, part.classes), key=len, reverse=True)
    two = re.compile(rf"\s*(?:{'|'.join(names)})(\W+?)(?:{'|'.join(names)})\b.*", re.IGNORECASE | re.DOTALL)
    for text in part.table[column]:
        if match := two.fullmatch(text):
            return match[1]
    return None


class _Cells:
    """The text of a table whose cells can be replaced where they stand."""

    def __init__(self, file):
        self.file, data = file, file.read_bytes()
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"--merge: {file} is in UTF-16, expected UTF-8 or Windows-1252")
        try:
            data.decode("utf-8")
            self.encoding = "utf-8"
        except UnicodeDecodeError:
            self.encoding = "cp1252"
        self.text = data.decode("latin-1")  # a character for each byte, so that all that is not touched stays
        self.starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", self.text))]
        self.separator = Table.read(file).about.separator
        if self.separator not in (",", ";", "\t", "|"):
            raise InputError(f"--merge: {file} is separated by blanks, expected commas, semicolons, tabs or bars")
        self.cell = re.compile(rf'"(?:[^"]|"")*"|[^{re.escape(self.separator)}\r\n]*')

    def edited(self, edits, columns):
        """The bytes with other cells, {line: {column: text}}."""
        place = self._header(columns)
        pieces, end = [], 0
        for line in sorted(edits):
            spans = self._spans(self.starts[line - 1])
            for column, text in sorted(edits[line].items(), key=lambda edit: place[edit[0]]):
                start, stop = spans[place[column]]
                pieces += [self.text[end:start], self._quoted(text, self.text[start:stop].startswith('"'))]
                end = stop
        return "".join([*pieces, self.text[end:]]).encode("latin-1")

    def _spans(self, place):
        """Where the cells of the row that begins at a place begin and end."""
        spans = []
        while True:
            match = self.cell.match(self.text, place)
            spans.append(match.span())
            place = match.end()
            if self.text[place : place + 1] != self.separator:
                return spans
            place += 1

    def _header(self, columns):
        """{column: its place in a row}."""
        for start in self.starts[:10]:
            names = [self.text[slice(*span)].encode("latin-1").decode(self.encoding) for span in self._spans(start)]
            names = [name.strip().lstrip("\ufeff").strip('"').strip() for name in names]
            if set(columns) <= set(names):
                return {name: k for k, name in enumerate(names)}
        raise InputError(f"--merge: {self.file} has no header, expected a first line with the names of the columns")

    def _quoted(self, text, always):
        if always or any(sign in text for sign in (self.separator, '"', "\n", "\r")):
            text = '"' + text.replace('"', '""') + '"'
        return text.encode(self.encoding).decode("latin-1")
