"""Rows of an annotation file that cannot be taken at their word: counted by kind, the first few shown."""

import warnings
from collections import Counter

from csl.errors import InputError

SHOWN = 5  # rows that the message names


class Problems:
    """What is wrong with rows of one file.

    Args:
        file: its path, as in messages.
        strict: whether `check` raises.
    """

    def __init__(self, file, strict: bool = False):
        self.file, self.strict = str(file), strict
        self.counts: Counter[str] = Counter()
        self.first: list[tuple[int, str]] = []  # (line, what was found there), the lowest lines

    def add(self, kind: str, count: int, rows: list[tuple[int, str]]) -> None:
        """`count` more of a kind, of which `rows` are the first: (line, what was found there)."""
        if count:
            self.counts[kind] += int(count)
            self.first = sorted({*self.first, *rows[:SHOWN]})[:SHOWN]

    def check(self) -> None:
        """Stop at the first problem where labels are strict.

        Raises:
            InputError: there is one.
        """
        if self.strict and self.first:
            line, found = self.first[0]
            raise InputError(f"{self.file}, line {line}: {found}")

    def warn(self) -> None:
        """One warning with the counts and the first rows; nothing where all is well."""
        if self.counts:
            warnings.warn(self.summary(), stacklevel=4)

    def summary(self) -> str:
        """One line: how many labels of each kind, and the first of all with their lines."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        rows = "; ".join(f"line {line}: {found}" for line, found in self.first)
        return f"{self.file}: {self.counts.total():,} labels left out ({kinds}): {rows} (--strict_labels stops there)"

    def to_json(self) -> dict:
        """Counts and first rows, for `from_json`."""
        return {"counts": dict(self.counts), "first": self.first}

    @classmethod
    def from_json(cls, file, strict: bool, content: dict) -> "Problems":
        """What `to_json` wrote."""
        problems = cls(file, strict)
        problems.counts.update(content["counts"])
        problems.first = [(line, found) for line, found in content["first"]]
        return problems
