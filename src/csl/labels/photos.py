"""Find the image files that annotations name: as named, else under another spelling of the same name."""

import filecmp
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from csl.errors import InputError
from csl.labels.paths import ImagePaths, split_name
from csl.machine.image_formats import is_image_name

SLASHES, END = "slashes or escapes", "the end of an address or path"
UPLOAD = "without the number that Label Studio puts before it"
CASE, EXTENSION = "case or form of Unicode", "the extension"
_FOLDER = "folder"

_SAMPLE = 1000  # of millions of names, which tell where all are
_DEPTH = 3  # folders below the data that are looked through
_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_TRIED = 3  # paths that a message names
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*", re.IGNORECASE)
_SERVED = re.compile(r".*/local-files/?\?d=")  # by Label Studio, from a folder of its own
_UPLOADED = re.compile(r"(.*/)?[0-9a-f]{8}-([^/]+)")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|[a-z]:[\\/]|[\\/]", re.IGNORECASE)  # of a URL, a drive or a whole disk


class _Place(NamedTuple):
    """Where a name is found: a file's name in a folder, and how it differs from the name ("" where it does not)."""

    folder: str
    name: str
    how: str

    @property
    def path(self):
        return os.path.join(self.folder, self.name)


class Photos:
    """Image files in some folders, found by name.

    A name is looked for as it is in each folder, the first first. Then other spellings are: without a leading slash or `./`,
    with slashes for backslashes, `%20` for blanks, the end of an address, or of a path whose folder is not there; another
    case, another form of Unicode, another extension or none. Folders are listed once. Of those that are called as splits
    that of the image's own split comes first; a name that only others have, in several of them, is refused.

    Args:
        folders: where to look, the first first.
        within: of these, those below it are looked in first; in others only if no name at all is found.
        split: of the images, "train", "val" or "test"; None where nothing says it.

    Attributes:
        otherwise: how many names were found otherwise than as they are, by what differs.
        used: how many were found in each folder.
        folder: the one that holds most of the names, the first if none does.
        hint: one line that says what was looked for, where no name was found; else "".
    """

    def __init__(self, folders: Sequence[str | Path], within: str | Path | None = None, split: str | None = None):
        self.folders = list(dict.fromkeys(map(os.path.normpath, folders)))
        own = None if within is None else os.path.normpath(within)  # may be called as a split by chance
        self._split_of = {one: None if one == own else split_name(os.path.basename(one)) for one in self.folders}
        self._split = split
        self.folder = self.folders[0]
        self.otherwise: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.hint = ""
        there = [folder for folder in self.folders if os.path.isdir(folder)]
        root = None if within is None else os.path.abspath(within)
        self._inside = [one for one in there if root is None or Path(os.path.abspath(one)).is_relative_to(root)]
        self._there = self._inside
        self._outside = [one for one in there if one not in self._inside]
        self._data = there if own is None else [own]
        self._entries = cache(_entries)
        self._keys = cache(self._entries_by_key)
        self._inner = cache(self._inner_folder)

    def _rings(self) -> Iterator[list[str]]:
        """Folders to look in, the next only where nothing is found in these."""
        yield self._inside
        yield self._below
        yield self._outside

    @cached_property
    def _below(self):
        """Other folders with photos below the data."""
        found: list[str] = []
        for root in self._data:
            for place, folders, files in os.walk(root):
                deep = os.path.relpath(place, root).count(os.sep) >= _DEPTH - 1
                folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
                if place not in found and place not in self.folders and any(map(is_image_name, files)):
                    found.append(place)
        return found

    def has(self, name: str) -> bool:
        """Whether there is a file for the name, under any spelling."""
        try:
            return any(self._find(name, self._split) is not None for self._there in self._rings())
        except InputError:
            return True

    def found(self, names: Sequence[str], *notes: str | None, splits: Sequence[str | None] = ()) -> dict[str, Any]:
        """What `Annotations` say of their images: images, folder, folders, no_photos, and notes after these. As `paths`."""
        images = self.paths(names, splits)
        return {
            "images": images, "folder": self.folder, "folders": tuple(self.used), "notes": (*filter(None, notes), *self.notes),
            "no_photos": self.hint,
        }  # fmt: skip

    def paths(self, names: Sequence[str], splits: Sequence[str | None] = ()) -> Sequence[str]:
        """The path of each name; one that is not there is expected in the folder that holds most of the others.

        Of `ImagePaths` some are looked for. All are in one folder if these are, as named. `splits` are those of the names,
        where it is not the same for all.

        Raises:
            InputError: a name stands for several files, or a file for several names.
        """
        found = names
        for ring in self._rings():
            self._there = ring
            if isinstance(names, ImagePaths):
                found = self._paths_of_many(names)
            else:
                keys = list(zip(names, splits or [self._split] * len(names), strict=True))
                places = self._places(keys)
                found = [places[key].path for key in keys]
            if self.used:
                if ring is self.__dict__.get("_below"):
                    self._refuse_several(found)
                return found
        self.hint = self._not_found(names[0]) if len(names) else ""
        return found

    def _refuse_several(self, found):
        """A photo of one name in two folders that nobody named may be either."""
        for path in found if not isinstance(found, ImagePaths) else ():
            folder = next((one for one in self.used if path.startswith(os.path.join(one, ""))), None)
            inner, base = os.path.split(os.path.relpath(path, folder)) if folder else ("", "")
            for other in self._below:  # of another split a row's split decides, or `_find` has refused it
                of_split = other != folder and self._says(other) in (None, self._says(folder))
                if of_split and base in self._entries(other, inner)[0]:
                    where = os.path.join(other, inner, base)
                    raise InputError(f"{path}: {where} has its name, too; --images DIR says which")

    @property
    def notes(self) -> list[str]:
        """What was found otherwise than as named, one line each; where nothing was, the hint."""
        spelt = "photos are found under another spelling of their name"
        notes = [f"{count:,} {spelt}: {how}" for how, count in self.otherwise.items()]
        if len(self.used) > 1:
            counts = ", ".join(f"{count:,} in {folder}" for folder, count in self.used.items())
            notes.append(f"photos are found in {len(self.used)} folders: {counts}")
        elif self._there is self.__dict__.get("_below"):
            notes.append(f"photos are found in {self.folder}")
        return [*notes, self.hint] if self.hint else notes

    def _paths_of_many(self, names):
        rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), _SAMPLE)).astype(int))
        some = [names[int(row)] for row in rows]
        folders = {self._named(name) for name in some}
        if len(folders) == 1 and None not in folders:
            (self.folder,) = folders
            self.used = {self.folder: len(names)}
            return names.within(self.folder)
        self._places([(name, self._split) for name in some])
        if not self.used:  # few of many may be there
            rows = names.among([os.path.join(inner, file) for _, inner, file in self._in_sight(some)])
            self._places([(names[int(row)], self._split) for row in rows[:1]])
        if not self.otherwise and len(self.used) <= 1:
            return names.within(self.folder)
        places = self._places([(name, self._split) for name in names])
        folder = self.folder if len(self.used) == 1 else ""
        data = [os.fsencode(place.name if folder else place.path) for place in places.values()]
        return ImagePaths(np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)]), folder)

    def _places(self, keys):
        """{(name, split): _Place}; one that is not found is placed where it is expected."""
        places = {key: self._find(*key) for key in dict.fromkeys(keys)}
        found = [place for place in places.values() if place is not None]
        self.used = dict(Counter(place.folder for place in found))
        self.otherwise = dict(Counter(place.how for place in found if place.how))
        self.folder = max(self.used, key=self.used.get, default=self.folders[0])
        if self.otherwise.keys() & {END, UPLOAD, EXTENSION}:
            _refuse_shared(places)
        return {key: place or _Place(self.folder, clean_name(key[0]), "") for key, place in places.items()}

    def _named(self, name):
        """The folder of a file of just this name, or None. Nothing is listed."""
        return next((folder for folder in self._there if os.path.isfile(os.path.join(folder, name))), None)

    def _in_sight(self, names) -> Iterator[tuple[str, str, str]]:
        """Photos that lie where names are looked for: the folder, the subfolder in it, and the file's name."""
        for inner in dict.fromkeys([*(clean_name(name).rpartition("/")[0] for name in names), ""]):
            for folder in self._there:
                files = sorted(self._entries(folder, inner)[0])
                yield from ((folder, inner, file) for file in files if is_image_name(file))

    def _not_found(self, name):
        tried = ", ".join(os.path.join(folder, clean_name(name)) for folder in self.folders[:_TRIED])
        more = f" and in {len(self.folders) - _TRIED} more folders" if len(self.folders) > _TRIED else ""
        line = f"no photo is found: {name!r} was looked for as {tried}{more}"
        self._there = self._inside
        for folder, inner, file in self._in_sight([name]):
            return f"{line}; {os.path.join(folder, inner, '')} holds {file!r}: expected names like that, or --images FOLDER"
        places = sorted({*self._data, *(os.path.dirname(one) or "." for one in self._data)})
        files = (file for place in places for file in sorted(_entries(place, "")[0]))
        packed = next((file for file in files if file.lower().endswith(_PACKED)), None)
        why = f"{packed} is not unpacked, or " if packed else ""
        return f"{line}; no photo lies there: {why}--images names their folder"

    def _says(self, folder):
        """The split that a folder is called as, or None."""
        return self._split_of[folder] if folder in self._split_of else split_name(os.path.basename(folder))

    def _find(self, name, split):
        """The _Place of a name, or None."""
        if os.path.isabs(name):
            if os.path.isfile(name):
                inside = (one for one in self._inside if name.startswith(os.path.join(os.path.abspath(one), "")))
                return _Place(next(inside, self.folders[0]), name, "")
        elif ".." in name.split("/"):
            folder = self._named(name)
            return None if folder is None else _Place(folder, name, "")
        there = sorted(self._there, key=lambda folder: self._says(folder) not in (None, split))
        for other, how in self._spellings(name):
            for alike in ("", CASE, EXTENSION):
                for folder in there:
                    if (file := self._file(folder, other, alike)) is not None:
                        if self._says(folder) not in (None, split):
                            self._refuse_others(name, folder, other, alike)
                        return _Place(folder, file, how if how in (END, UPLOAD) else alike or how)
        return None

    def _refuse_others(self, name, found, other, alike):
        """Refuse a name that the folder of another split has for another photo."""
        path = os.path.join(found, self._file(found, other, alike))
        for folder in self._there:
            if self._says(folder) not in (None, self._says(found)):
                file = self._file(folder, other, alike)
                if file is not None and not filecmp.cmp(path, os.path.join(folder, file), shallow=False):
                    raise InputError(
                        f"{name!r} may be {path} or {os.path.join(folder, file)}; expected names with their folder, or a table "
                        "with a column of splits"
                    )

    def _spellings(self, name):
        """(spelling, how it differs): as it is, cleaned, then the ends of that, unless its folder is there."""
        if not os.path.isabs(name):
            yield name, ""
        clean = clean_name(name)
        if ".." in clean.split("/"):
            return
        if clean != name:
            yield clean, SLASHES
        inner = clean.rpartition("/")[0]
        if _ADDRESS.match(name) or all(self._inner(folder, inner) is None for folder in self._there):
            while "/" in clean:
                clean = clean.partition("/")[2]
                yield clean, END
        if match := _UPLOADED.fullmatch(clean):
            yield match[2], UPLOAD

    def _file(self, folder, name, alike):
        """The name of the file in a folder that is alike (in case, in all but the extension, or in all), or None."""
        inner, _, base = name.rpartition("/")
        if not alike:
            return name if base in self._entries(folder, inner)[0] else None
        if (inner := self._inner(folder, inner)) is None:
            return None
        file = self._one(folder, inner, base, alike)
        return None if file is None else os.path.join(inner, file)

    def _inner_folder(self, folder, inner):
        """The subfolder that a path names under any spelling, relative to the folder; None if it is not there."""
        found = ""
        for part in filter(None, inner.split("/")):
            if (one := self._one(folder, found, part, _FOLDER)) is None:
                return None
            found = os.path.join(found, one)
        return found

    def _one(self, folder, inner, name, alike):
        found = self._keys(folder, inner, alike).get(_key(name, alike), [])
        if len(found) > 1 and name not in found:
            where, files = os.path.normpath(os.path.join(folder, inner)), " or ".join(found[:3])
            raise InputError(f"{where}: {name!r} may be {files}; expected one image of that name")
        return name if name in found else next(iter(found), None)

    def _entries_by_key(self, folder, inner, alike):
        files, folders = self._entries(folder, inner)
        keys: dict[str, list[str]] = {}
        for name in sorted(folders if alike == _FOLDER else files):
            if alike != EXTENSION or is_image_name(name):
                keys.setdefault(_key(name, alike), []).append(name)
        return keys


def clean_name(name: str) -> str:
    """A name with slashes alone, without the host of an address, escapes, and what stands for a folder itself."""
    name = _SERVED.sub("", name.replace("\\", "/"))
    if match := _HOST.match(name):
        name = re.split("[?#]", name[match.end() :])[0]
    if re.search("%[0-9a-fA-F]{2}", name):
        name = unquote(name)
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def without_extension(name: str) -> str:
    """A name without the extension of an image file, if it has one."""
    return os.path.splitext(name)[0] if is_image_name(name) else name


def _entries(folder, inner):
    """Names of the files and of the folders in a folder's subfolder."""
    files, folders = [], []
    try:
        with os.scandir(os.path.join(folder, inner)) as entries:
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
    except (OSError, ValueError):  # not there, or no name of a folder
        pass
    return frozenset(files), frozenset(folders)


def _key(name, alike):
    name = unicodedata.normalize("NFC", name).casefold()
    return without_extension(name) if alike == EXTENSION else name


def _refuse_shared(places):
    """A file that is found for several names is none of theirs, unless they are spellings of one name."""
    owners: dict[str, list] = {}
    for (name, _), place in places.items():
        if place is not None:
            owners.setdefault(place.path, []).append((name, place.how))
    for path, names in owners.items():
        guessed = any(how in (END, UPLOAD) or (how == EXTENSION and is_image_name(n)) for n, how in names)
        if guessed and len({clean_name(name) for name, _ in names}) > 1:
            raise InputError(
                f"{path}: found for {names[0][0]!r} and for {names[1][0]!r}; expected a photo of each name"
            )
