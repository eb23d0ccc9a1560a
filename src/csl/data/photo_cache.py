"""Cache decoded and resized photos in one file, for the next epoch and run: `--cache DIR`.

The file of N photos holds N records of 16 bytes, then N x H x W x 3 pixels. It begins as a hole, which takes no room on the
disk, and any process fills in what it has had to decode. A record is a fingerprint (path, size and time of change of the
photo) and a sum of the pixels, written after them: a photo that has changed, a process killed between the two and a
page that a power cut lost all look like a photo that is not there yet. Two processes that write the same photo write the
same bytes.
"""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from csl.data.images import identity
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import MachineError
from csl.labels import ImagePaths

VERSION = 2  # of the file and of what is done to a photo before it is kept; another one is another file
RESERVE = 1 << 30  # bytes of the disk that are left to others, such as checkpoints
_RECORD = 16  # bytes
_PAGE = 4096


class Kept(NamedTuple):
    """A photo in the cache: its present fingerprint, and `pixels` uint8 [H, W, 3] or None if they are not cached."""

    fingerprint: int
    pixels: np.ndarray | None


def open_cache(
    folder: str | None,
    images: Sequence[str],
    transform: TrainTransform | EvalTransform,
    say: Callable[[str], None] = print,
) -> "PhotoCache | None":
    """The photos of `images` as `transform.resized` makes them, kept in `folder`; None where that is None."""
    if folder is None:
        return None
    return PhotoCache(folder, images, transform.height_width, transform.rule, say)


def check_folder(folder: str | Path) -> None:
    """Make the folder; raise MachineError where nothing can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise MachineError(f"--cache {folder}: cannot be written ({error.strerror}), expected a folder") from None


class PhotoCache:
    """The photos of one list at one size, in a folder.

    Args:
        folder: where the file is, or will be made.
        images: paths, N.
        size: (H, W) of the resized photos.
        rule: whatever else the pixels depend on.
        say: prints one line: where the photos are kept and how much room they take.

    A cache can be pickled, and used by several processes at once. On a disk that is, or becomes, full it says so in one
    line and keeps no more; what it has is still found.

    Raises:
        MachineError: a folder that cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        images: Sequence[str],
        size: tuple[int, int],
        rule: str = "",
        say: Callable[[str], None] = print,
    ):
        self.height, self.width = size
        self.photo_bytes = self.height * self.width * 3
        self.start = -(-_RECORD * len(images) // _PAGE) * _PAGE
        self.path = Path(folder) / f"photos-{self.height}x{self.width}-{_digest(images, rule)}.cache"
        self.total = self.start + len(images) * self.photo_bytes
        self._file = None
        self._closed = torch.zeros(1, dtype=torch.uint8).share_memory_()  # to further photos, for all workers alike
        check_folder(self.path.parent)
        try:
            with open(self.path, "ab") as file:
                os.ftruncate(file.fileno(), self.total)
            there = os.stat(self.path).st_blocks * 512
        except OSError as error:
            raise MachineError(f"--cache {folder}: cannot be written ({error.strerror}), expected a folder") from None
        free = shutil.disk_usage(self.path.parent).free
        room = f"{len(images):,} photos of {self.height}x{self.width} take {_amount(self.total)}"
        if self.total - there + RESERVE > free:
            self._closed[0] = 1
            say(f"cache {self.path}: {room}, {_amount(free)} are free: going on without keeping photos")
        else:
            say(f"cache {self.path}: {room}, of which {_amount(min(there, self.total))} are there")

    def find(self, row: int, path: str) -> Kept | None:
        """Look up the photo `path`, row 0 to N - 1 of the list; None if the photo itself does not exist."""
        try:
            fingerprint = _hash(f"{path}\0{identity(path)}".encode("utf-8", "surrogateescape"))
        except (OSError, ValueError):  # the read that follows reports what is wrong
            return None
        record = np.empty(2, np.uint64)
        if os.preadv(self._fd(), [record], row * _RECORD) != _RECORD or record[0] != fingerprint:
            return Kept(fingerprint, None)
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        read = os.preadv(self._fd(), [pixels], self.start + row * self.photo_bytes)
        whole = read == self.photo_bytes and record[1] == _sum(pixels)
        return Kept(fingerprint, pixels if whole else None)

    def keep(self, row: int, fingerprint: int, pixels: np.ndarray) -> None:
        """Write the pixels [H, W, 3] of a photo, with the fingerprint that `find` returned before they were made."""
        if self._closed[0]:
            return
        record = np.array([fingerprint, _sum(pixels)], np.uint64)
        try:
            _write(self._fd(), pixels.tobytes(), self.start + row * self.photo_bytes)
            _write(self._fd(), record.tobytes(), row * _RECORD)
        except OSError as error:
            if not self._closed[0]:
                self._closed[0] = 1
                warnings.warn(f"cache {self.path}: {error.strerror}; going on without keeping photos", stacklevel=2)

    def _fd(self):
        if self._file is None:
            self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115  # for as long as this object lives
        return self._file.fileno()

    def __getstate__(self):
        return {**vars(self), "_file": None}


def _write(descriptor, content, offset):
    """Write all of the content: a disk that fills up takes a part first and fails on the rest."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _digest(images, rule):
    digest = hashlib.blake2b(f"{VERSION} {rule}\0".encode(), digest_size=8)
    if isinstance(images, ImagePaths):
        for part in (images.folder, images.suffix):
            digest.update(f"{part}\0".encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(images.offsets, np.int64))
        digest.update(np.ascontiguousarray(images.data))
    else:
        for image in images:
            digest.update(f"{image}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hash(content):
    """A 64-bit hash that is not 0, the content of a hole."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def _sum(pixels):
    """A sum of the pixels' bytes as 64-bit words and of the remaining bytes; not 0, the content of a hole."""
    content = pixels.reshape(-1)
    words = len(content) // 8 * 8
    return int(content[:words].view(np.uint64).sum(dtype=np.uint64)) ^ (int(content[words:].sum()) << 32) or 1


def _amount(size):
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
