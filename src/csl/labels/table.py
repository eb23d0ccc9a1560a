"""A table of labels as text: every cell as it was written, and the line that it came from."""

import os
import re
import time
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels.cells import FILENAME as FILENAME
from csl.labels.cells import SPLIT as SPLIT
from csl.labels.cells import Cells
from csl.labels.dialect import read_cells
from csl.labels.matching import few_names
from csl.labels.parquet import parts_of

WEIGHT = "weight"

UNKNOWN = frozenset(
    {
        "", "-1", "-1.0", "#n/a", "n/a", "na", "#na", "<na>", "nan", "-nan", "null", "none", "nil", "nat", "#value!", "#ref!",
        "#name?", "#null!", "#div/0!", "#num!", "?", "??", "unknown", "unk", "-", "--", "\N{EN DASH}", "\N{EM DASH}", ".",
        "missing", "undefined", "not available", "not known", "not applicable", "not specified", "unspecified", "n.a.", "n. a.",
        "n.a", "n/d", "-/-", "---", "tbd", "t.b.d.", "not sure", "unsure", "k.a.", "k. a.", "keine angabe", "unbekannt",
        "inconnu", "inconnue", "desconocido", "desconocida", "sconosciuto", "sconosciuta", "onbekend", "desconhecido",
        "desconhecida", "\N{MINUS SIGN}", "not annotated", "unannotated", "not labeled", "not labelled", "unlabeled",
        "unlabelled", "undecided", "uncertain", "can't tell", "cannot tell", "not assessed", "no data", "nodata",
        "nicht bekannt", "keine daten", "sin datos", "неизвестно", "нет данных", "不明", "未知", "#wert!", "#nv", "#bezug!",
        "#zahl!", "#nom?", "#valeur!", "#n/d", "#valore!", "#¡valor!", "#¿nombre?", "#valor!", "#nome?", "#waarde!", "#н/д",
        "#знач!",
    }
)  # fmt: skip
"""What is written for a label that nobody knows, in lower case."""

_SUMS = frozenset(
    {
        "total", "totals", "grand total", "sum", "sums", "count", "average", "mean", "summe", "gesamt", "insgesamt", "anzahl",
        "mittelwert", "durchschnitt", "somme", "totale", "moyenne", "suma", "media", "totaal", "som", "gemiddelde", "soma",
        "razem", "итого", "всего", "合计", "合計", "总计",
    }
)  # fmt: skip
"""What begins a row of sums below a table, in lower case."""
_MOST_SUMS = 3  # such rows

_PERCENT = re.compile(r"\d{1,3}([.,]\d+)?\s*%")
_DECIMAL = re.compile(r"[+-]?\d+(,\d+)?")
_OF_LABELS = re.compile(r"label|tag|class|categor|klasse|kategorie|etikett|genre|annotation", re.IGNORECASE)

_CLOCK_TICK = 2 * 10**9  # nanoseconds, that of the coarsest file system


_NOTHING = Cells([], [], [], [])


def is_unknown(text: str) -> bool:
    """Whether a cell says that nobody knows."""
    return text.lower().replace("_", " ") in UNKNOWN


class Table:
    """Rows of a table.

    Attributes:
        path: the file.
        frame: DataFrame [N, columns] of strings, the cells as they were written; column names without spaces around.
        lines: int64 [N], the line of the file that each row starts at.
        notes: what is unusual about the file, one line each.
        about: what else the file says (`csl.labels.cells.Cells`, without rows).
    """

    def __init__(
        self, path: Path, frame: pd.DataFrame, lines: np.ndarray, notes: Sequence[str] = (), about: Cells = _NOTHING
    ):
        self.path, self.frame, self.lines, self.notes, self.about = path, frame, lines, list(notes), about

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
        return self.changed(frame, lines=self.lines[rows])

    def changed(self, frame: pd.DataFrame, *notes: str, lines: np.ndarray | None = None) -> "Table":
        """The table with other cells, and further notes; with `lines`, int64 [rows], where its rows are others."""
        return Table(self.path, frame, self.lines if lines is None else lines, [*self.notes, *notes], self.about)

    def with_points(self, lists: Collection[str]) -> "Table":
        """The table with points for decimal commas, and shares for percents. A column has decimal commas where something else
        separates the columns, all of its known cells are numbers, and neither it is among `lists` nor its name speaks of
        labels."""
        columns, percents = [], []
        for name in self.columns:
            _, texts = self.known(name)
            if texts and all(map(_PERCENT.fullmatch, texts)):
                percents.append(name)
            if self.about.separator == ",":
                continue
            numbers = any("," in text for text in texts) and all(map(_DECIMAL.fullmatch, texts))
            if numbers and name not in lists and not _OF_LABELS.search(name):
                columns.append(name)
        if not columns and not percents:
            return self
        frame = self.frame.assign(**{name: self.frame[name].str.replace(",", ".") for name in columns})
        frame = frame.assign(**{name: frame[name].map(_share) for name in percents})
        notes = []
        if columns:
            names = f"{few_names(columns)} (--roles NAME=list where they are labels)"
            notes.append(f"{self.path.name}: numbers with decimal commas: {names}")
        if percents:
            notes.append(f"{self.path.name}: percents, read as shares: {few_names(percents)}")
        return self.changed(frame, *notes)

    def without_sums(self, image: str) -> "Table":
        """The table without the last rows that name no image in that column, but "Total" or nothing."""
        kept, names = len(self), self.text(image)
        while kept > 1 and len(self) - kept < _MOST_SUMS and names[kept - 1].rstrip(": ").casefold() in {"", *_SUMS}:
            kept -= 1
        if kept == len(self):
            return self
        found = {self.at(row): names[row] for row in range(kept, len(self))}
        notes = [f"{at}: found {name!r} for an image, a row of sums? It is left out" for at, name in found.items()]
        table = self.select(np.arange(kept))
        return table.changed(table.frame, *notes)

    def text(self, column: str) -> np.ndarray:
        """The cells of a column without spaces around, object [N]."""
        return self.frame[column].str.strip().to_numpy(dtype=object)

    def known(self, column: str) -> tuple[np.ndarray, list[str]]:
        """The distinct known cells of a column: codes int64 [N] into texts, -1 where unknown, and the texts.

        The texts stand in the order in which they first appear.
        """
        codes, texts = pd.factorize(self.text(column))
        is_known = np.array([not is_unknown(text) for text in texts], dtype=bool)
        place = np.where(is_known, np.cumsum(is_known) - 1, -1)
        texts = [text for text, known in zip(texts, is_known, strict=True) if known]
        return (place[codes] if len(place) else codes).astype(np.int64), texts

    def unknown(self, column: str) -> dict[str, int]:
        """How often each spelling of an unknown cell occurs, most often first; blank cells under ""."""
        counts = pd.Series(self.text(column)).value_counts()
        return {str(text): int(count) for text, count in counts.items() if is_unknown(str(text))}

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


def _share(text):
    return f"{float(text.strip()[:-1].replace(',', '.')) / 100:.6g}" if _PERCENT.fullmatch(text.strip()) else text


@lru_cache(maxsize=2)
def _read(absolute, name, changed, size):
    """The table of a file; `absolute`, time of change and size tell whether it is the same file."""
    cells = read_cells(path := Path(name))
    columns = {name: [row[k] for row in cells.rows] for k, name in enumerate(cells.header)}
    frame = pd.DataFrame(columns, dtype=object)
    return Table(path, frame, np.array(cells.lines, np.int64), cells.notes, cells._replace(rows=[], lines=[]))
