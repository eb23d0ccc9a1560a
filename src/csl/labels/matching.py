"""Match the classes of two sources: by name wherever any name agrees, by position only where none does."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from csl.errors import InputError
from csl.labels.annotations import Annotations


def match_classes(
    wanted: Sequence[str], found: Sequence[str], place: str, whose: str, say: Callable[[str], None]
) -> list[int]:
    """The position in `found` of each wanted class.

    Names are compared as they are, then without their case. Of a name that repeats on both sides as often, the first is the
    first, the second the second. Names that repeat otherwise are matched by position, if each that agrees with another stands
    at its place; so are lists of one length in which no name agrees, and a file without names ("class 0", "class 1", ...).

    Args:
        wanted: C names.
        found: names in another order, with others among them, or of another spelling.
        place: where `wanted` are from, as in messages.
        whose: what `found` are, as in messages: "the network".
        say: told what is not an exact match of names.

    Raises:
        InputError: some names agree and others do not, or the order of repeated names contradicts the positions.
    """
    if (columns := _by_name(wanted, found)) is not None:
        return columns
    ours, theirs = _folded(wanted), _folded(found)
    if (columns := _by_name(ours, theirs)) is not None:
        say(f"{place}: classes are matched to those of {whose} by name, in upper or lower case alike")
        return columns
    nameless = list(found) == [f"class {number}" for number in range(len(found))]
    agree = set() if nameless else set(ours) & set(theirs)
    if agree and not _repeats(ours) and not _repeats(theirs):
        missing = [name for name in wanted if name.casefold() not in agree]
        others = [name for name in found if name.casefold() not in agree]
        raise InputError(
            f"{place}: {len(agree)} of {len(wanted)} classes are called as {whose} calls them, and {few_names(missing)} not "
            f"(there: {few_names(others) or 'no other'}); expected the same names"
        )
    if len(wanted) != len(found):
        raise InputError(f"{place}: {len(wanted)} classes, {whose} has {len(found)}; expected the same")
    for ours, theirs in ((wanted, found), (_folded(wanted), _folded(found))):
        in_theirs, in_ours = Counter(theirs), Counter(ours)
        for position, name in enumerate(theirs):
            if agree and in_theirs[name] == in_ours[name] and ours[position] != name:
                raise InputError(
                    f"{place}: {found[position]!r} is class {ours.index(name) + 1} here and class {position + 1} of {whose}; "
                    "names repeat, so that only the same order can be read"
                )
    if not nameless:
        why = "class names repeat" if agree else f"no class is called as {whose} calls it ({few_names(found)})"
        say(f"{place}: {why}, so the {len(found)} classes are matched by position")
    return list(range(len(found)))


def _by_name(ours, theirs):
    """The position in `theirs` of each of ours, if each name is there, as often as here; else None."""
    places: dict[str, list[int]] = {}
    for position, name in enumerate(theirs):
        places.setdefault(name, []).append(position)
    if any(len(places.get(name, ())) != count for name, count in Counter(ours).items()):
        return None
    left = {name: iter(positions) for name, positions in places.items()}
    return [next(left[name]) for name in ours]


def _repeats(names):
    return len(set(names)) < len(names)


def same_names(wanted: Sequence[str], found: Sequence[str]) -> dict[int, int]:
    """{position in `wanted`: position in `found`} of the names in both, as they are or else without their case.

    A name that repeats on either side is left out: nobody can tell which is which.
    """
    same: dict[int, int] = {}
    for ours, theirs in ((wanted, found), (_folded(wanted), _folded(found))):
        in_ours, in_theirs = Counter(ours), Counter(theirs)
        place = {name: position for position, name in enumerate(theirs) if in_theirs[name] == 1}
        free = {name: position for name, position in place.items() if position not in same.values()}
        same = {k: free[name] for k, name in enumerate(ours) if in_ours[name] == 1 and name in free} | same
    return same


def with_classes(annotations: Annotations, classes: Sequence[str]) -> Annotations:
    """The annotations in the order of a run's classes, matched by name, upper or lower case alike.

    A class that the annotations lack is un-annotated in them, and one that the run lacks left out; a note names them.
    Annotations come back as they are if less than half of their classes are known, if names repeat, and if classes have keys
    or are values of attributes.

    Args:
        annotations: with C classes.
        classes: of the run.
    """
    found, wanted = list(annotations.classes), list(classes)
    if annotations.groups or list(annotations.keys) != found or found == wanted:
        return annotations
    same = {theirs: ours for ours, theirs in same_names(wanted, found).items()}
    columns = [same.get(position, -1) for position in range(len(found))]
    others = [name for name, column in zip(found, columns, strict=True) if column < 0]
    if 2 * len(others) > len(found) or _repeats(wanted) or _repeats(found):
        return annotations
    notes, missing = [], [wanted[k] for k in sorted(set(range(len(wanted))) - set(columns))]
    if missing:
        notes.append(
            f"{annotations.source} lacks {len(missing)} of {len(wanted)} classes, unknown in its images: {few_names(missing)}"
        )
    if others:
        notes.append(f"{annotations.source} has {len(others)} other classes, left out: {few_names(others)}")
    both = (annotations.labels, annotations.collected)
    labels, collected = (None if one is None else one.rearranged(columns, len(wanted)) for one in both)
    notes = (*annotations.notes, *notes)
    return dataclasses.replace(annotations, labels=labels, collected=collected, classes=wanted, keys=None, notes=notes)


def _folded(names):
    return [name.casefold() for name in names]


def few_lines(lines: Sequence[str], where: str, most: int = 20) -> list[str]:
    """The first lines, and one that tells how many more there are, and where."""
    more = [f"... and {len(lines) - most:,} more, in {where}"] if len(lines) > most else []
    return [*lines[:most], *more]


def few_names(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, in quotes, for messages."""
    return few(list(map(repr, names[: most + 1])), most)


def few(parts: Sequence[str], most: int = 8) -> str:
    """The first parts of a list, for messages."""
    return ", ".join(parts[:most]) + (", ..." if len(parts) > most else "")
