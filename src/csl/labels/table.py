"""A CSV of one row per image, as text: every cell as it was written, and the line that it came from."""

import csv
import io
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels.paths import SPLITS, read_text, split_name
from csl.labels.trust import unescape_cell

FILENAME = "filename"
SPLIT = "split"
WEIGHT = "weight"
UNKNOWN = frozenset({"", "#N/A", "N/A", "NA", "nan", "NaN", "-1", "-1.0"})

_CLOCK_TICK = 2 * 10**9  # nanoseconds, that of the coarsest file system


class Table:
    """Rows of a CSV with a `filename` column.

    Attributes:
        path: the file.
        frame: DataFrame [N, columns] of strings, the cells as they were written; column names without spaces around.
        lines: int64 [N], the line of the file that each row starts at; the header is line 1.
    """

    def __init__(self, path: Path, frame: pd.DataFrame, lines: np.ndarray):
        self.path, self.frame, self.lines = path, frame, lines

    @classmethod
    def read(cls, path: str | Path) -> "Table":
        """Read a CSV in UTF-8, with or without a byte order mark; blank lines are skipped.

        The last two tables are remembered, as a run reads several splits from one file.

        Raises:
            InputError: the file is empty, not UTF-8, has rows longer than its header or was cut short, a header that names no
                `filename`, a column without a name or twice the same, or a file name that is empty or repeats.
        """
        path = Path(path)
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}), expected a CSV") from None
        recent = time.time_ns() - status.st_mtime_ns < _CLOCK_TICK  # it may change again and keep its time
        read = _read.__wrapped__ if recent else _read
        return read(path.absolute(), os.fspath(path), status.st_mtime_ns, status.st_size)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in order."""
        return list(self.frame.columns)

    def at(self, row: int, column: str | None = None) -> str:
        """`file, line 7, column 'neck'`, for messages."""
        return f"{self.path}, line {self.lines[row]}" + ("" if column is None else f", column {column!r}")

    def select(self, rows: np.ndarray) -> "Table":
        """The table of these rows (int64 [B])."""
        return Table(self.path, self.frame.iloc[rows].reset_index(drop=True), self.lines[rows])

    def text(self, column: str) -> np.ndarray:
        """The cells of a column without spaces around, object [N]."""
        return self.frame[column].str.strip().to_numpy(dtype=object)

    def known(self, column: str) -> tuple[np.ndarray, list[str]]:
        """The distinct known cells of a column: codes int64 [N] into texts, -1 where unknown, and the texts.

        The texts stand in the order in which they first appear.
        """
        codes, texts = pd.factorize(self.text(column))
        is_known = np.array([text not in UNKNOWN for text in texts], dtype=bool)
        place = np.where(is_known, np.cumsum(is_known) - 1, -1)
        texts = [text for text, known in zip(texts, is_known, strict=True) if known]
        return (place[codes] if len(place) else codes).astype(np.int64), texts

    def splits(self) -> np.ndarray | None:
        """The split of every row, object [N] of "train", "val" and "test"; None where the file has no `split` column.

        Raises:
            InputError: another word in that column.
        """
        if SPLIT not in self.frame:
            return None
        codes, texts = pd.factorize(self.text(SPLIT))
        names = np.array([split_name(text) for text in texts], dtype=object)
        for code, name in enumerate(names):
            if name is None:
                where = self.at(np.argmax(codes == code), SPLIT)
                raise InputError(f"{where}: found {texts[code]!r}, expected one of {', '.join(SPLITS)}")
        return names[codes]

    def weights(self) -> np.ndarray:
        """The sampling weights in the column `weight`, float32 [N].

        Raises:
            InputError: a cell that is no positive number.
        """
        texts = self.text(WEIGHT)
        weights = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float32)
        wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
        if len(wrong):
            raise InputError(
                f"{self.at(wrong[0], WEIGHT)}: found {texts[wrong[0]]!r}, expected how often to draw the image, a positive "
                f"number (an attribute needs another name, or --ignore_columns {WEIGHT})"
            )
        return weights


@lru_cache(maxsize=2)
def _read(absolute, name, changed, size):
    """The table of a file; `absolute`, time of change and size tell whether it is the same file."""
    path = Path(name)
    rows, lines = _parse(path)
    header = [unescape_cell(cell.strip()) for cell in rows[0]]
    rows = [row + [""] * (len(header) - len(row)) for row in rows[1:]]
    named = [k for k, column in enumerate(header) if column or any(row[k].strip() for row in rows)]
    header = [header[k] for k in named]
    _check_header(path, header)
    frame = pd.DataFrame({column: [row[k] for row in rows] for column, k in zip(header, named, strict=True)}, dtype=str)
    table = Table(path, frame, np.array(lines[1:], np.int64))
    _check_filenames(table)
    return table


def _parse(path):
    """The rows of a file that are not blank, header first, and the line that each starts at."""
    text = read_text(path, "a CSV in UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if not rows or any(map(str.strip, row)):
                rows.append(row)
                lines.append(line)
                if len(row) > len(rows[0]):
                    found = f"found {len(row)} cells, expected {len(rows[0])} as in line 1"
                    raise InputError(f"{path}, line {line}: {found}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not a CSV: {error}, expected quotes in pairs") from None
    if not rows:
        raise InputError(f"{path}: found an empty file, expected a header with {FILENAME!r} and rows")
    # A last line that has no end and lacks cells was cut short: these are not unknown labels. Elsewhere they are, as
    # spreadsheets leave out the commas of empty cells at the end of a row. Columns without a name may be left out.
    wanted = 1 + max((place for place, name in enumerate(rows[0]) if name.strip()), default=0)
    if not text.endswith(("\n", "\r")) and len(rows[-1]) < wanted:
        raise InputError(
            f"{path}, line {lines[-1]}: found {len(rows[-1])} cells and the end of the file, expected {wanted} as in line 1; "
            "it may have been cut short (a line break at its end says that it was not)"
        )
    if "'" in text:
        rows = [[unescape_cell(cell) for cell in row] for row in rows]
    return rows, lines


def _check_header(path, header: Sequence[str]):
    if FILENAME not in header:
        raise InputError(f"{path}, line 1: no {FILENAME!r} column, found {', '.join(map(repr, header))}")
    for position, name in enumerate(header):
        if not name:
            raise InputError(f"{path}, line 1: column {position + 1} has no name, expected one")
        if name in header[:position]:
            raise InputError(f"{path}, line 1: found two columns named {name!r}, expected one")


def _check_filenames(table):
    names = table.text(FILENAME)
    empty = np.flatnonzero(names == "")
    if len(empty):
        raise InputError(f"{table.at(empty[0], FILENAME)}: found nothing, expected the name of an image")
    repeats = np.flatnonzero(pd.Series(names).duplicated())
    if len(repeats):
        first, again = np.flatnonzero(names == names[repeats[0]])[:2]
        raise InputError(
            f"{table.path}, lines {table.lines[first]} and {table.lines[again]}: "
            f"both are for {names[first]!r}, expected one row per image"
        )
