"""Names that files give to classes and images, and what no name may be."""

import re
from collections.abc import Iterable
from pathlib import Path

from csl.errors import InputError, printable

# Control characters (C0, DEL, C1), marks that reverse the text behind them, and halves of surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What a spreadsheet would run or fetch: "=" begins any formula; after "+", "-" and "@" it takes a call, a command or
# another sheet, which tells a formula from a file called -abc.jpg. Spaces before it, of any kind, may be stripped by whoever
# writes the cell again, and East Asian versions take the wide forms of the signs.
_FORMULA = re.compile(r"[\s\ufeff\u200b]*([=＝]|[+\-@＋－＠].*[(|!])", re.DOTALL)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet that opens a table with this cell would take it for a formula."""
    return _FORMULA.match(text) is not None


def table_cell(path: str) -> str:
    """The path of an image as a table of results holds it: printable, and for a spreadsheet no formula, as ./=a.jpg."""
    return printable(f"./{path}" if path.startswith(("=", "+", "-", "@")) or is_formula(path) else path)


def check_class_names(names: Iterable[str], place: str | Path) -> None:
    """Names of classes are shown on terminals and written into tables for spreadsheets.

    Raises:
        InputError: one has a control character, is no text in Unicode, or is a formula.
    """
    for number, name in enumerate(names):
        wrong = "a control character" if CONTROL.search(name) else "a formula" if is_formula(name) else None
        if wrong:
            raise InputError(
                f"{place}: class {number} is called {name[:80]!r}, which has {wrong}; expected a plain name"
            )
