"""Find images that are the same: those must be on one side of a split."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np

from csl.data.checking import THREADS
from csl.data.images import identity, open_image
from csl.errors import InputError
from csl.machine.processes import parallel_map


def same_photos(paths: Sequence[str], roots: Sequence[str] = ()) -> np.ndarray:
    """int64 [N], equal numbers for images of equal bytes or of the same path.

    Bytes are read where two files have the same size. An image that cannot be read is the same as none.

    Args:
        paths: of the N images.
        roots: folders that the files must lie in, as `Annotations.roots`.
    """
    distinct: dict[str, int] = {}
    number = np.array([distinct.setdefault(path, len(distinct)) for path in paths], np.int64)
    of_size = defaultdict(list)
    for path in distinct:
        of_size[_size(path)].append(path)
    alike = [path for size, some in of_size.items() if size and len(some) > 1 for path in some]
    digests = parallel_map(partial(_digest, roots=roots), alike, THREADS, chunksize=16, threads=True)
    first: dict[str, int] = {}
    same = np.arange(len(distinct))
    for path, digest in zip(alike, digests, strict=True):
        if digest is not None:
            same[distinct[path]] = first.setdefault(digest, distinct[path])
    return same[number]


def _size(path):
    try:
        parts = identity(path).split()  # size and time; of a member of a shard its place and size behind that
        return parts[-1] if len(parts) == 4 else parts[0]
    except (InputError, OSError, ValueError):
        return None


def _digest(path, roots):
    try:
        with open_image(path, roots) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (InputError, OSError, EOFError, ValueError):
        return None
