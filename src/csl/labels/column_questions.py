"""What is refused or asked once the columns of labels are known: classes of one name, flags without effect, -1, yes."""

from collections.abc import Collection, Mapping, Sequence

from csl.errors import InputError
from csl.labels import columns as kinds
from csl.labels.columns import Column, number
from csl.labels.matching import few, few_names
from csl.labels.table import Table
from csl.labels.table_options import TableOptions

_ALIKE = 3  # columns of the same two words


def expect_classes(table: Table, columns: Sequence[Column], ignored: Mapping[str, str]) -> None:
    """Refuse a table whose columns have no class at all; the message says why each of the others is `ignored`."""
    if not any(column.classes for column in columns):
        reasons = few([f"{name} ({why})" for name, why in ignored.items()])
        raise InputError(
            f"{table.path}: no column holds labels: {reasons}; expected some, or --columns NAMES says which do"
        )


def ask_for_minus_one(table: Table, columns: Sequence[Column]) -> None:
    """Ask what -1 means where a table has 1 and -1 and no 0 at all."""
    yes_no = [column for column in columns if column.kind == kinds.YES_NO]
    holds = [column for column in yes_no if kinds.MINUS_ONE & set(table.unknown(column.name))]
    if not holds or any(text.lower() in kinds.NO for column in yes_no for text in table.known(column.name)[1]):
        return
    raise InputError(
        f"{table.path}: column {holds[0].name!r} and {len(holds) - 1} more hold -1, and no yes/no column a 0: -1 may mean "
        "no or not known; expected --minus_one negative or --minus_one unknown"
    )


def ask_for_yes(table: Table, columns: Sequence[Column], asked: Collection[str]) -> None:
    """Ask which word is yes where the same two stand in several columns, such as `low` and `high` or words of a language;
    columns that a person `asked` for hold what they seem to."""
    of_words: dict[frozenset, list[str]] = {}
    for column in columns:
        if column.kind == kinds.STRING and len(column.values) == 2 and column.name not in asked:
            of_words.setdefault(frozenset(map(kinds.folded, column.values)), []).append(column.name)
    for names in of_words.values():
        if len(names) >= _ALIKE:
            words = table.known(names[0])[1][:2]
            said = f"{names[0]}..{names[-1]}"
            raise InputError(
                f"{table.path}: {len(names)} columns hold {words[0]!r} and {words[1]!r} alone ({few_names(names)}), perhaps "
                f"for yes and no; expected --roles '{said}=class:WORD' with the word for yes, or '{said}=attribute' where each "
                "is a class of its own"
            )


def refuse_unused(table: Table, columns: Sequence[Column], options: TableOptions) -> None:
    """Refuse what a person says of a kind of column that the table has none of."""
    yes_no = [column.name for column in columns if column.kind == kinds.YES_NO]
    lists = any(column.kind == kinds.LIST for column in columns)
    marks = any(column.marks for column in columns)
    used = {
        "minus_one": (any(kinds.MINUS_ONE & set(table.unknown(name)) for name in yes_no), "no yes/no column holds -1"),
        "unlisted": (lists or marks, "there is no column of lists or marks"),
        "no_label": (lists, "there is no column of lists"),
        "vote_threshold": (
            any("." in text and number(text) % 1 for name in yes_no for text in table.known(name)[1] if number(text)),
            "no column holds shares of votes",
        ),
    }
    for name, (is_used, why) in used.items():
        if getattr(options, name) and name not in options.settled and not is_used:
            raise InputError(f"--{name} changes nothing: {why} in {table.path}; leave it out")


def refuse_shared_names(table: Table, columns: Sequence[Column]) -> None:
    """Refuse classes of one name in two columns."""
    owner: dict[str, str] = {}
    for column in columns:
        for name in column.classes:
            if owner.setdefault(name, column.name) != column.name:
                raise InputError(
                    f"{table.path}, line 1: columns {owner[name]!r} and {column.name!r} both have a class {name!r}, "
                    "expected different names"
                )
