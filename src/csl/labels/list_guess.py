"""Whether the cells of a column are lists of labels, and what separates these."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from csl.labels import columns as kinds
from csl.labels.brackets import is_bracketed, is_choices
from csl.labels.columns import integer, number

SURE, LIKELY, POSSIBLE = "sure", "likely", "possible"
"""How plain it is that cells are lists. Likely is asked about however many cells differ, possible where few do."""

BLANK = " "
SIGNS = "\n|;,、，；"  # rare in names
_NAMELESS = SIGNS.replace(",", "")  # in no names at all
_WEAK_SIGNS = "#+&/"  # not rare in names
_SENTENCE = re.compile(r"[.!?](\s|$)|\s['\"(]|['\")]\s")
_MOST_WORDS = 1000  # of lists separated by blanks
_MOST_A_CELL = 0.75  # different parts a cell, above which few parts stand in several cells
_OF_VECTORS = frozenset({"0", "1", "-1", "0.0", "1.0", "-1.0", "true", "false"})
_OF_LISTS = re.compile(r"(labels|tags|classes|categories|genres|keywords|attributes|findings)$", re.IGNORECASE)


class _Parts(NamedTuple):
    """What a sign splits the distinct cells of a column into.

    Attributes:
        sign: the sign.
        counts: the number of cells that each part stands in.
        a_cell: the number of different parts a cell.
        repeated: the number of parts that stand in several cells.
        moving: the parts that stand last in one cell and not last in another. In names of several words one says what is
            named, and stands last, and others say of which kind (light blue, dark blue, blue); in lists any may stand last.
        varied: whether the cells have different numbers of parts, and none twice, as lists mostly do and sentences do not.
        few: whether a few parts make many cells.
        integers: whether all parts are integers.
    """

    sign: str
    counts: Counter[str]
    a_cell: float
    repeated: int
    moving: set[str]
    varied: bool
    few: bool
    integers: bool


def separator(texts: Sequence[str], name: str) -> tuple[str | None, str]:
    """What separates the labels in a column's distinct known cells, and how plain that is; (None, "") where nothing does."""
    if texts and (all(map(is_bracketed, texts)) or any(map(is_choices, texts))):
        return kinds.JSON, SURE
    if any(number(text) is not None and "." in text for text in texts):
        return None, ""
    signs = f"{SIGNS}{_WEAK_SIGNS}" + ("" if any(map(_SENTENCE.search, texts)) else BLANK)
    split_by = [parts for sign in signs if (parts := _parts(texts, sign)) is not None]
    split_by = [parts for parts in split_by if parts.sign != BLANK or len(parts.counts) <= _MOST_WORDS]
    for how, holds in ((SURE, _is_sure), (LIKELY, _is_likely), (POSSIBLE, _is_possible)):
        for parts in split_by:
            if holds(parts, texts, name):
                return parts.sign, how
    return None, ""


def _parts(texts, sign):
    """What the sign splits the cells into, None where it splits none."""
    if not any(sign in text for text in texts):
        return None
    of_cells = [kinds.split(text.casefold(), sign) for text in texts]
    if not any(len(parts) > 1 for parts in of_cells) and not all(sign in text for text in texts):
        return None
    counts = Counter(part for parts in of_cells for part in set(parts))
    moving = {parts[-1] for parts in of_cells if parts}
    moving &= {part for parts in of_cells for part in parts[:-1] if part != parts[-1]}
    a_cell, repeated = len(counts) / len(of_cells), sum(count > 1 for count in counts.values())
    varied = len(set(map(len, of_cells))) > 1 and all(len(set(parts)) == len(parts) for parts in of_cells)
    few = repeated >= 0.6 * len(counts) or a_cell <= _MOST_A_CELL
    integers = all(integer(part) is not None for part in counts)
    return _Parts(sign, counts, a_cell, repeated, moving, varied, few, integers)


def _is_sure(parts, texts, name):
    if not parts.varied or (parts.sign not in SIGNS and not parts.moving):
        return False
    return parts.a_cell <= 0.5 if parts.sign in " &/" else parts.few


def _is_likely(parts, texts, name):
    if parts.sign == BLANK:
        mostly_shared = parts.moving and parts.repeated >= 0.7 * len(parts.counts) and len(texts) > 3
        return parts.varied and bool(mostly_shared or parts.a_cell <= 0.5)
    return parts.sign in SIGNS and parts.few and len(texts) > 1 and not parts.integers  # coordinates are integers, too


def _is_possible(parts, texts, name):
    """Whether few cells may be lists.

    Evidence is a part of one cell that stands in another, alone or beside others. A bar, a semicolon, or a comma that no
    blank follows, is evidence of itself, as no name ("Smith, John") is written so, and so is a comma in a column called
    "tags". In names of several words a word may stand in several, so that blanks and slashes need more: at least half of the
    words in several cells move (`_Parts.moving`), or all are numbers.
    """
    if parts.sign in (BLANK, "/"):
        return len(parts.moving) >= max(1, parts.repeated / 2) or (parts.sign == BLANK and parts.integers)
    by_comma = parts.sign == "," and (_OF_LISTS.search(name) or any(re.search(r",(\S|$)", text) for text in texts))
    return parts.sign in _NAMELESS or bool(by_comma) or parts.repeated > 0


def said_separator(texts: Sequence[str], name: str) -> tuple[str, bool]:
    """What separates the labels in cells that a person says are lists, a comma where nothing does; and whether that is open, as
    the sign may belong to the labels."""
    found, how = separator(texts, name)
    sign = next((sign for sign in SIGNS if any(sign in text for text in texts)), None)
    if found is not None and (sign is None or (how != POSSIBLE and found != BLANK)):
        return found, False
    others = [other for other in f"{_WEAK_SIGNS}{BLANK}" if sign is None and _parts(texts, other) is not None]
    return next(iter(others), sign or ","), bool(others)


def vector_separator(texts: Sequence[str]) -> str | None:
    """What separates the places of vectors that hold a 0 or 1 for each of several classes; None where cells are none."""
    signs = [sign for sign in (*SIGNS, BLANK) if texts and sign in texts[0]]
    signs = [kinds.JSON] if texts and all(map(is_bracketed, texts)) else signs
    return next((sign for sign in signs if is_vector(texts, sign)), None)


def is_vector(texts: Sequence[str], separator: str) -> bool:
    """Whether all cells but empty lists have a 0, 1 or -1 for each of as many places, two or more."""
    lists: set[tuple[str, ...]] = set()
    for text in texts:
        if words := tuple(word.lower() for word in kinds.split(text, separator)):
            lists.add(words)
        if not _OF_VECTORS.issuperset(words):
            return False
    lengths = set(map(len, lists))
    return len(lengths) == 1 and min(lengths) > 1 and lists != {("0", "1")}  # the numbers of two classes
