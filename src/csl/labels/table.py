"""A table of labels as text: every cell as it was written, and the line that it came from."""

import os
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels.dialect import FILENAME as FILENAME
from csl.labels.dialect import read_cells
from csl.labels.parquet import parts_of

SPLIT = "split"
WEIGHT = "weight"

UNKNOWN = frozenset(
    {
        "", "-1", "-1.0", "#n/a", "n/a", "na", "#na", "<na>", "nan", "-nan", "null", "none", "nil", "nat", "#value!", "#ref!",
        "#name?", "#null!", "#div/0!", "#num!", "?", "??", "unknown", "unk", "-", "--", "\N{EN DASH}", "\N{EM DASH}", ".",
        "missing", "undefined", "not available", "not known",
    }
)  # fmt: skip
"""What is written for a label that nobody knows, in lower case."""

_CLOCK_TICK = 2 * 10**9  # nanoseconds, that of the coarsest file system


class Table:
    """Rows of a table.

    Attributes:
        path: the file.
        frame: DataFrame [N, columns] of strings, the cells as they were written; column names without spaces around.
        lines: int64 [N], the line of the file that each row starts at.
        notes: what is unusual about the file, one line each.
        classes, photos: as of `csl.labels.dialect.Cells`.
    """

    def __init__(
        self,
        path: Path,
        frame: pd.DataFrame,
        lines: np.ndarray,
        notes: list[str] | None = None,
        classes: dict[str, list[str]] | None = None,
        photos: tuple[str, Path] | None = None,
    ):
        self.path, self.frame, self.lines, self.notes = path, frame, lines, notes or []
        self.classes, self.photos = classes or {}, photos

    @classmethod
    def read(cls, path: str | Path) -> "Table":
        """Read a table (`csl.labels.dialect.read_cells`).

        The last two are remembered, as a run reads several splits from one file.

        Raises:
            InputError: the file is empty or no text, has rows longer than its header or was cut short, or has a column without
                a name or twice the same.
        """
        path = Path(path)
        try:
            status = [part.stat() for part in parts_of(path)]
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}), expected a table") from None
        changed = max(one.st_mtime_ns for one in status)
        recent = time.time_ns() - changed < _CLOCK_TICK  # it may change again and keep its time
        read = _read.__wrapped__ if recent else _read
        return read(path.absolute(), os.fspath(path), changed, sum(one.st_size for one in status))

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
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return Table(self.path, frame, self.lines[rows], self.notes, self.classes, self.photos)

    def text(self, column: str) -> np.ndarray:
        """The cells of a column without spaces around, object [N]."""
        return self.frame[column].str.strip().to_numpy(dtype=object)

    def known(self, column: str) -> tuple[np.ndarray, list[str]]:
        """The distinct known cells of a column: codes int64 [N] into texts, -1 where unknown, and the texts.

        The texts stand in the order in which they first appear.
        """
        codes, texts = pd.factorize(self.text(column))
        is_known = np.array([text.lower() not in UNKNOWN for text in texts], dtype=bool)
        place = np.where(is_known, np.cumsum(is_known) - 1, -1)
        texts = [text for text, known in zip(texts, is_known, strict=True) if known]
        return (place[codes] if len(place) else codes).astype(np.int64), texts

    def unknown(self, column: str) -> dict[str, int]:
        """How often each spelling of an unknown cell occurs, most often first; blank cells under ""."""
        counts = pd.Series(self.text(column)).value_counts()
        return {str(text): int(count) for text, count in counts.items() if str(text).lower() in UNKNOWN}

    def weights(self, column: str) -> np.ndarray:
        """The sampling weights in a column, float32 [N].

        Raises:
            InputError: a cell that is no positive number.
        """
        texts = self.text(column)
        weights = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float32)
        wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
        if len(wrong):
            raise InputError(
                f"{self.at(wrong[0], column)}: found {texts[wrong[0]]!r}, expected how often to draw the image, a positive "
                f"number (an attribute needs another name, or --ignore_columns {column})"
            )
        return weights


@lru_cache(maxsize=2)
def _read(absolute, name, changed, size):
    """The table of a file; `absolute`, time of change and size tell whether it is the same file."""
    cells = read_cells(path := Path(name))
    columns = {name: [row[k] for row in cells.rows] for k, name in enumerate(cells.header)}
    frame = pd.DataFrame(columns, dtype=object)
    return Table(path, frame, np.array(cells.lines, np.int64), cells.notes, cells.classes, cells.photos)
