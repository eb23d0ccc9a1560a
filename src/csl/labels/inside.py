"""Images that annotations name lie in the data folder: a file from a stranger cannot point at anything else.

Two things are looked at: the names, here, before anything is opened, and where a link leads, when an image is opened
(`csl.data.images`), by the folders that `Annotations.roots` holds.
"""

import dataclasses
import os
import re
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.image_paths import ImagePaths
from csl.labels.names import CONTROL

WAY_OUT = "expected one inside, or --follow_links"


def confined(annotations: Annotations, path: Path) -> Annotations:
    """The annotations with `roots`, once all their images are known to be named inside the data folder.

    Inside is: below the folder that the names are relative to, or below the data folder (of an annotation file, the folder
    that it is in). Both may be links themselves.

    Args:
        annotations: as a reader returned them, with the folder of the images.
        path: what was read: the data folder, or a file.

    Raises:
        InputError: a name that is absolute or climbs with `..` and leads elsewhere, or one with a control character.
    """
    folder = annotations.images.folder if isinstance(annotations.images, ImagePaths) else annotations.folder
    roots = [os.path.abspath(folder), os.path.abspath(path if path.is_dir() else path.parent)]
    for row in _suspicious(annotations.images, folder):
        _check(annotations, int(row), roots)
    resolved = dict.fromkeys(os.path.realpath(root) for root in roots)
    return dataclasses.replace(annotations, roots=tuple(resolved))


def _check(annotations, row, roots):
    image = annotations.images[row]
    place = f"{annotations.source}: image {row + 1} is {image[:200]!r}"
    if CONTROL.search(image):
        raise InputError(f"{place}, a name with a control character; expected a plain name")
    absolute = os.path.abspath(image)  # without `..`, links not followed
    if not any(is_below(absolute, root) for root in roots):
        raise InputError(f"{place}, outside of the data folder {roots[-1]}; {WAY_OUT}")


def is_below(path: str, folder: str) -> bool:
    """Whether an absolute path without `..` is a folder's or that of something in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _suspicious(images, folder):
    """Rows of names that have to be looked at: few, even of 9 million."""
    if isinstance(images, ImagePaths):
        return _suspicious_bytes(images.data, images.offsets)
    prefix = os.path.join(folder, "")
    start = len(prefix)
    return [
        row
        for row, image in enumerate(images)
        if not image.startswith(prefix) or ".." in image[start:] or CONTROL.search(image[start:])
    ]


def _suspicious_bytes(data, offsets):
    """Of names in UTF-8 one after the other: those with `..`, a slash at the start or a control character."""
    found = re.finditer(rb"\.\.|[\x00-\x1f\x7f]|\xc2[\x80-\x9f]", memoryview(np.ascontiguousarray(data)))
    places = [match.start() for match in found]
    starts = offsets[:-1][offsets[1:] > offsets[:-1]]
    rows = [np.flatnonzero(offsets[1:] > offsets[:-1])[data[starts] == ord("/")]] if len(starts) else []
    if places:
        rows.append(np.searchsorted(offsets, places, side="right") - 1)
    return np.unique(np.concatenate(rows)) if rows else []
