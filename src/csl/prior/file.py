"""The file of a class prior: a CSV `Classes,avg_pred`, with `low,high` where it has intervals."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from csl.errors import InputError, in_words
from csl.labels.matching import few_names, match_classes
from csl.labels.trust import escape_cell, unescape_cell
from csl.machine.files import replacing

COLUMNS = ("Classes", "avg_pred")
INTERVAL = ("low", "high")


def write_prior(
    path: str | Path, classes: Sequence[str], prior: Tensor, interval: tuple[Tensor, Tensor] | None = None
) -> None:
    """Write the CSV, one row a class in the order of `classes`; with an interval, both its ends [C] as well."""
    columns = {COLUMNS[0]: list(map(escape_cell, classes)), COLUMNS[1]: np.asarray(prior, np.float32)}
    if interval is not None:
        columns |= {name: np.asarray(end, np.float32) for name, end in zip(INTERVAL, interval, strict=True)}
    with replacing(path) as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False)


def read_prior(path: str | Path, classes: Sequence[str]) -> Tensor:
    """[C] the prior of `classes` from its CSV, matched by class name.

    A row of an unknown class is left out with a warning. A file in which names repeat, or classes whose own names do,
    is matched by position where the number of rows is right and no name contradicts it, with a warning.

    Raises:
        InputError: an unreadable file, other columns, a value outside [0, 1], or classes that the file lacks.
    """
    return _read(path, classes)[COLUMNS[1]]


def read_prior_interval(path: str | Path, classes: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """The ends [C] of the intervals in the CSV of a prior; None where it has none. Errors are those of `read_prior`."""
    columns = _read(path, classes)
    return (columns["low"], columns["high"]) if "low" in columns else None


def _read(path, classes):
    """{column: [C]} the numbers of the CSV."""
    try:
        # Without a header pandas refuses a row of more cells than the first; with one it takes the first for an index.
        table = pd.read_csv(path, header=None, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a class prior ({in_words(error)}), expected a CSV {','.join(COLUMNS)}"
        ) from error
    header, table = tuple(table.iloc[0]), table[1:].reset_index(drop=True)
    if header not in (COLUMNS, COLUMNS + INTERVAL):
        raise InputError(f"{path}: columns {','.join(header)[:200]}, expected {','.join(COLUMNS)}")
    table.columns = header
    table.Classes = table.Classes.map(unescape_cell)
    rows = _rows_of(path, list(table.Classes), list(classes))
    return {name: torch.from_numpy(_numbers(path, table[name], rows)) for name in header[1:]}


def _numbers(path, texts, rows):
    """float32 [C] the cells of these rows."""
    found = np.empty(len(rows), dtype=np.float32)
    for position, row in enumerate(rows):
        try:
            found[position] = float(texts[row])
        except ValueError:
            found[position] = np.nan
        if not 0 <= found[position] <= 1:
            raise InputError(f"{path}, line {row + 2}: a prior of {texts[row]!r}, expected a probability in [0, 1]")
    return found


def _rows_of(path, names, classes):
    """The row of each class: by name, in any case; by position where names repeat or, in a file as long, none agrees."""

    def say(line):
        warnings.warn(line, stacklevel=5)

    if len(set(names)) < len(names) or len(set(classes)) < len(classes):
        if len(names) != len(classes):
            raise InputError(
                f"{path}: {len(names)} rows with repeated names, expected {len(classes)} to match by position"
            )
        return match_classes(classes, names, str(path), "the file", say)
    known = {name.casefold() for name in classes}
    strangers = [name for name in names if name.casefold() not in known]
    if strangers and (len(names) != len(classes) or len(strangers) < len(names)):
        say(f"{path}: left out {len(strangers)} rows of unknown classes: {few_names(strangers)}")
    there = {name.casefold() for name in names}
    missing = [name for name in classes if name.casefold() not in there]
    if missing and (len(missing) < len(classes) or len(names) != len(classes)):
        raise InputError(f"{path}: no prior for {len(missing)} of {len(classes)} classes: {few_names(missing)}")
    return match_classes(classes, names, str(path), "the file", say)
