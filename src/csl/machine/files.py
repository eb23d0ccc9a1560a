"""Write files whole or not at all, lock a folder, write strict JSON, and parse JSON of unknown origin."""

import contextlib
import errno
import json
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from csl.errors import InputError, MachineError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.tmp")

_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path`, both flushed to disk, if the block succeeds.

    A reader never sees a half-written file, and a failed write leaves the old one. A process that is killed leaves its
    temporary file, which nothing reads and `remove_stale` takes away.

    Raises:
        MachineError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        if error.errno in _MACHINE:
            before = "the file that was there before is whole" if path.exists() else "nothing was left of it"
            raise MachineError(f"{path}: cannot be written ({error.strerror}); {before}") from error
        raise
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be written cannot be cleared either
            temporary.unlink(missing_ok=True)


def set_aside(files: Sequence[str | Path]) -> Path | None:
    """Move files of one folder into a new folder beside them, named after the newest; returns it, None without files."""
    files = [Path(file) for file in files if os.path.lexists(file)]
    if not files:
        return None
    aside = earlier_folder(files)
    aside.mkdir()
    for file in files:
        file.rename(aside / file.name)
    return aside


def earlier_folder(files: Sequence[Path]) -> Path:
    """The path of a folder, not there yet, for earlier files: `earlier-` and the time of the newest, beside them."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(file.lstat().st_mtime for file in files)))
    names = (f"earlier-{stamp}{f'-{number}' if number > 1 else ''}" for number in count(1))
    return next(aside for aside in (files[0].parent / name for name in names) if not aside.exists())


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder; returns their paths.

    A file of a process that still runs stays, unless it is this one, which is not writing yet.
    """
    removed = []
    for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match and path.is_file() and not runs(int(match["pid"])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


@contextmanager
def locked(path: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for the block; children of this process do not inherit the lock.

    Where files cannot be locked (Windows, some network file systems) the block runs without a lock. The file stays, with
    the number of the process in it.

    Raises:
        InputError: another process holds it, and `wait` does not ask to wait for that one.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise InputError(
                f"{Path(path).parent}: process {file.read(20).strip()} is at work in this folder: wait for it to end, "
                "or choose another folder"
            ) from None
        except OSError:
            pass  # this file system has no locks
        else:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def strict_json(content: Any, **layout: Any) -> str:
    """JSON that every parser takes: a float that is not finite, for which JSON has no word, becomes null.

    Args:
        content: as `json.dumps` takes it.
        layout: `indent` and the like, of `json.dumps`.
    """

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(content), allow_nan=False, **layout)


def write_json(path: str | Path, content: Any) -> None:
    """Write `strict_json` of the content into a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(strict_json(content, indent=2) + "\n")


def parse_json(text: str | bytes, place: str | Path) -> Any:
    """Parse a JSON text of unknown origin.

    Args:
        text: JSON; bytes may be UTF-8, UTF-16 or UTF-32.
        place: the file, as in messages.

    Raises:
        InputError: it is not valid JSON, is nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{place}: JSON that is nested too deeply, expected a few levels") from None
    except ValueError as error:  # not text, or an integer that Python refuses to read
        raise InputError(f"{place}: cannot be read as JSON: {error}") from None


def flush_folder(folder: str | Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power cut."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def runs(pid: int) -> bool:
    """Whether another process with this number runs."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's; or no number of a process
        return pid < 1 << 31
    return True
