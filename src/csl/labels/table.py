"""A CSV of one row per image, as text: every cell as it was written, and the line that it came from."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels.paths import SPLITS, split_name
from csl.labels.trust import unescape_cell

FILENAME = "filename"
SPLIT = "split"
WEIGHT = "weight"
UNKNOWN = frozenset({"", "#N/A", "N/A", "NA", "nan", "NaN", "-1", "-1.0"})


class Table:
    """Rows of a CSV with a `filename` column.

    Attributes:
        path: the file.
        frame: DataFrame [N, columns] of strings, the cells as they were written; column names without spaces around.
        lines: int64 [N], the line of the file that each row starts at; the header is line 1.
    """

    def __init__(self, path, frame, lines):
        self.path, self.frame, self.lines = path, frame, lines

    @classmethod
    def read(cls, path):
        """Read a CSV in UTF-8, with or without a byte order mark; blank lines are passed over.

        Raises:
            InputError: the file is empty, not UTF-8, has rows longer than its header or was cut short, a header that names no
                `filename`, a column without a name or twice the same, or a file name that is empty or repeats.
        """
        path = Path(path)
        frame, lines = _parse(path)
        header = [unescape_cell(name.strip()) for name in frame.iloc[0]]
        frame = frame.iloc[1:].reset_index(drop=True)
        unnamed_and_empty = [not name and not frame[k].str.strip().any() for k, name in enumerate(header)]
        frame = frame.loc[:, ~np.array(unnamed_and_empty)]
        header = [name for name, empty in zip(header, unnamed_and_empty, strict=True) if not empty]
        _check_header(path, header)
        frame.columns = header
        table = cls(path, frame.map(unescape_cell), lines[1:])
        table._check_filenames()
        return table

    def __len__(self):
        return len(self.frame)

    @property
    def columns(self):
        """Names of all columns, in order."""
        return list(self.frame.columns)

    def at(self, row, column=None):
        """`file, line 7, column 'neck'`, for messages."""
        return f"{self.path}, line {self.lines[row]}" + ("" if column is None else f", column {column!r}")

    def select(self, rows):
        """The table of these rows (int64 [B])."""
        return Table(self.path, self.frame.iloc[rows].reset_index(drop=True), self.lines[rows])

    def text(self, column):
        """The cells of a column without spaces around, object [N]."""
        return self.frame[column].str.strip().to_numpy(dtype=object)

    def known(self, column):
        """The distinct known cells of a column: codes int64 [N] into texts, -1 where unknown, and the texts.

        The texts stand in the order in which they first appear.
        """
        codes, texts = pd.factorize(self.text(column))
        is_known = np.array([text not in UNKNOWN for text in texts], dtype=bool)
        place = np.where(is_known, np.cumsum(is_known) - 1, -1)
        texts = [text for text, known in zip(texts, is_known, strict=True) if known]
        return (place[codes] if len(place) else codes).astype(np.int64), texts

    def splits(self):
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

    def weights(self):
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

    def _check_filenames(self):
        names = self.text(FILENAME)
        empty = np.flatnonzero(names == "")
        if len(empty):
            raise InputError(f"{self.at(empty[0], FILENAME)}: found nothing, expected the name of an image")
        repeats = np.flatnonzero(pd.Series(names).duplicated())
        if len(repeats):
            first, again = np.flatnonzero(names == names[repeats[0]])[:2]
            raise InputError(
                f"{self.path}, lines {self.lines[first]} and {self.lines[again]}: "
                f"both are for {names[first]!r}, expected one row per image"
            )


def header_of(path):
    """Column names of a CSV without spaces around; empty where it cannot be read as one."""
    try:
        first = pd.read_csv(path, header=None, nrows=1, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError):  # pandas' parser errors and a wrong encoding are ValueErrors
        return []
    return [name.strip() for name in first.iloc[0]]


def _parse(path):
    """All records of the file, header first, as a DataFrame of strings, and the line that each starts at."""
    try:
        data = path.read_bytes()
        frame = pd.read_csv(
            io.BytesIO(data),
            header=None,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            encoding="utf-8-sig",
            skip_blank_lines=False,  # they count as lines
        )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: found an empty file, expected a header with {FILENAME!r} and rows") from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path}: not a CSV: {reason}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}, expected a CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    if not data.endswith((b"\n", b"\r")) and frame.iloc[-1, -1] == "":
        _check_last_row(path, data)
    lines = 1 + np.arange(len(frame))
    if data.count(b"\n") not in (len(frame), len(frame) - 1):  # a quoted cell with line breaks
        breaks = frame.map(lambda cell: cell.count("\n")).sum(axis=1).to_numpy()
        lines = lines + np.cumsum(breaks) - breaks
    blank = frame[0].str.strip().eq("").to_numpy(copy=True)
    blank[0] = False  # the header
    blank[blank] = frame[blank].map(str.strip).eq("").all(axis=1)
    return frame[~blank].reset_index(drop=True), lines[~blank]


def _check_last_row(path, data):
    """A last line that has no end and lacks cells was cut short: these are not unknown labels.

    Elsewhere they are: spreadsheets leave out the commas of empty cells at the end of a row.
    """
    text, limit = data.decode("utf-8-sig"), csv.field_size_limit(sys.maxsize)
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    finally:
        csv.field_size_limit(limit)
    header, cells = rows[0], rows[-1]
    # Columns without a name at the end may be left away.
    wanted = 1 + max((place for place, name in enumerate(header) if name.strip()), default=0)
    if len(cells) < wanted and any(map(str.strip, cells)):
        line = 1 + text.count("\n") - "".join(cells).count("\n")
        raise InputError(
            f"{path}, line {line}: found {len(cells)} cells and the end of the file, expected {wanted} as in line 1; it may "
            "have been cut short (a line break at its end says that it was not)"
        )


def _check_header(path, header):
    if FILENAME not in header:
        raise InputError(f"{path}, line 1: no {FILENAME!r} column, found {', '.join(map(repr, header))}")
    for position, name in enumerate(header):
        if not name:
            raise InputError(f"{path}, line 1: column {position + 1} has no name, expected one")
        if name in header[:position]:
            raise InputError(f"{path}, line 1: found two columns named {name!r}, expected one")
