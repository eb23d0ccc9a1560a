"""`mid_to_classes.pth`, which CSL publishes beside its `data.csv`: which classes there are, or what they are called.

The file is a pickle, written by PyTorch or by Python itself. It is read without running anything from it: PyTorch's
`weights_only`, or an unpickler that knows no global, and so makes dicts, lists, strings and numbers alone.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from csl.errors import InputError, shown
from csl.labels.trust import check_class_names

FILE = "mid_to_classes.pth"

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
