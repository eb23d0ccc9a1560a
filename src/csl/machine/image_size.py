"""The size of an image as a pair."""

from collections.abc import Sequence

from csl.errors import InputError


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) in pixels of a size that is the side of a square, or (H, W) already.

    Raises:
        InputError: another number of sides, or one that is not positive.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"image size {size!r}: expected a positive number of pixels, or a pair (height, width)")
    return sides
