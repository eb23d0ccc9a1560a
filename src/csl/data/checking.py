"""Check that every image can be read before training starts."""

from collections.abc import Sequence
from functools import partial

from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.data.images import check_image
from csl.errors import printable
from csl.machine.processes import parallel_map

THREADS = 8  # they wait for a disk


def find_bad_images(
    paths: Sequence[str], progress: bool = True, roots: Sequence[str] = (), rows: Sequence[int] | None = None
) -> list[BadImage]:
    """Find the images that cannot be read, by `csl.data.images.check_image`, in order.

    Args:
        paths: of the N images.
        progress: whether to show a progress bar.
        roots: folders that the files must lie in, as `Annotations.roots`.
        rows: which of them to check; None for all.
    """
    rows = range(len(paths)) if rows is None else rows
    reasons = parallel_map(
        partial(check_image, roots=roots), (paths[row] for row in rows), THREADS, chunksize=64, threads=True
    )
    bar = tqdm(
        reasons, total=len(rows), desc="checking images", unit="img", disable=None if progress else True, leave=False
    )
    return [
        BadImage(row, printable(f"{paths[row]}: {reason}")) for row, reason in zip(rows, bar, strict=True) if reason
    ]
