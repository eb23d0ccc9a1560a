"""Classes of OpenImages: their order and their names. A class is identified by its MID (`/m/01g317`).

Display names do not identify: 12 of them stand for two classes each.
"""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from csl.errors import InputError, in_words
from csl.labels.paths import read_text
from csl.labels.trust import check_class_names

TRAINABLE = ("oidv6-classes-trainable.txt", "oidv7-classes-trainable.txt", "classes-trainable.txt")
DESCRIPTIONS = ("oidv6-class-descriptions.csv", "oidv7-class-descriptions.csv", "class-descriptions.csv", "classes.csv")

MID_TO_CLASSES = "mid_to_classes.pth"

OUTSIDE, UNKNOWN = -2, -1

_MOST_BYTES = 1 << 26  # of a mid_to_classes.pth; 20,000 classes take one or two million
_EXPECTED = "expected a dict of MIDs and their names, or their numbers 0, 1 and so on, or a list of MIDs, each once"


class ClassIds:
    """Numbers of MIDs.

    Args:
        keys: MIDs of the C classes in their order; None to take the classes that occur in the file.
        described: MIDs that exist (described, or trainable), so that one that is not in `keys` is left out on purpose.
    """

    def __init__(self, keys: Sequence[str] | None, described=frozenset()):
        self.found = keys is None
        self._ids = {key: number for number, key in enumerate(keys or ())}
        self._described = frozenset() if self.found else described

    def __call__(self, key: str) -> int:
        """The number of a MID; OUTSIDE if it exists but is no class, UNKNOWN if it is in no list."""
        if self.found:
            return self._ids.setdefault(key, len(self._ids)) if key else UNKNOWN
        number = self._ids.get(key)
        return number if number is not None else OUTSIDE if key in self._described else UNKNOWN

    @property
    def keys(self) -> list[str]:
        """MIDs by their number: as given, or in order of first appearance."""
        return list(self._ids)


def read_class_list(path: str | Path) -> list[str]:
    """MIDs of a file such as `oidv6-classes-trainable.txt`: one a line, blank lines are skipped.

    Raises:
        InputError: no such file, none in it, or one that repeats.
    """
    lines = {}
    for number, line in enumerate(read_text(path, "one MID a line").splitlines(), start=1):
        key = line.strip()
        if key and lines.setdefault(key, number) != number:
            raise InputError(f"{path}, lines {lines[key]} and {number}: both are {key!r}, expected each class once")
    if not lines:
        raise InputError(f"{path}: found no class, expected one MID a line")
    return list(lines)


def read_class_descriptions(path: str | Path) -> dict[str, str]:
    """MID -> display name, from `oidv6-class-descriptions.csv`, with or without its header `LabelName,DisplayName`.

    Raises:
        InputError: no such file, a line without two cells, or a MID that repeats.
    """
    names, lines = {}, {}
    reader = csv.reader(read_text(path, "a CSV LabelName,DisplayName").splitlines())
    for row in reader:
        if not row or row == ["LabelName", "DisplayName"]:
            continue
        if len(row) < 2 or not row[0].strip():
            raise InputError(f"{path}, line {reader.line_num}: found {','.join(row)!r}, expected LabelName,DisplayName")
        key = row[0].strip()
        if lines.setdefault(key, reader.line_num) != reader.line_num:
            raise InputError(f"{path}, lines {lines[key]} and {reader.line_num}: both describe {key!r}, expected one")
        names[key] = row[1].strip()
    check_class_names(names.values(), path)
    return names


def described(key: str, names: dict[str, str]) -> str:
    """A class in a message: `Helmet (/m/0zvk5)`, which names one class even where the display name repeats."""
    return f"{names[key]} ({key})" if key in names else key


def beside(names: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The first of these files that is in one of the folders."""
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


class MidToClasses(NamedTuple):
    """The content of CSL's `mid_to_classes.pth`.

    Attributes:
        keys: MIDs of the classes in their order, where the file gives an order.
        names: MID -> display name, where the file gives names.
    """

    keys: list[str] | None = None
    names: dict[str, str] = {}  # noqa: RUF012 (never written to)


def read_mid_to_classes(path: str | Path) -> MidToClasses:
    """Read `mid_to_classes.pth`, which CSL publishes beside its `data.csv`, as plain values: nothing in it is run.

    Raises:
        InputError: it cannot be read, or is no {MID: name}, {MID: number}, {number: MID} or [MID, ...].
    """
    content = _load_plain(Path(path))
    kinds = {(type(key), type(value)) for key, value in content.items()} if isinstance(content, dict) else set()
    if kinds == {(str, str)}:
        # Where a name has a comma it was once a quoted cell of a CSV, and may still be quoted.
        names = {key: name.strip().strip("\"'").strip() or key for key, name in content.items()}
        check_class_names(names.values(), path)
        return MidToClasses(names=names)
    if kinds == {(str, int)} and sorted(content.values()) == list(range(len(content))):
        content = sorted(content, key=content.get)
    elif kinds == {(int, str)} and sorted(content) == list(range(len(content))):
        content = [content[number] for number in range(len(content))]
    keys = list(content) if isinstance(content, (list, tuple)) else []
    if not keys or not all(isinstance(key, str) and key.strip() for key in keys) or len(set(keys)) < len(keys):
        raise InputError(f"{path}: holds other values, {_EXPECTED}")
    check_class_names(keys, path)
    return MidToClasses(keys=keys)


def _load_plain(path):
    import torch  # no other reader of labels needs it

    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        if size > _MOST_BYTES:
            raise InputError(f"{path}: {size:,} bytes, {_EXPECTED}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle raises whatever its instructions trip over
        reason = in_words(error)
        raise InputError(f"{path}: holds more than plain values, or is damaged ({reason}); {_EXPECTED}") from None
