"""Check that every image can be read before training starts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.data.images import check_image
from csl.errors import printable


def find_bad_images(paths: Sequence[str], progress: bool = True, roots: Sequence[str] = ()) -> list[BadImage]:
    """The files among `paths` that cannot be read, in order (see `csl.data.images.check_image` for what is looked at).

    Args:
        paths: N.
        progress: whether to show a bar.
        roots: folders that the files have to lie in, as `Annotations.roots`.
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
