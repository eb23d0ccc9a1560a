"""Open images inside tar shards by paths such as `photos/shards-000003.tar/000017_dog.jpg`."""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from csl.labels.shard_index import BLOCK, load_index, name_hash

_BEHIND = ".tar/"


@dataclass(frozen=True)
class Member:
    """One file in a tar.

    Attributes:
        tar: path of the tar.
        name: of the file in it.
        offset, size: start and number of its bytes.
    """

    tar: str
    name: str
    offset: int
    size: int

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """Open the bytes for reading, after a check that the header is the same as in the index.

        Raises:
            OSError: the tar has changed since its index was made, or is gone.
            EOFError: the member is empty.
        """
        with open(self.tar, "rb", buffering=0) as file:
            file.seek(self.offset - BLOCK)
            try:
                header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise OSError(f"no header before it in the tar, which has changed ({error})") from None
            named = header.name == self.name or len(self.name) > tarfile.LENGTH_NAME  # a longer name stands elsewhere
            if not header.isreg() or header.size != self.size or not named:
                raise OSError(f"{header.name!r} of {header.size:,} bytes in its place: the tar has changed")
            if not self.size:
                raise EOFError("the file is empty")
            with io.BufferedReader(_Window(file, self.offset, self.size)) as window:
                yield window


def find_member(path: str | Path) -> Member | None:
    """The shard member at a path; None for a path that does not go through a tar.

    Raises:
        FileNotFoundError: there is no such member.
        InputError: the tar cannot be read as a shard.
    """
    path = os.fspath(path).replace(os.sep, "/")
    end = path.find(_BEHIND)
    while end >= 0:
        tar, name = path[: end + len(_BEHIND) - 1], path[end + len(_BEHIND) :]
        if os.path.isfile(tar):  # else a folder that is called so
            break
        end = path.find(_BEHIND, end + 1)
    else:
        return None
    members = _members_of(tar)
    number = name_hash(name)
    row = int(np.searchsorted(members[:, 0], number))
    if row == len(members) or members[row, 0] != number:
        raise FileNotFoundError(path)
    return Member(tar, name, int(members[row, 1]), int(members[row, 2]))


@cache
def _members_of(tar: str) -> np.ndarray:
    """`ShardIndex.members`, read once per process; `Member.open` notices if the tar has changed since."""
    return load_index(tar).members


class _Window(io.RawIOBase):
    """Bytes `start` to `start + size` of an unbuffered file as a file of their own."""

    def __init__(self, file, start: int, size: int):
        self.file, self.start, self.size, self.position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer) -> int:
        view = memoryview(buffer)[: max(0, self.size - self.position)]
        self.file.seek(self.start + self.position)
        count = self.file.readinto(view) if len(view) else 0
        self.position += count
        return count

    def readall(self) -> bytes:
        self.file.seek(self.start + self.position)
        content = self.file.read(max(0, self.size - self.position))
        self.position += len(content)
        return content
