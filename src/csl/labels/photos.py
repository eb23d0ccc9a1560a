"""Find the image files that a table names: as named, else under another spelling of the same name."""

import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from csl.errors import InputError
from csl.machine.image_formats import is_image_name


class Photos:
    """Image files in some folders, found by name.

    A name is looked for as it is in each folder, the first first. Then other spellings are: without a leading slash or `./`,
    with slashes for backslashes, `%20` for blanks, the last part of a URL; another case, another form of Unicode, another
    extension or none. Folders are listed once.

    Args:
        folders: where to look, the first first.

    Attributes:
        otherwise: how many names were found otherwise than as they are, by what differs.
        missing: names that were not found.
        folder: the one that holds most of the names, the first if none does.
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.folders = list(dict.fromkeys(os.path.normpath(folder) for folder in folders))
        self.otherwise: dict[str, int] = {}
        self.missing: list[str] = []
        self.folder = self.folders[0]
        self._listing = cache(_names_in)
        self._by_key = cache(lambda folder, whole: _by_key(self._listing(folder), whole))

    def has(self, name: str) -> bool:
        """Whether there is a file for the name, under any spelling."""
        try:
            return self._find(name) is not None
        except InputError:
            return True

    def paths(self, names: Sequence[str]) -> list[str]:
        """The path of each name; one that is not there is expected in the folder that holds most of the others.

        Raises:
            InputError: a name stands for several files.
        """
        found = [self._find(name) for name in names]
        counts = {folder: 0 for folder in self.folders}
        for place in found:
            if place is not None:
                counts[place[0]] += 1
                if place[2]:
                    self.otherwise[place[2]] = self.otherwise.get(place[2], 0) + 1
        self.folder = max(self.folders, key=counts.get)
        self.missing = [name for name, place in zip(names, found, strict=True) if place is None]
        return [
            os.path.join(self.folder, _clean(n)) if p is None else os.path.join(p[0], p[1])
            for n, p in zip(names, found, strict=True)
        ]

    def _find(self, name):
        """(folder, name in it, how it differs) or None."""
        if os.path.isabs(name):
            if os.path.isfile(name):
                return self.folders[0], name, ""
        else:
            for folder in self.folders:
                if self._is_file(folder, name):
                    return folder, name, ""
        clean = _clean(name)
        spelt = [(clean, "slashes or escapes")] if clean != name else []
        last = clean.rpartition("/")[2]
        if last != clean and ("://" in name or name.startswith("/")):
            spelt.append((last, "the last part of an address"))
        for other, how in spelt:
            for folder in self.folders:
                if self._is_file(folder, other):
                    return folder, other, how
        for other in [clean, *(other for other, _ in spelt[1:])]:
            for whole, how in ((True, "case or form of Unicode"), (False, "the extension")):
                for folder in self.folders:
                    if (file := self._alike(folder, other, whole)) is not None:
                        return folder, file, how
        return None

    def _is_file(self, folder, name):
        inner, _, base = name.rpartition("/")
        return bool(base) and ".." not in name and base in self._listing(os.path.join(folder, inner))

    def _alike(self, folder, name, whole):
        inner, _, base = name.rpartition("/")
        if not base or ".." in name:
            return None
        found = self._by_key(os.path.join(folder, inner), whole).get(_key(base, whole), [])
        if len(found) > 1:
            raise InputError(f"{folder}: {name!r} may be {' or '.join(found[:3])}; expected one image of that name")
        return f"{inner}/{found[0]}" if found and inner else found[0] if found else None


def _names_in(folder):
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_dir())
    except (OSError, ValueError):  # not there, or no name of a folder
        return frozenset()


def _by_key(names, whole):
    keys: dict[str, list[str]] = {}
    for name in sorted(names):
        if whole or is_image_name(name):
            keys.setdefault(_key(name, whole), []).append(name)
    return keys


def _key(name, whole):
    name = unicodedata.normalize("NFC", name).casefold()
    return name if whole or not is_image_name(name) else os.path.splitext(name)[0]


def _clean(name):
    name = name.replace("\\", "/")
    if "://" in name:
        name = urlsplit(name).path
    if re.search("%[0-9a-fA-F]{2}", name):
        name = unquote(name)
    while name.startswith(("./", "/")):
        name = name.removeprefix("./").removeprefix("/")
    return name
