"""Paths: where annotation files and the images that they name are, and `ImagePaths`, which holds millions of them."""

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from csl.errors import InputError
from csl.labels.cache import pickled, unpickled
from csl.labels.matrix import row_numbers, stretches

SPLITS = ("train", "val", "test")
SPELLINGS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_OTHER_WORDS = {"training": "train", "validierung": "val", "dev": "val", "validate": "val", "testing": "test"}

TEST_AS_VAL = "there is no val split: the test split is used for validation"
"""The note of annotations that are so."""

_MOST_OF_A_ROW = 1 << 20  # bytes


def split_name(text: str) -> str | None:
    """`train`, `val` or `test` for any spelling of it (`valid`, `Validation`); None for anything else."""
    text = text.strip().lower()
    return next((split for split, spellings in SPELLINGS.items() if text in spellings), _OTHER_WORDS.get(text))


def split_in(name: str) -> str | None:
    """The one split that words of a name say (`my_train2.json`, `imagesVal`); None where none or several are said."""
    found = {split_name(word) for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)} - {None}
    return found.pop() if len(found) == 1 else None


def split_of(file: Path, folder: Path) -> str | None:
    """The split that the name of a file in a data folder says, else that of its own folder there, else of the next."""
    parts = file.with_suffix("").relative_to(folder).parts if file.is_relative_to(folder) else (file.stem,)
    return next(filter(None, map(split_in, reversed(parts))), None)


def known_split(split: str | None) -> str | None:
    """The split by its one name; None stays None.

    Raises:
        InputError: it is none of train, val and test.
    """
    if split is None:
        return None
    name = split_name(split)
    if name is None:
        raise InputError(f"split: found {split!r}, expected one of {', '.join(SPLITS)}")
    return name


def existing(path: str | Path) -> Path:
    """The path as a Path.

    Raises:
        InputError: no such file or folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, expected annotations")
    return path


def contents(folder: str | Path, limit: int = 8) -> str:
    """The content of a folder, for messages: `a.csv, images/ and 12 more`."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in os.scandir(folder))
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def read_text(file: str | Path, expected: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, line ends as they are.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}), expected {expected}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text at byte {error.start}, expected {expected}") from None


def first_row(file: Path) -> list[str]:
    """The cells of the first row of a CSV without spaces around; empty where it cannot be read as one."""
    try:
        with open(file, "rb") as stream:
            text = stream.read(_MOST_OF_A_ROW).decode("utf-8-sig", errors="replace")
        return [cell.strip() for cell in next(csv.reader(io.StringIO(text, newline="")), [])]
    except (OSError, csv.Error):
        return []


class ImagePaths(Sequence[str]):
    """N paths `{folder}/{name}{suffix}`, each made when it is asked for.

    Args:
        data: uint8 [total], the names in UTF-8, one after the other.
        offsets: integers [N + 1]; name i is `data[offsets[i]:offsets[i + 1]]`.
        folder: what relative names are relative to.
        suffix: what all names end in, such as ".jpg".

    Raises:
        InputError: offsets that do not rise from 0 to `total`.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray, folder: str | os.PathLike = "", suffix: str = ""):
        self.data, self.offsets = np.asarray(data), np.asarray(offsets)
        self.folder, self.suffix = os.fspath(folder), suffix
        fits = len(self.offsets) and self.offsets[0] == 0 and self.offsets[-1] == len(self.data)
        if not fits or (self.offsets[1:] < self.offsets[:-1]).any():
            raise InputError(f"image paths: found offsets that do not rise from 0 to {len(self.data)}")

    @classmethod
    def from_names(
        cls, names: "Sequence[str] | pa.Array", folder: str | os.PathLike = "", suffix: str = ""
    ) -> "ImagePaths":
        """Paths of these names, a sequence of strings or an Arrow array of type string."""
        names = pa.array(names, pa.large_string()) if not isinstance(names, pa.Array) else names.cast(pa.large_string())
        _, offsets, data = names.buffers()
        offsets = np.frombuffer(offsets or bytes(8), np.int64)[names.offset : names.offset + len(names) + 1]
        data = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        return cls(data, offsets.astype(np.uint32 if len(data) < 1 << 32 else np.int64), folder, suffix)

    def within(self, folder: str | os.PathLike, suffix: str | None = None) -> "ImagePaths":
        """The same names in another folder; the arrays are shared."""
        return ImagePaths(self.data, self.offsets, folder, self.suffix if suffix is None else suffix)

    def select(self, rows: ArrayLike | slice) -> "ImagePaths":
        """The paths of these rows (index array, list, slice or boolean mask), in their order."""
        rows = row_numbers(rows, len(self))
        lengths, taken = stretches(self.offsets, rows)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return ImagePaths(self.data[taken], offsets.astype(self.offsets.dtype), self.folder, self.suffix)

    def among(self, names: Sequence[str]) -> np.ndarray:
        """The rows, int64, of the images whose names with the suffix are among these."""
        wanted = [os.fsencode(name.removesuffix(self.suffix)) for name in names if name.endswith(self.suffix)]
        if not wanted:
            return np.zeros(0, np.int64)
        buffers = [None, pa.py_buffer(self.offsets.astype(np.int64)), pa.py_buffer(np.ascontiguousarray(self.data))]
        mine = pa.Array.from_buffers(pa.large_binary(), len(self), buffers)
        return np.flatnonzero(pc.is_in(mine, pa.array(wanted, pa.large_binary())))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.data.nbytes + self.offsets.nbytes

    def name(self, row: int) -> str:
        """The name of row 0 to N - 1, without folder and suffix."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode(errors="surrogateescape")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row):
        """The path of one row as a string; a slice gives `ImagePaths`. Negative rows count from the end."""
        if isinstance(row, slice):
            return self.select(row)
        position = row + len(self) if row < 0 else row
        if not 0 <= position < len(self):
            raise IndexError(f"image {row} of {len(self)}")
        return os.path.join(self.folder, self.name(position) + self.suffix)

    def __repr__(self) -> str:
        return f"ImagePaths({len(self)} in {self.folder!r})"

    def __getstate__(self):
        return {name: pickled(value) for name, value in vars(self).items()}

    def __setstate__(self, state):
        vars(self).update({name: unpickled(value) for name, value in state.items()})
