"""Tables of another shape, turned into a row an image and a column a class: a row or a column a label, counts of votes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.column_guess import no_attribute
from csl.labels.column_names import names_people
from csl.labels.columns import folded, integer, number
from csl.labels.matching import few_names
from csl.labels.table import Table
from csl.labels.table_options import TableOptions

_NUMBERED = re.compile(r"(.*[^\W\d_])[\s_.-]*\d+")
_OF_LABELS = re.compile(
    r"label|tag|class|categor|attribut|finding|disease|diagnos|patholog|concept|keyword|genre|object|klasse|merkmal",
    re.I,
)
_FEWEST_VOTES = 3  # columns
_FEWEST_ROWS = 4  # of different votes


def reshaping(table: Table, options: TableOptions, image: str) -> tuple[Callable[[Table], Table], TableOptions]:
    """What turns tables like this one into the usual shape, and the options of what comes of it.

    Args:
        table: all rows of the training file.
        options: what a person says of it.
        image: the column that names the images.

    Raises:
        InputError: the table leaves open whether its columns hold the labels of a list or several answers.
    """
    if (pair := _label_and_answer(table, options, image)) is not None:
        words = table.known(pair[0])[1]
        return lambda one: _wide(one, image, *pair, words), options
    steps, roles = [], dict(options.roles)
    for names in _numbered(table, options, image):
        steps.append(names)
        roles = {name: role for name, role in roles.items() if name not in names[1:]}
    votes = _votes(table, options, image)

    def reshape(one: Table) -> Table:
        for names in steps:
            one = _joined(one, names)
        return _shares(one, votes) if votes else one

    return reshape, replace(options, roles=roles)


# ------------------------------------------------------------------------------------------------------- a row a label


def _label_and_answer(table, options, image):
    """The column that names a label, and that which says yes or no to it, where an image has a row for each; or None."""
    names = table.text(image)
    others = [name for name in table.columns if name != image]
    if len(set(names)) == len(names) or options.named.intersection(others):
        return None
    words = {name: {text.lower() for text in table.known(name)[1]} for name in others}
    has_no = {name for name in others if words[name] & kinds.NO or kinds.MINUS_ONE & set(table.unknown(name))}
    answers = [name for name in others if words[name] <= kinds.YES_OR_NO and words[name] & kinds.YES and name in has_no]
    called = [name for name in others if _OF_LABELS.search(name) and not names_people(name)]
    labels = [name for name in called if words[name] - kinds.YES_OR_NO]
    labels = [name for name in labels if None in map(number, words[name])] or labels
    if len(answers) != 1 or len(labels) != 1:
        return None
    pairs = table.frame[[image, labels[0]]].drop_duplicates()
    several = pairs[image].value_counts()
    return (labels[0], answers[0]) if (several > 1).mean() >= 0.5 else None


def _wide(table, image, label, answer, words):
    """A row an image, and another for each further answer to the same label; a column for each of the words."""
    frame = table.frame.assign(**{image: table.text(image), label: table.text(label), answer: table.text(answer)})
    frame["\0line"], frame["\0row"] = table.lines, frame.groupby([image, label]).cumcount()
    keys = [image, "\0row"]
    rest = [name for name in frame if name not in {*keys, label, answer}]
    wide = frame.groupby(keys, sort=False)[rest].first()
    if taken := set(words) & set(wide):
        raise InputError(
            f"{table.path}: a row a label: {label!r} has {min(taken)!r}, which a column is called, too; expected other names"
        )
    cells = frame.pivot(index=keys, columns=label, values=answer).reindex(index=wide.index, columns=words)
    cells = cells.astype(object).fillna("")
    wide = pd.concat([wide, cells], axis=1).reset_index()
    note = (
        f"{table.path.name}: a row a label: {label!r} names it, and {answer!r} says yes or no; of an image without such a row "
        "it is unknown"
    )
    lines = wide.pop("\0line").to_numpy(np.int64)
    return table.changed(wide.drop(columns="\0row"), note, lines=lines)


# ----------------------------------------------------------------------------------------------------- a label a column


def _numbered(table, options, image):
    """The columns, `label1`, `label2`, ..., that together hold the list of an image's labels.

    Raises:
        InputError: they have words in common, and may be answers of several people as well.
    """
    of_name: dict[str, list[str]] = {}
    for name in table.columns:
        if name != image and (match := _NUMBERED.fullmatch(name)) and not no_attribute(table, name, *table.known(name)):
            of_name.setdefault(match[1].lower(), []).append(name)
    named = {*options.attributes, *options.columns, *options.ignore_columns}
    found = []
    for base, names in of_name.items():
        roles = {options.roles.get(name, "") for name in names}
        if len(names) < 2 or named.intersection(names) or not roles <= {"", "list"}:
            continue
        cells = [[folded(text) for text in table.known(name)[1]] for name in names]
        every = {text for texts in cells for text in texts}
        if roles != {"list"}:
            numbers = all(number(text) is not None for text in every)
            repeated = len(every) < sum(map(len, cells))
            is_list = _is_list(table, names)
            if not repeated or every <= kinds.YES_OR_NO or (numbers and not (is_list and _OF_LABELS.search(base))):
                continue
            if not is_list:
                raise InputError(
                    f"{table.path}: columns {few_names(names)} hold the same words, as a list or as answers of several people; "
                    f"expected --roles '{names[0]}..{names[-1]}=list', or '{names[0]}..{names[-1]}=attribute'"
                )
        found.append(names)
    return found


def _is_list(table, names):
    """Whether in each row what is known comes first, and nothing twice."""
    codes = np.stack([table.known(name)[0] for name in names], axis=1) >= 0  # [N, columns]
    if (codes[:, 1:] & ~codes[:, :-1]).any() or codes.all():
        return False
    return all(len(set(row)) == len(row) for row in _lists(table, names))


def _lists(table, names):
    """The known words of each row."""
    texts = np.stack([table.text(name) for name in names], axis=1)
    known = np.stack([table.known(name)[0] for name in names], axis=1) >= 0
    return [list(row[there]) for row, there in zip(texts, known, strict=True)]


def _joined(table, names):
    there = [name for name in names if name in table.columns]
    if not there:
        return table
    lists = [json.dumps(list(dict.fromkeys(row)), ensure_ascii=False) if row else "" for row in _lists(table, there)]
    frame = table.frame.assign(**{names[0]: lists}).drop(columns=[name for name in there if name != names[0]])
    note = f"{table.path.name}: columns {few_names(names)} are one list of labels, called {names[0]!r}"
    return table.changed(frame, note)


# ------------------------------------------------------------------------------------------------------ counts of votes


def _votes(table, options, image):
    """Columns of whole numbers whose sum is the same in each row: how many of as many people saw what the column names.

    Raises:
        InputError: there are some, and no share of them is said from which on a label is there.
    """
    said = {*options.named, image}
    names = []
    for name in table.columns:
        codes, texts = table.known(name) if name not in said else (np.array([-1]), [])
        if (codes >= 0).all() and None not in map(integer, texts) and len(texts) > 1:
            names.append(name)
    if len(names) < _FEWEST_VOTES:
        return []
    counts = np.stack([table.frame[name].map(lambda text: integer(text.strip())) for name in names], axis=1)
    if len(np.unique(counts, axis=0)) < _FEWEST_ROWS:
        return []
    total = set(counts.sum(axis=1).tolist())
    if len(total) > 1 or min(total) < 2 or counts.min() < 0:
        return []
    if options.vote_threshold is None:
        raise InputError(
            f"{table.path}: columns {few_names(names)} sum to {min(total)} in each row, as counts of votes do; expected "
            f"--vote_threshold X, the share of votes from which on a label is there, or --roles '{names[0]}=attribute', ..."
        )
    return names


def _shares(table, names):
    if not set(names) <= set(table.columns):
        return table
    counts = table.frame[names].apply(lambda column: pd.to_numeric(column, errors="coerce"))
    shares = counts.div(counts.sum(axis=1), axis=0).round(6).astype(str)
    note = f"{table.path.name}: counts of votes, read as shares: {few_names(names)}"
    return table.changed(table.frame.assign(**{name: shares[name] for name in names}), note)
