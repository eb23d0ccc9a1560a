"""What a person says of a table of labels: by flags, or once for all in `labels.toml` beside it."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.labels.matching import few
from csl.labels.paths import SPLITS
from csl.machine.files import parse_json
from csl.ranges import check_ranges

ROLES = ("image", "split", "weight", "class", "attribute", "list", "ignored")
_ROLES_OF_LABELS = ("class", "attribute", "list")
SIDE_FILE = "labels.toml"

RECORD = "preparation.json"
"""Beside the tables that `csl prepare attributes` wrote: it says so, and how these are read."""


def columns_named(columns: Sequence[str], pattern: str) -> list[str]:
    """The columns that a name, a pattern (`has_*`) or a range (`first..last`) names, in their order."""
    ends = pattern.split("..", 1)
    if len(ends) == 2 and set(ends) <= set(columns):
        first, last = sorted(columns.index(end) for end in ends)
        return list(columns[first : last + 1])
    return [name for name in columns if name == pattern or fnmatchcase(name, pattern)]


def _is_text(value):
    return isinstance(value, str)


def _is_texts(value):
    return isinstance(value, list) and all(map(_is_text, value))


_FORMS = {
    **dict.fromkeys(("columns", "ignore_columns", "no_label"), ('a list of texts, ["A", "B"]', _is_texts)),
    "attributes": (
        "a table of sizes, {neck = 7}",
        lambda value: isinstance(value, dict) and all(type(size) is int and size > 0 for size in value.values()),
    ),
    "roles": (
        "a table of roles, {Age = 'ignored'}",
        lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    ),
    "vote_threshold": ("a number", lambda value: type(value) in (int, float)),
}
"""What `labels.toml` has for an option: in words, and the test; for others a text."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a person says of a table; None and empty leave it to the table.

    Attributes:
        filename_column: the column that names the images.
        columns: the columns that hold labels, and no others do: names, patterns (`has_*`) and ranges (`first..last`).
        ignore_columns: columns that hold none.
        attributes: {column: size} of integer columns whose size the data need not show.
        roles: {column, or as in `columns` a pattern or a range: one of `ROLES`}; "list:+" says what separates the labels, also
            "list:comma" and "list:blank", "class:WORD" which word is yes.
        minus_one: what -1 means in a yes/no column, "negative" or "unknown".
        unlisted: what a label that a list lacks, or a cell without a mark, counts as, "negative" or "unknown".
        no_label: words for an empty list.
        vote_threshold: of columns that hold shares of votes: from which share on yes, in (0, 1].
        settled: names of the options that a file says, once for all, also where they change nothing.
    """

    filename_column: str | None = None
    columns: Sequence[str] = ()
    ignore_columns: Sequence[str] = ()
    attributes: dict[str, int] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    minus_one: str | None = None
    unlisted: str | None = None
    no_label: Sequence[str] = ()
    vote_threshold: float | None = None
    settled: Sequence[str] = ()

    def __post_init__(self):
        for name in ("minus_one", "unlisted"):
            if getattr(self, name) not in (None, "negative", "unknown"):
                raise InputError(f"--{name} {getattr(self, name)}: expected negative or unknown")
        for column, role in self.roles.items():
            plain, colon, separator = role.partition(":")
            if plain not in ROLES or (colon and (plain not in ("list", "class") or not separator)):
                raise InputError(
                    f"--roles: found {column}={role}, expected one of {', '.join(ROLES)}, list:SEPARATOR as in list:+ "
                    "or class:WORD as in class:ja"
                )
        check_ranges(vars(self))

    @property
    def image(self) -> str | None:
        """The column that is said to name the images."""
        return self.filename_column or self.column_of("image")

    def column_of(self, role: str) -> str | None:
        """The first column that is said to have a role, or None."""
        return next((name for name, said in self.roles.items() if said == role), None)

    @property
    def label_roles(self) -> dict[str, str]:
        """Of the roles those of labels: {column: "class", "attribute" or "list", with what stands behind a colon}."""
        return {name: role for name, role in self.roles.items() if role.partition(":")[0] in _ROLES_OF_LABELS}

    @property
    def named(self) -> set[str]:
        """All columns, patterns and ranges that something is said of, beside `filename_column`."""
        return {*self.roles, *self.attributes, *self.columns, *self.ignore_columns}

    @property
    def ignored(self) -> set[str]:
        """The columns that are said to hold no labels."""
        return {*self.ignore_columns, *(name for name, role in self.roles.items() if role == "ignored")}

    def over_file(self, table: Path) -> "TableOptions":
        """These options; each, or of roles and attributes each column, that is not given takes the value that
        `preparation.json` of a prepared table, or `labels.toml` beside it, has for it, if any.

        Raises:
            InputError: a file is not in its form, or says something that is no option or of another type.
        """
        said = self
        record, path = table.parent / RECORD, table.parent / SIDE_FILE
        if table.name in {f"attributes_{split}.csv" for split in SPLITS} and record.is_file():
            content = parse_json(record.read_bytes(), record)
            said = said._over(record, content.get("options", {}) if isinstance(content, dict) else {})
        if path.is_file():
            try:
                said = said._over(path, tomllib.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: not TOML in UTF-8 ({error})") from None
        return said

    def of_columns(self, columns: Sequence[str]) -> "TableOptions":
        """These options with the roles of the columns that each pattern or range names; a role of a column's own wins."""
        found = {}
        for name, role in self.roles.items():
            meant = [] if name in columns else [one for one in columns_named(columns, name) if one != self.image]
            found |= dict.fromkeys(meant or [name], role)
        return replace(self, roles=found | {name: role for name, role in self.roles.items() if name in columns})

    def wanted(self, columns: Sequence[str], table: Path) -> list[str]:
        """The columns that `columns` names, in the order of the table.

        Raises:
            InputError: it names something, and no column of the table.
        """
        wanted = {name for pattern in self.columns for name in columns_named(columns, pattern)}
        if self.columns and not wanted:
            raise InputError(f"--columns {','.join(self.columns)}: names no column of {table}, found {few(columns)}")
        return [name for name in columns if name in wanted]

    def check_names(self, columns: Sequence[str], table: Path) -> None:
        """Check that each column that is named is one of the table's.

        Raises:
            InputError: one is not; the message says the flag, and names that are like it.
        """
        ends = [end for name in self.columns if ".." in name for end in name.split("..", 1)]
        plain = [name for name in self.columns if ".." not in name and not re.search(r"[*?[]", name)]
        named = {
            "--filename_column": [self.filename_column] if self.filename_column else [],
            "--columns": [*ends, *plain],
            "--ignore_columns": self.ignore_columns,
            "--attributes": self.attributes,
            "--roles": self.roles,
        }
        for flag, name in ((flag, name) for flag, names in named.items() for name in names):
            if name not in columns:
                beside = f" or {SIDE_FILE}" if (table.parent / SIDE_FILE).is_file() else ""
                near = " or ".join(map(repr, get_close_matches(name, columns)))
                found = f"did you mean {near}?" if near else f"found {few(columns)}"
                raise InputError(f"{flag}{beside}: no column {name!r} in {table}, {found}")

    def given(self) -> dict[str, Any]:
        """The options that say something."""
        return {name: value for name, value in vars(self).items() if value and name != "settled"}

    def _over(self, path, said):
        names = [name for name in vars(self) if name != "settled"]
        for name, value in said.items() if isinstance(said, dict) else [("options", said)]:
            if name not in names:
                near = "".join(f"; did you mean {one}?" for one in get_close_matches(name, names, 1))
                raise InputError(f"{path}: found {name} = {value!r}, expected {', '.join(names)}{near}")
            expected, fits = _FORMS.get(name, ("a text", _is_text))
            if not fits(value):
                raise InputError(f"{path}: found {name} = {value!r}, expected {expected}")
        try:
            TableOptions(**said)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        given = {name: getattr(self, name) for name in said}
        said = {name: value for name, value in said.items() if isinstance(value, dict) or not given[name]}
        said |= {name: value | given[name] for name, value in said.items() if isinstance(value, dict)}
        return replace(self, settled=(*self.settled, *said), **said)
