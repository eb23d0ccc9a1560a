"""Names that files give to classes and images, and what no name may be."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from csl.errors import InputError, printable

# Control characters (C0, DEL, C1), marks that reverse the text behind them, and halves of surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What a spreadsheet would run or fetch: "=" begins any formula; after "+", "-" and "@" it takes a call, a command or
# another sheet, which tells a formula from a file called -abc.jpg. Spaces before it, of any kind, may be stripped by whoever
# writes the cell again, and East Asian versions take the wide forms of the signs.
_FORMULA = re.compile(r"[\s\ufeff\u200b]*([=＝]|[+\-@＋－＠].*[(|!])", re.DOTALL)


def escape_cell(text: str) -> str:
    """A cell as it is written into a CSV: one that a spreadsheet would run begins with an apostrophe, `'=1+1`."""
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) else text


def unescape_cell(text: str) -> str:
    """The cell that `escape_cell` wrote."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text.lstrip("'")) else text


def escape_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is written into a CSV: `escape_cell` of all texts and of the column names."""
    table = table.copy()
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].map(lambda cell: escape_cell(cell) if isinstance(cell, str) else cell)
    return table.rename(columns=escape_cell)


def path_cell(path: str) -> str:
    """The path of an image as it is written into a table of results: printable, and no formula: `./=a.jpg`."""
    return printable(f"./{path}" if path.startswith(("=", "+", "-", "@")) or _FORMULA.match(path) else path)


def check_class_names(names: Iterable[str], place: str | Path) -> None:
    """Names of classes are shown on terminals.

    Raises:
        InputError: one has a control character or is no text in Unicode.
    """
    for number, name in enumerate(names):
        if CONTROL.search(name):
            raise InputError(
                f"{place}: class {number} is called {name[:80]!r}, which has a control character; expected a plain name"
            )
