"""Reads columns of a large CSV block by block, with the line of each row, and collects malformed rows."""

import array
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from csl.errors import InputError

NAMED_ROWS = 5  # rows that the message names


class Problems:
    """Malformed rows of one file: counts by kind, and the first few with their lines.

    Args:
        file: its path, as in messages.
        strict: whether `check` raises.
    """

    def __init__(self, file: str | Path, strict: bool = False):
        self.file, self.strict = str(file), strict
        self.counts: Counter[str] = Counter()
        self.first: list[tuple[int, str]] = []  # (line, what was found there), the lowest lines

    def add(self, kind: str, count: int, rows: list[tuple[int, str]]) -> None:
        """`count` more of a kind, of which `rows` are the first: (line, what was found there)."""
        if count:
            self.counts[kind] += int(count)
            self.first = sorted({*self.first, *rows[:NAMED_ROWS]})[:NAMED_ROWS]

    def check(self, up_to: float = math.inf) -> None:
        """In strict mode, stop at the first problem in the lines up to that one.

        Raises:
            InputError: there is one.
        """
        known = [problem for problem in self.first if problem[0] <= up_to]
        if self.strict and known:
            line, found = known[0]
            raise InputError(f"{self.file}, line {line}: {found}")

    def warn(self) -> None:
        """Warn once, with the counts and the first rows, if any row was malformed."""
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
    def from_json(cls, file: str | Path, strict: bool, content: dict) -> "Problems":
        """The problems that `to_json` wrote."""
        problems = cls(file, strict)
        problems.counts.update(content["counts"])
        problems.first = [(line, found) for line, found in content["first"]]
        return problems


_BLOCK = 1 << 24  # bytes at a time

STRINGS = pa.string()
FEW_STRINGS = pa.dictionary(pa.int32(), pa.string())  # for a column with few distinct cells


class CsvStream:
    """Iterates over (record batch, line numbers uint32 [rows]) of a CSV without line breaks in cells.

    Args:
        file: a CSV in UTF-8.
        columns: {name: Arrow type} to read; where there is no header, "f0" is the first column, and so on.
        problems: gets the rows that have more or fewer cells than the first line; they are left out.
        header: whether the first line names the columns.

    Raises:
        InputError: while it is read: the file is not text, or is empty.
    """

    def __init__(self, file: Path, columns: dict[str, pa.DataType], problems: Problems, header: bool = True):
        self.file, self.columns, self.problems, self.header = file, columns, problems, header
        self._invalid = array.array("q")  # rows before each invalid line, rising

    def __iter__(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        try:
            with self._open() as reader:
                rows = 0
                for batch in reader:
                    lines = self._lines(rows, len(batch))
                    yield batch, lines
                    rows += len(batch)
                    # Invalid rows of the next block are known already, but not what is wrong in those before them.
                    self.problems.check(int(lines[-1]) if len(lines) else 0)
                self.problems.check()
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.file}: cannot be read as a CSV in UTF-8: {reason}") from None
        except OSError as error:
            raise InputError(f"{self.file}: cannot be read: {error.strerror or error}") from None

    def _open(self):
        # One thread parses faster than two, and knows the number of a line.
        reading = pa.csv.ReadOptions(block_size=_BLOCK, use_threads=False, autogenerate_column_names=not self.header)
        parsing = pa.csv.ParseOptions(invalid_row_handler=self._leave_out, ignore_empty_lines=False)
        converting = pa.csv.ConvertOptions(include_columns=list(self.columns), column_types=self.columns)
        return pa.csv.open_csv(self.file, reading, parsing, converting)

    def _leave_out(self, row):
        if row.text.strip():
            found = f"{row.actual_columns} cells, expected {row.expected_columns}"
            examples = [(row.number, found)] if len(self._invalid) < NAMED_ROWS else []
            self.problems.add("rows with another number of cells", 1, examples)
        self._invalid.append(row.number - (2 if self.header else 1) - len(self._invalid))
        return "skip"

    def _lines(self, start, count):
        """Lines of rows `start` and on, of those that are not left out; all invalid lines before them are known."""
        rows = np.arange(start, start + count)
        first = 2 if self.header else 1
        if self._invalid:
            rows += np.searchsorted(np.frombuffer(self._invalid, np.int64).copy(), rows, side="right")
        return (rows + first).astype(np.uint32)


def lookup(column: pa.DictionaryArray, number_of: Callable[[str], int]) -> np.ndarray:
    """`number_of(text)` of every cell of a column with few distinct ones, int32 [rows]; it is called once for each."""
    numbers = np.fromiter(map(number_of, column.dictionary.to_pylist()), dtype=np.int32, count=len(column.dictionary))
    return numbers[np.asarray(column.indices)] if len(numbers) else np.zeros(len(column), np.int32)
