"""Check that every image can be read before training starts."""

from collections.abc import Callable, Sequence
from functools import partial

from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.data.images import check_image
from csl.errors import InputError, printable
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


def report_bad_images(
    reasons: Sequence[str], total: int, split: str | None, on_bad_image: str, say: Callable[[str], None]
) -> None:
    """Name the first ten images that cannot be read.

    Args:
        reasons: a line for each of them.
        total: images that were looked at, of the `split`, if any.
        on_bad_image: "stop" or "skip".
        say: prints one line.

    Raises:
        InputError: there are some, under "stop"; or no other image.
    """
    for reason in reasons[:10]:
        say(f"bad image{f' ({split})' if split else ''}: {reason}")
    if len(reasons) > 10:
        say(f"... and {len(reasons) - 10:,} more")
    what = f"{split} images" if split else "images"
    if reasons and on_bad_image == "stop":
        raise InputError(
            f"{len(reasons):,} of the {total:,} {what} cannot be read, the first is {reasons[0]}; expected all of them, or "
            "--on_bad_image skip to go on without these"
        )
    if total and len(reasons) == total:
        raise InputError(f"none of the {total:,} {what} can be read, the first is {reasons[0]}")
