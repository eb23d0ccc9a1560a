"""Check that every image can be read before training starts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.data.images import check_image
from csl.errors import printable


def find_bad_images(paths: Sequence[str], progress: bool = True, roots: Sequence[str] = ()) -> list[BadImage]:
    """Find the images that cannot be read, by `csl.data.images.check_image`, in order.

    Args:
        paths: of the N images.
        progress: whether to show a progress bar.
        roots: folders that the files must lie in, as `Annotations.roots`.
    """
    with ThreadPoolExecutor(8) as pool:
        reasons = tqdm(
            pool.map(partial(check_image, roots=roots), paths, chunksize=64),
            total=len(paths),
            desc="checking images",
            unit="img",
            disable=None if progress else True,
            leave=False,
        )
        return [BadImage(i, printable(f"{paths[i]}: {reason}")) for i, reason in enumerate(reasons) if reason]
