"""Heat maps over photos: where the network saw a class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from csl.data.images import load_rgb
from csl.plots.predictions import fitted
from csl.plots.style import BODY, DPI, INK, SMALL, SOFT, Page, styled

_STRENGTH = 0.75
"""How much of the photo the hottest place covers."""

_SIDE, _GAP, _TEXT = 1.75, 0.15, 0.34  # of an image, between images, of a line of text: inches


def overlaid(photo: Image.Image, heat: np.ndarray) -> Image.Image:
    """A photo in grey, under the colours of a heat map: dark violet where there is some of it, yellow where most is.

    Args:
        photo: RGB.
        heat: [h, w] in [0, 1], of the whole photo.
    """
    from matplotlib import colormaps

    heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(photo.size, Image.Resampling.BICUBIC)).clip(0, 1)
    colours = 255 * colormaps["plasma"](heat)[..., :3]  # [H, W, 3]
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]
    part = _STRENGTH * heat[..., None]
    return Image.fromarray(((1 - part) * grey + part * colours).astype(np.uint8))


@styled()
def draw_heat_maps(
    images: Sequence[str],
    found: Sequence[Sequence[tuple[str, np.ndarray]]],
    roots: Sequence[str] = (),
    background: str = "none",
) -> Page:
    """A row for each photo: the photo, then where each of its classes was seen.

    Args:
        images: paths, N.
        found: of each the classes in words and their heat maps [h, w] in [0, 1].
        roots, background: as `csl.data.images.load_pixels` takes them.
    """
    columns = 1 + max(map(len, found), default=0)
    page = Page(0.6 + columns * (_SIDE + _GAP), 0.9 + len(images) * (_SIDE + _TEXT + _GAP))
    page.title("Where each class was seen", ["yellow: most of what spoke for the class; grey: nothing"])
    for row, (image, maps) in enumerate(zip(images, found, strict=True)):
        photo = fitted(load_rgb(image, tuple(roots), background), round(_SIDE * DPI))
        top = 0.9 + row * (_SIDE + _TEXT + _GAP)
        tiles = [(Path(image).name, photo, SMALL), *((words, overlaid(photo, heat), BODY) for words, heat in maps)]
        for column, (words, tile, size) in enumerate(tiles):
            left = 0.3 + column * (_SIDE + _GAP)
            page.image(left, top, np.asarray(tile))
            page.text(left, top + _SIDE + 0.04, page.fit(words, _SIDE, size), size, color=INK if column else SOFT)
    return page
