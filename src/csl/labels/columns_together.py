"""What a column of a table is, given the others: a fact about the photo beside labels, a constant, a label a row, votes."""

import re
from collections.abc import Collection, Mapping

import numpy as np

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.column_guess import SHARES
from csl.labels.columns import Column, number
from csl.labels.table import Table
from csl.labels.table_options import TableOptions

_BLOCK = 5  # yes/no columns beside which words are taken for facts about the photo
_VOTERS = 10  # at most


def beside_labels(table: Table, found: Mapping[str, Column], asked: Collection[str]) -> dict[str, str]:
    """{column: why} of those of the `found` ones that hold no labels beside the others.

    A person's word counts: columns that are `asked` for are not among them.
    """
    return _facts(found, asked) | _constants(table, found, asked)


def _facts(found, asked):
    """{column: why} of lists that repeat the yes/no columns, sizes, and what is said of a photo beside its labels."""
    of_kind = {kind: [n for n, c in found.items() if c.kind == kind] for kind in (kinds.YES_NO, kinds.LIST)}
    facts = {}
    for name in of_kind[kinds.LIST]:
        words = set(found[name].values)
        if name not in asked and words and words <= set(of_kind[kinds.YES_NO]):
            facts[name] = "repeats the yes/no columns"
    lists = [name for name in of_kind[kinds.LIST] if name not in facts]
    others = [n for n, c in found.items() if c.kind in (kinds.INTEGER, kinds.STRING) and n not in asked]
    words = [name for name in others if found[name].kind == kinds.STRING]
    sizes = [n for n in others if re.search("size$", n, re.IGNORECASE) and None not in map(number, found[n].values)]
    if len(sizes) < len(found):  # else they are what the table is about
        facts |= dict.fromkeys(sizes, "numbers, by its name no label")
    if lists:
        facts |= dict.fromkeys(others, f"a fact about the photo, beside the list {lists[0]!r}?")
    elif len(of_kind[kinds.YES_NO]) >= max(_BLOCK, 3 * len(words)):
        facts |= dict.fromkeys(words, f"a fact about the photo, beside {len(of_kind[kinds.YES_NO])} yes/no columns?")
    return facts


def _constants(table, found, asked):
    """{column: why} of attributes that never vary, where others do. A letter for yes or no that no varying column has is one,
    too: F beside 0 and 1 is a word for female."""
    words = {name: {text.lower() for text in table.known(name)[1]} for name in found}
    of_others = {word for name in found if len(words[name]) > 1 for word in words[name]}
    same = {}
    for name in found if of_others and len(table) > 1 else ():
        letter = words[name] & {*"fntyj"} - of_others
        attribute = found[name].kind in (kinds.INTEGER, kinds.STRING)
        if len(words[name]) == 1 and (attribute or letter) and name not in asked and not table.unknown(name):
            same[name] = f"the same in every row: {table.known(name)[1][0]}"
    return same


def one_a_row(table: Table, found: Mapping[str, Column], image: str, asked: Collection[str]) -> list[str]:
    """Columns of words of which an image has several, in rows of its own: a label a row."""
    names = table.text(image)
    if len(set(names)) == len(names) or any(column.kind == kinds.YES_NO for column in found.values()):
        return []
    several = []
    for name, column in found.items():
        codes, _ = table.known(name)
        pairs = {(image_name, code) for image_name, code in zip(names, codes, strict=True) if code >= 0}
        if column.kind == kinds.STRING and name not in asked and len(pairs) > len({one for one, _ in pairs}):
            several.append(name)
    return several


def votes(table: Table, ignored: Mapping[str, str], found: Mapping[str, Column], options: TableOptions) -> list[str]:
    """Of the ignored columns those of shares of votes, which are labels where a person says from which share on.

    Raises:
        InputError: nobody says it, and nothing else is a label, or the shares are plainly votes.
    """
    shares = [name for name, why in ignored.items() if why == SHARES]
    if options.vote_threshold is not None:
        return shares
    any_yes_no = any(column.kind == kinds.YES_NO for column in found.values())
    asked = [name for name in shares if not found or (any_yes_no and _are_votes(table.known(name)[1]))]
    if asked:
        raise InputError(
            f"{table.path}: column {asked[0]!r} holds numbers between 0 and 1, such as shares of votes; expected "
            "--vote_threshold X, from which on they count as yes"
            + (f", or --ignore_columns {asked[0]}" if found else "")
        )
    return []


def _are_votes(texts):
    """Whether shares between 0 and 1 are those of the same few voters, as are 0.33, 0.67 and 1."""
    shares = np.array([float(text) for text in texts])
    off = {voters: np.abs(shares * voters - np.round(shares * voters)).max() for voters in range(2, _VOTERS)}
    return any(most < 0.01 * voters for voters, most in off.items())
