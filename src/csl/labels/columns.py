"""How one column of attributes becomes classes, and back.

A yes/no column is one class of that name. Any other column is a group of classes of which at most one is positive:
`Sleeve Length 0` to `Sleeve Length 3` for integers, `colour:Red` and its like for strings.
"""

import re
from dataclasses import dataclass

import numpy as np

from csl.errors import InputError
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED

YES_NO, INTEGER, STRING = "yes/no", "integer", "string"

_INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_SMALL = 50  # values that any column may have, however few its rows
_SPARSE = 4  # integers that leave out more than three of four values are names, not counts
_FREE_TEXT = 0.25  # distinct values per known row above which a column is no attribute


@dataclass(frozen=True)
class Column:
    """One attribute column.

    Attributes:
        name: as in the CSV's header.
        kind: "yes/no", "integer" or "string".
        values: the text of each value, in the order of its classes; ("0", "1") for yes/no, which is one class.
    """

    name: str
    kind: str
    values: tuple[str, ...]

    @property
    def classes(self):
        """Names of its classes."""
        if self.kind == YES_NO:
            return [self.name]
        if self.kind == INTEGER:
            return [f"{title(self.name)} {value}" for value in self.values]
        return [f"{self.name}:{value}" for value in self.values]

    def labels(self, table):
        """Labels int8 [N, len(classes)] of the table's rows: one positive and the rest negative, -1 where unknown.

        Raises:
            InputError: a known cell is none of the values; the message names its line.
        """
        place = {value: position for position, value in enumerate(self.values)}
        codes, texts = table.known(self.name)
        of_text = [place.get(text, place.get(_canonical(text), -1)) for text in texts]
        if -1 in of_text:
            code = of_text.index(-1)
            where = table.at(np.argmax(codes == code), self.name)
            raise InputError(f"{where}: found {texts[code]!r}, expected {self._expected()}")
        positions = np.array([*of_text, -1])[codes]  # [N]; the code -1 takes the last

        known = np.flatnonzero(positions >= 0)
        if self.kind == YES_NO:
            return positions[:, None].astype(np.int8)  # 1, 0 and -1 as they are
        labels = np.full((len(codes), len(self.values)), UNANNOTATED, dtype=np.int8)
        labels[known] = NEGATIVE
        labels[known, positions[known]] = POSITIVE
        return labels

    def _expected(self):
        if self.kind == YES_NO:
            known = "0 or 1"
        elif self.kind == INTEGER:
            known = f"0 to {len(self.values) - 1}"
        else:
            more = f" and {len(self.values) - 5} more" if len(self.values) > 5 else ""
            known = f"one of {', '.join(map(repr, self.values[:5]))}{more}"
        return f"{known} (the values of the training file), or #N/A where it is not known"


def title(column):
    """`sleeve_length` -> `Sleeve Length`, the form in which the classes of integer columns are named."""
    return column.replace("_", " ").title()


def column_of(table, name, size=None):
    """What kind of attribute a column is, and its values, from all rows of a table.

    With a `size` it is the integers 0 to size - 1. Otherwise: known values that are only 0 and 1 (or none at all)
    make it yes/no; integers up to M make M + 1 classes, unless they are few and far between, in which case each
    that occurs is a name; anything else is a string column, its values by falling frequency, then by name.

    Raises:
        InputError: a value outside `size`, an integer below -1, or free text (more than 50 values that are more than
            a quarter of the known rows).
    """
    codes, texts = table.known(name)
    numbers = [_integer(text) for text in texts]

    def where(position):  # texts stand in order of appearance: the first wrong one is on the first wrong line
        return table.at(np.argmax(codes == position), name)

    if size is not None:
        for position, number in enumerate(numbers):
            if number is None or not 0 <= number < size:
                raise InputError(
                    f"{where(position)}: found {texts[position]!r}, expected 0 to {size - 1} "
                    f"(--attributes {name}:{size}), or #N/A where it is not known"
                )
        return Column(name, INTEGER, tuple(map(str, range(size))))

    integers = None not in numbers
    if integers and numbers and min(numbers) < 0:
        position = next(k for k, number in enumerate(numbers) if number < 0)
        raise InputError(
            f"{where(position)}: found {texts[position]!r}, expected 0 or more, or #N/A where it is not known"
        )
    if integers and set(numbers) <= {0, 1}:
        return Column(name, YES_NO, ("0", "1"))

    values = [str(number) for number in numbers] if integers else texts
    frequency = dict.fromkeys(values, 0)
    for value, count in zip(values, np.bincount(codes[codes >= 0], minlength=len(values)), strict=True):
        frequency[value] += int(count)  # "3" and "3.0" are one value
    known = sum(frequency.values())
    if len(frequency) > _SMALL and len(frequency) > _FREE_TEXT * known:
        raise InputError(
            f"{table.path}: column {name!r} looks like free text ({len(frequency)} different values in {known} known "
            f"rows), expected an attribute; leave it out with --ignore_columns {name}"
        )
    if integers:
        num_values = max(numbers) + 1
        if num_values <= max(_SMALL, _SPARSE * len(frequency)):
            return Column(name, INTEGER, tuple(map(str, range(num_values))))
    return Column(name, STRING, tuple(sorted(frequency, key=lambda value: (-frequency[value], value))))


def columns_of_classes(classes, groups):
    """The columns of a training run, from its class names and the slice of each attribute: the inverse of `classes`.

    Raises:
        InputError: the groups do not cover the classes, or a class is not named as one of its column is.
    """
    columns, end = [], 0
    for name, group in sorted(groups.items(), key=lambda item: item[1].start):
        if group.start != end or not group.start < group.stop <= len(classes):
            raise InputError(
                f"groups: {name!r} has classes {group.start} to {group.stop - 1} of {len(classes)}, expected {end} on"
            )
        end = group.stop
        columns.append(_column_named(name, list(classes[group])))
    if end != len(classes):
        raise InputError(f"groups: they end at class {end}, expected all {len(classes)} classes in one")
    return columns


def _column_named(name, classes):
    column = Column(name, INTEGER, tuple(map(str, range(len(classes)))))
    if classes == [name]:
        return Column(name, YES_NO, ("0", "1"))
    if classes == column.classes:
        return column
    prefix = f"{name}:"
    for class_name in classes:
        if not class_name.startswith(prefix):
            raise InputError(
                f"groups: class {class_name!r} of attribute {name!r} has another name than expected: "
                f"{name!r}, '{title(name)} 0' or '{prefix}value'"
            )
    return Column(name, STRING, tuple(class_name.removeprefix(prefix) for class_name in classes))


def _integer(text):
    """The integer that a cell holds ("3", "3.0"), or None."""
    return int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else None


def _canonical(text):
    number = _integer(text)
    return text if number is None else str(number)
