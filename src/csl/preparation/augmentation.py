"""The augmented copies of the fashion fork, by torchvision: random changes of geometry and colour.

Its operations and probabilities, in its order: shift, scale and rotate (0.2, 0.2, 10 degrees) 0.5, mirror 0.75, shuffled
channels 0.5, RGB shift of 50 grey levels 0.5, perspective 0.75, tone curve of 0.2 0.5. Other ranges are the
defaults of its library, albumentations: borders are reflected, the perspective draws the corners in.
"""

import hashlib

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from csl.machine.draws import generator

SHIFT, SCALE, DEGREES = 0.2, 0.2, 10.0
RGB_SHIFT = 50
PERSPECTIVE = (0.05, 0.1)  # standard deviation of a corner, as a part of the side, is drawn between these
TONE_CURVE = 0.2  # standard deviation of its two control points
_REACH = 0.53  # of the longer side: what shift, scale and rotation may uncover of a square (0.2, 1 / 0.8, 10 degrees)


def copy_generator(seed: int, name: str, number: int) -> np.random.Generator:
    """The random generator of copy `number` of the image `name`; it depends on the seed and these two alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return generator("copies", seed, number, int.from_bytes(digest[:8], "little"))


def augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An augmented copy of an RGB image, of the same size."""
    if rng.random() < 0.5:
        image = _shift_scale_rotate(image, rng)
    if rng.random() < 0.75:
        image = F.horizontal_flip(image)
    if rng.random() < 0.5:
        image = F.permute_channels(image, rng.permutation(3).tolist())
    if rng.random() < 0.5:
        shifts = rng.uniform(-RGB_SHIFT, RGB_SHIFT, size=(3, 1))
        image = _through(image, np.arange(256) + shifts)
    if rng.random() < 0.75:
        image = _perspective(image, rng)
    if rng.random() < 0.5:
        image = _through(image, np.tile(_tone_curve(rng), (3, 1)))
    return image


def _shift_scale_rotate(image, rng):
    width, height = image.size
    margin = int(np.ceil(_REACH * max(width, height)))
    x, y = min(margin, width - 1), min(margin, height - 1)  # a reflection is narrower than what it reflects
    moved = F.affine(
        F.pad(image, [x, y], padding_mode="reflect"),
        angle=rng.uniform(-DEGREES, DEGREES),
        translate=[round(rng.uniform(-SHIFT, SHIFT) * side) for side in (width, height)],
        scale=rng.uniform(1 - SCALE, 1 + SCALE),
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return F.crop(moved, y, x, height, width)


def _perspective(image, rng):
    width, height = image.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    depth = np.minimum(np.abs(rng.normal(0, rng.uniform(*PERSPECTIVE), size=(4, 2))), 0.3)  # 0.5 would fold it
    inner = corners + inwards * depth * (width, height)
    return F.perspective(image, inner.tolist(), corners.tolist(), interpolation=InterpolationMode.BILINEAR)


def _tone_curve(rng):
    """256 grey levels on a cubic Bezier curve from black to white, its control heights drawn about 1/4 and 3/4."""
    low, high = np.clip(rng.normal((0.25, 0.75), TONE_CURVE), 0, 1)
    t = np.linspace(0, 1, 256)
    return 255 * (3 * (1 - t) ** 2 * t * low + 3 * (1 - t) * t**2 * high + t**3)


def _through(image, levels):
    """The image with grey level g of channel c replaced by levels[c, g]; levels [3, 256]."""
    return image.point(np.clip(np.rint(levels), 0, 255).astype(int).ravel().tolist())
