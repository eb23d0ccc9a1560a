"""Classes of OpenImages: which ones, in which order, and what they are called. A class is known by its MID (`/m/01g317`).

Display names do not identify: 12 of them stand for two classes each.
"""

import csv
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from csl.errors import InputError, shown
from csl.labels.trust import check_class_names

TRAINABLE = ("oidv6-classes-trainable.txt", "classes-trainable.txt")
DESCRIPTIONS = ("oidv6-class-descriptions.csv", "class-descriptions.csv")

OUTSIDE, UNKNOWN = -2, -1


class ClassIds:
    """Numbers of MIDs.

    Args:
        keys: MIDs of the C classes in their order; None where the classes are those that turn up.
        described: MIDs that exist (described, or trainable), so that one that is not in `keys` is left out on purpose.
    """

    def __init__(self, keys: Sequence[str] | None, described=frozenset()):
        self.found = keys is None
        self._ids = {key: number for number, key in enumerate(keys or ())}
        self._described = frozenset() if self.found else described

    def __call__(self, key: str) -> int:
        """The number of a MID; OUTSIDE for one that exists but is no class, UNKNOWN for one that is nowhere."""
        if self.found:
            return self._ids.setdefault(key, len(self._ids)) if key else UNKNOWN
        number = self._ids.get(key)
        return number if number is not None else OUTSIDE if key in self._described else UNKNOWN

    @property
    def keys(self) -> list[str]:
        """MIDs by their number, in the order in which they turned up where they were not given."""
        return list(self._ids)


def read_class_list(path: str | Path) -> list[str]:
    """MIDs of a file such as `oidv6-classes-trainable.txt`: one a line, blank lines passed over.

    Raises:
        InputError: no such file, none in it, or one that repeats.
    """
    lines = {}
    for number, line in enumerate(_text(path, "one MID a line").splitlines(), start=1):
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
    reader = csv.reader(_text(path, "a CSV LabelName,DisplayName").splitlines())
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


def _text(path, expected):
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}, expected {expected}") from None


MID_TO_CLASSES = "mid_to_classes.pth"

_MOST_BYTES = 1 << 26  # 20,000 classes take one or two million
_EXPECTED = "expected a dict of MIDs and their names or numbers, or a list of MIDs"


class MidToClasses(NamedTuple):
    """What the file says.

    Attributes:
        keys: MIDs of the classes in their order, where it says that: a list of them, or a dict with their numbers.
        names: MID -> display name, where it says that.
    """

    keys: list[str] | None = None
    names: dict[str, str] = {}  # noqa: RUF012 (never written to)


def read_mid_to_classes(path: str | Path) -> MidToClasses:
    """Read the file: {MID: name}, {MID: number}, {number: MID} or [MID, ...].

    Raises:
        InputError: it cannot be read, holds more than plain values, or anything else than these.
    """
    content = _load(Path(path))
    if isinstance(content, (list, tuple)):
        return MidToClasses(keys=_distinct(path, list(content)))
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__} of {_size(content)}, {_EXPECTED}")
    kinds = {(type(key), type(value)) for key, value in content.items()}
    if kinds == {(str, int)}:
        return MidToClasses(keys=_in_order(path, {number: key for key, number in content.items()}, len(content)))
    if kinds == {(int, str)}:
        return MidToClasses(keys=_in_order(path, content, len(content)))
    if kinds == {(str, str)}:
        # Where a name has a comma it was once a quoted cell of a CSV, and may still be quoted.
        names = {key: name.strip().strip("\"'").strip() or key for key, name in content.items()}
        check_class_names(names.values(), path)
        return MidToClasses(names=names)
    shown = ", ".join(sorted(f"{key.__name__}: {value.__name__}" for key, value in kinds)[:3])
    raise InputError(f"{path}: holds a dict of {shown}, {_EXPECTED}")


def _in_order(path, by_number, size):
    if sorted(by_number) != list(range(size)):
        raise InputError(f"{path}: the numbers of its {size} classes are not 0 to {size - 1}, each once")
    return _distinct(path, [by_number[number] for number in range(size)])


def _distinct(path, keys):
    seen = set()
    for position, key in enumerate(keys):
        if not isinstance(key, str) or not key.strip() or key in seen:
            again = " again" if isinstance(key, str) and key in seen else ""
            raise InputError(f"{path}: class {position} is {shown(key)}{again}, expected a MID of its own")
        seen.add(key)
    if not keys:
        raise InputError(f"{path}: holds an empty list, {_EXPECTED}")
    check_class_names(keys, path)
    return keys


def _size(content):
    return f"{len(content)} entries" if hasattr(content, "__len__") else "one value"


def _load(path) -> Any:
    import torch  # the only reader of labels that needs it

    try:
        size, is_archive = path.stat().st_size, zipfile.is_zipfile(path)
        if is_archive:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        if size > _MOST_BYTES:
            raise InputError(f"{path}: {size:,} bytes, {_EXPECTED}")
        if not is_archive:
            with open(path, "rb") as file:
                content = _PlainUnpickler(file).load()
            if content != torch.serialization.MAGIC_NUMBER:  # which is what old files of PyTorch begin with
                return content
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle raises whatever its instructions trip over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: holds more than plain values, or is damaged ({reason}); {_EXPECTED}") from None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"{module}.{name} is not a plain value")
