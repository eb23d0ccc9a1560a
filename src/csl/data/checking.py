"""The look at every image file before training starts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.data.images import check_image


def find_bad_images(paths: Sequence[str], progress: bool = True) -> list[BadImage]:
    """The files among `paths` that cannot be read, in order (see `csl.data.images.check_image` for what is looked at)."""
    with ThreadPoolExecutor(8) as pool:
        reasons = tqdm(
            pool.map(check_image, paths, chunksize=64),
            total=len(paths),
            desc="checking images",
            unit="img",
            disable=None if progress else True,
            leave=False,
        )
        return [BadImage(i, f"{paths[i]}: {reason}") for i, reason in enumerate(reasons) if reason]
