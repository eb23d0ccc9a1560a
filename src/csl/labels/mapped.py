"""Arrays that are mapped from a file: a process that is sent one opens the file instead of getting a copy.

Loader workers that are forked share the memory of all arrays; those that are spawned share that of mapped ones.
"""

from typing import Any, NamedTuple

import numpy as np


class MappedFile(NamedTuple):
    """What stands for a mapped array in a pickle: the .npy file that it is."""

    path: str


def pickled(value: Any) -> Any:
    """A MappedFile where `value` is a whole .npy file opened with `mmap_mode="r"`; else the value itself."""
    base = value if isinstance(value, np.memmap) else getattr(value, "base", None)
    if not isinstance(base, np.memmap) or base.filename is None or base.mode != "r":
        return value
    same = base.shape == value.shape and base.dtype == value.dtype and base.ctypes.data == value.ctypes.data
    return MappedFile(str(base.filename)) if same and str(base.filename).endswith(".npy") else value


def unpickled(value: Any) -> Any:
    """The array of a MappedFile, mapped again; anything else is itself."""
    return np.load(value.path, mmap_mode="r") if isinstance(value, MappedFile) else value
