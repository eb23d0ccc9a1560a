"""The classes of a network or a data set: names, stable keys and attribute groups."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from csl.errors import InputError, shown
from csl.labels.trust import check_class_names


@dataclass(frozen=True)
class ClassSet:
    """C classes.

    Attributes:
        classes: C names.
        keys: C identifiers that outlive a change of name (OpenImages: MIDs); the names where a file has no keys.
        groups: attribute -> slice of its classes; None without attributes.
    """

    classes: list[str]
    keys: list[str]
    groups: dict[str, slice] | None = None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], place: str | Path, count: int | None = None) -> "ClassSet":
        """Check the plain values of an untrusted file, as `to_plain` writes them.

        Args:
            values: `classes` and `keys`, each a list of names or a mapping of class numbers to names, and `groups`.
                `keys` and `groups` may be missing.
            place: names the file in messages.
            count: number of classes that the network has; None if unknown.

        Raises:
            InputError: values of another type, names that no class may have, or lengths that disagree.
        """
        classes = _names(values.get("classes"), "classes", place, count)
        keys = classes if values.get("keys") is None else _names(values["keys"], "keys", place, len(classes))
        if count is not None and len(classes) != count:
            raise InputError(f"{place}: {len(classes)} class names for {count} classes")
        if len(keys) != len(classes):
            raise InputError(f"{place}: {len(keys)} keys, expected one for each of {len(classes)} classes")
        check_class_names(classes, place)
        return cls(classes, keys, _groups(values.get("groups"), place, len(classes)))

    def to_plain(self) -> dict[str, Any]:
        """Lists and numbers that JSON and PyTorch's safe loader take."""
        groups = {name: [group.start, group.stop] for name, group in (self.groups or {}).items()} or None
        return {"classes": list(self.classes), "keys": list(self.keys), "groups": groups}


def several_values(groups: Mapping[str, slice] | None) -> dict[str, slice]:
    """The attributes of several values, which exclude each other: {name: its classes}. A class of its own is in none."""
    return {name: group for name, group in (groups or {}).items() if group.stop - group.start > 1}


def _names(value, kind, place, count):
    """Names from a list or a mapping of class numbers, which are 0 to C - 1 or others in their order."""
    if isinstance(value, Mapping):
        try:
            by_index = {int(number): name for number, name in value.items()}
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{place}: {kind} has keys that are no numbers of classes") from None
        numbers = sorted(by_index)
        if len(numbers) != len(value) or (count is not None and len(numbers) != count):
            raise InputError(
                f"{place}: {kind} has {len(value)} numbers of classes, {_ends(numbers)}; expected {count or 'each once'}"
            )
        if numbers != list(range(len(numbers))):
            warnings.warn(
                f"{place}: {kind} numbers its {len(numbers)} classes {_ends(numbers)} and not from 0: read in their order",
                stacklevel=2,
            )
        value = [by_index[number] for number in numbers]
    if not isinstance(value, list | tuple):
        raise InputError(f"{place}: {kind}: expected a list of names, found {shown(value)}")
    for name in value:
        if not isinstance(name, str | Real):  # the published files have numbers of NumPy as names
            raise InputError(f"{place}: a class is called {shown(name)}, expected a name")
    return [str(name) for name in value]


def _ends(numbers):
    return f"{numbers[0]} to {numbers[-1]}" if numbers else "none"


def _groups(value, place, count):
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str)
        and isinstance(ends, list | tuple)
        and len(ends) == 2
        and all(type(end) is int for end in ends)
        and 0 <= ends[0] < ends[1] <= count
        for name, ends in value.items()
    ):
        raise InputError(
            f"{place}: groups is {shown(value)}, expected attributes with their first class and the class after the "
            f"last, 0 to {count}"
        )
    return {name: slice(*ends) for name, ends in value.items()}
