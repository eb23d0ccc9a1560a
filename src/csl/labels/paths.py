"""Where annotation files, and the images that they name, are found."""

import os
from pathlib import Path

from csl.errors import InputError

SPLITS = ("train", "val", "test")
SPELLINGS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

_NAMES_TRIED = 16  # of the listed images, to find the folder that they are in


def split_name(text):
    """`train`, `val` or `test` for any spelling of it (`valid`, `Validation`); None for anything else."""
    text = text.strip().lower()
    return next((split for split, spellings in SPELLINGS.items() if text in spellings), None)


def known_split(split):
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


def existing(path):
    """The path as a Path; InputError where nothing is there."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, expected annotations")
    return path


def image_folder(candidates, names):
    """The first candidate that holds the first listed image that is anywhere; None where none of them is.

    Only the first few names are tried, so that a data set whose images are all elsewhere costs nothing here: a
    missing image is reported by whoever opens it.
    """
    for name in names[:_NAMES_TRIED]:
        for folder in candidates:
            if os.path.isfile(os.path.join(folder, name)):
                return folder
    return None


def contents(folder, limit=8):
    """What is in a folder, for messages: `a.csv, images/ and 12 more`."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in os.scandir(folder))
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
