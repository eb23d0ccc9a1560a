"""What a person says of a table of labels: by flags, or once for all in `labels.toml` beside it."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.labels.paths import SPLITS
from csl.machine.files import parse_json
from csl.ranges import check_ranges

ROLES = ("image", "split", "weight", "class", "attribute", "list", "ignored")
SIDE_FILE = "labels.toml"

RECORD = "preparation.json"
"""Beside the tables that `csl prepare attributes` wrote: it says so, and how these are read."""

_TYPES = {
    "columns": (list, str), "ignore_columns": (list, str), "no_label": (list, str), "attributes": (dict, int),
    "roles": (dict, str), "vote_threshold": ((int, float), str),
}  # fmt: skip
"""Of what is no text: the type of an option, and of what it holds."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a person says of a table; None and empty leave it to the table.

    Attributes:
        filename_column: the column that names the images.
        columns: the columns that hold labels, and no others do: names, patterns (`has_*`) and ranges (`first..last`).
        ignore_columns: columns that hold none.
        attributes: {column: size} of integer columns whose size the data need not show.
        roles: {column: one of `ROLES`}; "list:+" says what separates the labels, also "list:comma" and "list:blank".
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
            if plain not in ROLES or (colon and (plain != "list" or not separator)):
                raise InputError(
                    f"--roles: found {column}={role}, expected one of {', '.join(ROLES)}, or list:SEPARATOR as in list:+"
                )
        check_ranges(vars(self))

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

    def given(self) -> dict[str, Any]:
        """The options that say something."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) and one.name != "settled"}

    def _over(self, path, said):
        names = [one.name for one in fields(self) if one.name != "settled"]
        for name, value in said.items() if isinstance(said, dict) else [("options", said)]:
            wanted, inner = _TYPES.get(name, (str, str))
            inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            if name not in names or not isinstance(value, wanted) or not all(isinstance(one, inner) for one in inside):
                raise InputError(
                    f"{path}: found {name} = {value!r}, expected {', '.join(names)}, each as its flag takes it"
                )
        given = {name: getattr(self, name) for name in said}
        said = {
            name: value | given[name] if isinstance(value, dict) else value
            for name, value in said.items()
            if isinstance(value, dict) or not given[name]
        }
        return replace(self, settled=(*self.settled, *said), **said)
