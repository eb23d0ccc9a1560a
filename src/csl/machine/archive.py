"""Checks of untrusted zip archives."""

import struct
import zipfile
from pathlib import Path

from csl.errors import InputError


def check_archive(path: Path) -> None:
    """Refuse an archive with compressed or overlapping entries, which could take any amount of memory.

    PyTorch writes uncompressed entries. A file that is not an archive passes: its reader refuses it.

    Raises:
        InputError: the archive has such entries or is damaged.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{path}: not a checkpoint, or a damaged one ({error})") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: holds compressed entries, expected a file that PyTorch wrote")
    total, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > size:
        raise InputError(
            f"{path}: its entries have {total:,} bytes, the file {size:,}; expected a file that PyTorch wrote"
        )


def check_sums(path: Path) -> None:
    """Compare the checksum of every entry, which PyTorch does not do when it loads a file; other files pass.

    Raises:
        InputError: an entry is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise InputError(f"{path}: a damaged file, {damaged} has another checksum")
