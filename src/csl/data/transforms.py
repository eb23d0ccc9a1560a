"""From a Pillow RGB image to the uint8 tensor a network is fed: the training and the evaluation transform.

Values stay 0 to 255; the division by 255 happens on the device, on the whole batch. The original has no crop, no flip
and no normalisation by mean and standard deviation, and neither has this.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from csl.data.augment import cutout, rand_augment
from csl.errors import InputError

CUTOUT_FACTOR = 0.5


def _original(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return rand_augment(cutout(image, CUTOUT_FACTOR, rng), rng)


AUGMENTATIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "original": _original,
    "none": lambda image, rng: image,
}


@dataclass(frozen=True)
class TrainTransform:
    """`transform(image, rng) -> uint8 tensor [3, H, W]`: resize, augment, to tensor.

    size: the side of a square, or (H, W), in pixels. The aspect ratio of the image is not kept.
    augment: "original" (cutout 0.5 and RandAugment, as CSL and ASL train) or "none" (as the fashion fork trains).

    The image is an RGB Pillow image, such as `load_rgb` returns. All randomness comes from `rng`, a
    `numpy.random.Generator`: equal generators give equal tensors. Raises InputError for a size that is not positive or
    an unknown `augment`, ValueError for an image that is not RGB.
    """

    size: int | tuple[int, int]
    augment: str = "original"

    def __post_init__(self):
        _check_size(self.size)
        if self.augment not in AUGMENTATIONS:
            raise InputError(f"unknown augmentation {self.augment!r}: expected one of {', '.join(AUGMENTATIONS)}")

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
        """Image of any size -> uint8 tensor [3, H, W], contiguous."""
        return _to_tensor(AUGMENTATIONS[self.augment](_resize(image, self.size), rng))


@dataclass(frozen=True)
class EvalTransform:
    """`transform(image) -> uint8 tensor [3, H, W]`: resize (bilinear), to tensor. For validation and inference alike.

    size, errors: as in `TrainTransform`.
    """

    size: int | tuple[int, int]

    def __post_init__(self):
        _check_size(self.size)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Image of any size -> uint8 tensor [3, H, W], contiguous."""
        return _to_tensor(_resize(image, self.size))


def _check_size(size: int | tuple[int, int]) -> None:
    sides = (size,) if isinstance(size, int) else tuple(size)
    if len(sides) > 2 or not sides or min(sides) < 1:
        raise InputError(f"image size {size!r}: expected a positive number of pixels, or a pair (height, width)")


def _resize(image: Image.Image, size: int | tuple[int, int]) -> Image.Image:
    """Pillow's bilinear, which averages over the source area when it shrinks. Always a new image."""
    if image.mode != "RGB":
        raise ValueError(f"image of mode {image.mode}: expected RGB; csl.data.images.load_rgb converts")
    height, width = (size, size) if isinstance(size, int) else size
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _to_tensor(image: Image.Image) -> torch.Tensor:
    pixels = np.asarray(image).transpose(2, 0, 1)  # [3, H, W], a view of read-only memory
    return torch.from_numpy(pixels.copy())  # C order; NumPy copies on one thread, as befits a loader worker
