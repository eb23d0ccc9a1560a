"""JSON of the COCO family: sections of entries with ids, which annotations refer to."""

import json
import mmap
import re
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.machine.files import parse_json

SECTIONS = ("images", "annotations", "categories")

# Outlines are nine tenths of such a file, and labels do not need them. A quote inside a string is escaped, so that
# this only ever matches a key.
_OUTLINE = re.compile(rb'"segmentation"\s*:\s*\[[][0-9.,eE+\-\s]*\]')


def read_sections(file: Path, sections: Sequence[str] = SECTIONS) -> dict:
    """The content of a file that has a list for each of `sections`; polygons are left out.

    Raises:
        InputError: it cannot be read, is not JSON, or lacks a section.
    """
    try:
        text = Path(file).read_bytes()
        content = _parse(text, file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: found a JSON {type(content).__name__}, expected an object with {_listed(sections)}")
    for section in sections:
        if not isinstance(content.get(section), list):
            found = "another type" if section in content else f"the keys {_listed(list(content)[:8])}"
            raise InputError(f"{file}: no list under the key {section!r}, found {found}")
    return content


def has_keys(file: Path, keys: Sequence[str]) -> bool:
    """Whether all of these keys stand in a JSON file. Nothing is parsed."""
    if file.suffix.lower() != ".json" or not file.is_file() or not file.stat().st_size:
        return False
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(text.find(f'"{key}"'.encode()) >= 0 for key in keys)


def field(file: Path, content: dict, section: str, key: str) -> list:
    """The value of `key` in every entry of a section, in order.

    Raises:
        InputError: an entry lacks it, or a `file_name` is not a path.
    """
    try:
        values = [entry[key] for entry in content[section]]
    except (KeyError, TypeError, IndexError):
        position, entry = next(
            (position, entry)
            for position, entry in enumerate(content[section])
            if not isinstance(entry, dict) or key not in entry
        )
        found = f"id {entry.get('id')!r}" if isinstance(entry, dict) else f"a {type(entry).__name__}"
        raise InputError(f"{file}: {section}[{position}] ({found}) has no key {key!r}") from None
    if key == "file_name":
        wrong = next((position for position, name in enumerate(values) if not isinstance(name, str) or not name), None)
        if wrong is not None:
            raise InputError(f"{file}: {section}[{wrong}] has file_name {values[wrong]!r}, expected a path")
    return values


def positions(file: Path, content: dict, section: str) -> dict:
    """{id: position} of a section.

    Raises:
        InputError: an id is no number or string, or repeats.
    """
    ids = field(file, content, section, "id")
    places = {}
    for position, identity in enumerate(ids):
        if isinstance(identity, (list, dict)):
            raise InputError(f"{file}: {section}[{position}] has id {identity!r}, expected a number or a string")
        if places.setdefault(identity, position) != position:
            first = places[identity]
            raise InputError(f"{file}: id {identity!r} stands at {section}[{first}] and {section}[{position}]")
    return places


def references(file: Path, content: dict, key: str, section: str) -> np.ndarray:
    """The position in `section` that each annotation refers to by its `key`, int64 [annotations].

    Raises:
        InputError: one refers to nothing.
    """
    places = positions(file, content, section)
    ids = field(file, content, "annotations", key)
    try:
        found = np.fromiter(map(places.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))
    except TypeError:  # a list or an object as id
        found = np.array([-1 if isinstance(identity, (list, dict)) else 0 for identity in ids])
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        first = unknown[0]
        annotation = content["annotations"][first]
        raise InputError(
            f"{file}: annotations[{first}] (id {annotation.get('id')!r}) has {key} {ids[first]!r}, "
            f"expected an id of {section!r}; {len(unknown)} such annotation{'s' if len(unknown) > 1 else ''}"
        )
    return found


def _parse(text, file):
    try:
        return json.loads(_OUTLINE.sub(b'"segmentation":0', text))
    except (ValueError, RecursionError):
        return parse_json(text, file)  # so that the message has the line of the file itself


def _listed(names):
    return ", ".join(repr(name) for name in names)
