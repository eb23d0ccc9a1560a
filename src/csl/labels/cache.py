"""Arrays made from a large file, cached beside it and mapped into memory the next time.

A cache is a folder of .npy files, `{file}.{size}-{time of change}.{digest}.cache`: another size or date is another name,
so that a stale one is never read. It is written under a temporary name and renamed, so that it is whole or not there,
whoever else is writing.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csl.machine.files import runs

_FACTS = "facts.json"
_VERSION = 1  # of the stored format, part of the digest


class Stored(NamedTuple):
    """Named arrays, and facts that JSON can hold."""

    arrays: dict[str, np.ndarray]
    facts: dict


class ArrayCache:
    """The cached arrays of one file: beside it, or in the user's cache folder if the file's folder is read-only.

    Args:
        file: the file from which the arrays are made.
        role: everything else that they depend on.
    """

    def __init__(self, file: Path, role: Iterable):
        digest = hashlib.sha256(json.dumps([_VERSION, *role]).encode()).hexdigest()[:10]
        self.file = file
        self._ending = f"{digest}.cache"
        self.folders = places(file, self._ending)

    def load(self) -> Stored | None:
        """The arrays, mapped for reading; None if there are none or they are damaged."""
        return next((stored for folder in self.folders if (stored := _load(folder))), None)

    def save(self, arrays: dict[str, np.ndarray], facts: dict) -> None:
        """Write the arrays to the first folder that takes them; warn if that is not the file's own."""

        def fill(temporary, folder):
            _save(temporary, arrays, facts)
            if folder.exists() and _load(folder) is None:  # broken; one that another process wrote is as good
                shutil.rmtree(folder)

        folder, reasons = fill_one(self.folders, self.file, self._ending, fill)
        if reasons:
            kept = "nothing is cached" if folder is None else f"cached in {folder}"
            warnings.warn(f"{self.file}: {kept} ({'; '.join(reasons)})", stacklevel=4)

    def discard(self) -> None:
        """Delete a cache that `load` returned but the caller could not use."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def places(file: Path, ending: str) -> list[Path]:
    """The folders that may hold what is made from a file, beside it or in the user's cache; named after size and date."""
    stat = file.stat()
    place = hashlib.sha256(os.fsencode(file.resolve().parent)).hexdigest()[:10]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csl" / place
    return [parent / f"{file.name}.{stat.st_size}-{stat.st_mtime_ns}.{ending}" for parent in (file.parent, home)]


def fill_one(
    folders: Sequence[Path], file: Path, ending: str, fill: Callable[[Path, Path], None]
) -> tuple[Path | None, list[str]]:
    """Make the first of these `places(file, ending)` that can be written: it, or None, and why those before it cannot be.

    `fill(temporary, folder)` fills a temporary folder, which becomes `folder` unless another process was faster.
    """
    reasons = []
    for folder in folders:
        try:
            with _new_folder(folder, file, ending) as temporary:
                fill(temporary, folder)
            return folder, reasons
        except OSError as error:
            reasons.append(f"{folder.parent}: {error.strerror or error}")
    return None, reasons


@contextlib.contextmanager
def _new_folder(folder, file, ending):
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder, file, ending)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.{os.getpid()}.", suffix=".tmp", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(current, file, ending):
    """Delete folders of earlier versions of the file, and half-written ones of killed processes."""
    half = re.compile(rf"\.{re.escape(file.name)}\..*\.{ending}\.(\d+)\..*\.tmp")
    for folder in current.parent.iterdir():
        ours = folder.name.startswith(f"{file.name}.") and folder.name.endswith(f".{ending}")
        left = half.fullmatch(folder.name)
        dead = left and int(left[1]) != os.getpid() and not runs(int(left[1]))
        if dead or (ours and folder.name != current.name):
            shutil.rmtree(folder, ignore_errors=True)


def _load(folder):
    # It lies beside the data, and whoever made that may have made this. What is damaged fails in ways that NumPy and JSON do
    # not list (TokenError, SyntaxError, RecursionError, ...), and any failure means the same: read the file itself.
    try:
        content = json.loads((folder / _FACTS).read_text())
        names, facts = content["arrays"], content["facts"]
        if not all(name.isidentifier() for name in names):  # or it would be a path
            return None
        return Stored({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}, facts)
    except Exception:
        return None


def _save(folder, arrays, facts):
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
    (folder / _FACTS).write_text(json.dumps({"arrays": list(arrays), "facts": facts}))


# Arrays that are mapped from a file travel to another process by its path: loader workers that are spawned then share
# the memory of the mapped arrays, as those that are forked share the memory of all.


class MappedFile(NamedTuple):
    """Stands for a mapped array in a pickle: the path of its .npy file."""

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
