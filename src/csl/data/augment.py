"""The original's training augmentation on Pillow images: one large cutout, then two random operations.

The operations, their magnitudes, probabilities, fill colours and resampling are those of the PyPI package
`randaugment` 1.0.2, pixel for pixel, without its dependence on `numpy.int` and with every draw taken from the
caller's generator. Cutout: arXiv 1708.04552. RandAugment: arXiv 1909.13719.

Images are Pillow RGB images of any size; none is changed in place. `rng` is a `numpy.random.Generator`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)  # fill of the areas that shear, translation and rotation uncover
CUTOUT_GREY = (125, 122, 113)  # colour of the operation Cutout, about the mean colour of CIFAR-10
APPLY_PROBABILITY = 0.5  # of each of the two operations drawn
LEVELS = range(1, 10)  # the levels that are drawn; level 0, the identity for most operations, never is


class Operation(NamedTuple):
    """One row of `OPERATIONS`.

    magnitudes: of levels 0 to 9, in the unit of the operation.
    apply: `apply(image, magnitude, rng) -> image`; only Cutout draws from `rng`.
    signed: whether the magnitude is negated with probability 0.5 before it is applied.
    """

    magnitudes: tuple[float, ...]
    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    signed: bool = False


def cutout(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    """Paint one box in one colour drawn at random, as the CutoutPIL of ASL and of ImageNet-21K pretraining does.

    The centre (x, y) is drawn anywhere in the image; the box reaches `int(factor * side + 0.5) // 2` pixels to each
    side of it, both ends included, and is clipped at the borders: between a quarter of it and all of it is seen.

    image: RGB. factor: the side of the box as a part of the image's side, > 0. Returns a new image of the same size.
    """
    width, height = image.size
    reach_x = int(factor * width + 0.5) // 2
    reach_y = int(factor * height + 0.5) // 2
    x, y = int(rng.integers(width)), int(rng.integers(height))
    colour = tuple(rng.integers(256, size=3).tolist())
    return _paint(image, (x - reach_x, y - reach_y, x + reach_x + 1, y + reach_y + 1), colour)


def rand_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw two operations with their levels; apply each, in turn, with probability 0.5.

    image: RGB. Returns an RGB image of the same size: `image` itself where neither is applied.
    """
    for name, level in draw_pair(rng):
        if rng.random() < APPLY_PROBABILITY:
            operation = OPERATIONS[name]
            magnitude = operation.magnitudes[level]
            if operation.signed and rng.random() < 0.5:
                magnitude = -magnitude
            image = operation.apply(image, magnitude, rng)
    return image


def draw_pair(rng: np.random.Generator) -> list[tuple[str, int]]:
    """Two independent, uniform draws of (name of an operation, level 1 to 9): (15 x 9)^2 ordered pairs."""
    return [(NAMES[rng.integers(len(NAMES))], int(rng.integers(LEVELS.start, LEVELS.stop))) for _ in range(2)]


def _paint(image: Image.Image, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> Image.Image:
    """A copy of `image` with `box` (left, top, right, bottom; the last two excluded), clipped to it, in `colour`."""
    left, top, right, bottom = box
    image = image.copy()
    image.paste(colour, (max(0, left), max(0, top), min(image.width, right), min(image.height, bottom)))
    return image


def _small_cutout(image: Image.Image, size: float, rng: np.random.Generator) -> Image.Image:
    """The package's Cutout: a grey box of 2 (size // 2) pixels, the far ends excluded (an odd size loses one)."""
    reach = int(size) // 2
    x, y = int(rng.integers(image.width)), int(rng.integers(image.height))
    return _paint(image, (x - reach, y - reach, x + reach, y + reach), CUTOUT_GREY)


def _affine(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    """Pixel (x, y) of the result is (a x + b y + c, d x + e y + f) of `image`; matrix = (a, b, c, d, e, f)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GREY)


def _shear_x(image: Image.Image, slope: float, _: np.random.Generator) -> Image.Image:
    return _affine(image, (1, slope, 0, 0, 1, 0), Image.Resampling.BICUBIC)


def _shear_y(image: Image.Image, slope: float, _: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, slope, 1, 0), Image.Resampling.BICUBIC)


def _translate_x(image: Image.Image, part: float, _: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, part * image.width, 0, 1, 0), Image.Resampling.NEAREST)


def _translate_y(image: Image.Image, part: float, _: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, part * image.height), Image.Resampling.NEAREST)


def _rotate(image: Image.Image, degrees: float, _: np.random.Generator) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=GREY)


def _enhance(enhancer: type) -> Callable[[Image.Image, float, np.random.Generator], Image.Image]:
    """`enhancer` with factor 1 + magnitude: 1 leaves the image alone, 0 is fully grey, dark, flat or smooth."""
    return lambda image, magnitude, _: enhancer(image).enhance(1 + magnitude)


def _steps(first: float, last: float, whole: bool = False) -> tuple[float, ...]:
    """Ten evenly spaced magnitudes from `first` to `last`, rounded to whole numbers where `whole`."""
    values = np.linspace(first, last, 10)
    return tuple(np.round(values).astype(int).tolist() if whole else values.tolist())


_NO_MAGNITUDE = (0.0,) * 10

OPERATIONS: dict[str, Operation] = {
    "Invert": Operation(_NO_MAGNITUDE, lambda image, *_: ImageOps.invert(image)),
    "Cutout": Operation(_steps(0, 20, whole=True), _small_cutout),  # pixels, whatever the size of the image
    "Sharpness": Operation(_steps(0, 0.9), _enhance(ImageEnhance.Sharpness), signed=True),
    "AutoContrast": Operation(_NO_MAGNITUDE, lambda image, *_: ImageOps.autocontrast(image)),
    "Posterize": Operation(_steps(8, 4, whole=True), lambda image, bits, _: ImageOps.posterize(image, bits)),
    "ShearX": Operation(_steps(0, 0.3), _shear_x, signed=True),  # slope
    "TranslateX": Operation(_steps(0, 150 / 331), _translate_x, signed=True),  # part of the width
    "TranslateY": Operation(_steps(0, 150 / 331), _translate_y, signed=True),  # part of the height
    "ShearY": Operation(_steps(0, 0.3), _shear_y, signed=True),  # slope
    "Rotate": Operation(_steps(0, 30), _rotate),  # degrees, always counter-clockwise
    "Equalize": Operation(_NO_MAGNITUDE, lambda image, *_: ImageOps.equalize(image)),
    "Contrast": Operation(_steps(0, 0.9), _enhance(ImageEnhance.Contrast), signed=True),
    "Color": Operation(_steps(0, 0.9), _enhance(ImageEnhance.Color), signed=True),
    "Solarize": Operation(_steps(256, 0), lambda image, threshold, _: ImageOps.solarize(image, threshold)),
    "Brightness": Operation(_steps(0, 0.9), _enhance(ImageEnhance.Brightness), signed=True),
}
NAMES = tuple(OPERATIONS)
