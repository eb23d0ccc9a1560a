"""One file over HTTP: resumed where it broke off, checked, and under its name only when it is whole."""

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from csl.errors import InputError, in_words

TIMEOUT = 30
"""Seconds without a byte after which a connection counts as broken."""

ANSWER = 5
"""Seconds in which a server has to say anything before it is asked for a file."""

_BLOCK = 1 << 20


def download(
    url: str, path: str | Path, sha256: str | None = None, check: Callable[[Path], object] | None = None
) -> str:
    """Fetch `url` into `path`, which is not there until the file is whole and found good; returns its SHA-256.

    What has arrived is kept in `{path}.part`, and the next call goes on from there (or starts again where the server
    cannot). A connection that breaks is taken up again at once, for as long as every attempt brings something. Two
    processes may ask for the same file: one of them fetches it.

    Args:
        url: http, https or file.
        path: where the file goes; folders are made.
        sha256: what the file must have, in hexadecimal.
        check: called with the whole temporary file; raises InputError where it is not what it should be.

    Raises:
        InputError: no connection, no such file, a file cut short, of another hash, or refused by `check`. A broken-off
            part is kept, a wrong file is not.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _alone(path.parent):
        if path.exists():  # another process was faster
            return file_sha256(path)
        _receive(url, part)
        found = file_sha256(part)
        try:
            if sha256 not in (None, found):
                raise InputError(f"SHA-256 {found}, expected {sha256}")
            if check is not None:
                check(part)
        except InputError as error:
            part.unlink()
            raise InputError(f"{url}: the downloaded file is not the right one, and was removed ({error})") from error
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    return found


def check_reachable(url: str) -> None:
    """Raise OSError where nothing answers at `url` within `ANSWER` seconds; any answer will do."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER).close()
    except urllib.error.HTTPError:
        pass  # which is an answer
    except (urllib.error.URLError, http.client.HTTPException) as error:
        raise ConnectionError(in_words(getattr(error, "reason", error))) from error


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; where the system has no such lock, none."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _receive(url, part):
    """Make `part` whole, however often the connection breaks as long as each attempt brings something."""
    while True:
        before = _size(part)
        try:
            _receive_rest(url, part)
            return
        except urllib.error.HTTPError as error:
            raise InputError(f"{url}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if _size(part) <= before:
                reason = getattr(error, "reason", None) or error
                have = _size(part)
                kept = f"; {have:,} bytes are kept, the same command goes on from there" if have else ""
                raise InputError(f"{url}: {in_words(reason)}{kept}") from error


def _receive_rest(url, part):
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # Range Not Satisfiable: nothing lies behind what there is
            raise
        if error.headers.get("Content-Range") != f"bytes */{have}":
            part.unlink()  # longer than the file: of another one
            _receive_rest(url, part)
        return
    with response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url}: a web page, expected a file of weights")
        resumed = have > 0 and _starts_at(response, have)
        if response.status == 206 and not resumed:
            part.unlink()
            _receive_rest(url, part)
            return
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        _write(response, part, start, total)
    if total is not None and _size(part) != total:
        raise ConnectionError(f"broke off at {_size(part):,} of {total:,} bytes")


def _write(response, part, start, total):
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, leave=False, disable=None)
    with bar, open(part, "ab" if start else "wb") as file:
        while block := response.read(_BLOCK):
            file.write(block)
            file.flush()
            bar.update(len(block))


def _starts_at(response, position):
    """Whether the server sends the rest from `position` on, as it was asked."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == 206 and match is not None and int(match[1]) == position


def _size(path):
    return path.stat().st_size if path.exists() else 0
