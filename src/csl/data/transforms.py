"""From the pixels of a photo to the uint8 tensor a network is fed: the training and the evaluation transform.

Values stay 0 to 255; the division by 255 happens on the device, on the whole batch. Like the
original, these transforms have no crop, no flip (but for `--augment fast` and `flip_affine`) and no normalisation by mean
and standard deviation.

A photo is resized once, by PyTorch's antialiased bilinear filter: that of Pillow, at most 2 grey levels from it and equal
almost everywhere. A large JPEG is decoded at a half, a quarter or an eighth of its size before that:

- to evaluate, and for the augmentations that papers used, only if that leaves twice the pixels that are wanted in both
  directions, as Pillow's `thumbnail` does. Photos of 640 x 480 are decoded whole from 121 pixels on, and differ by less than
  0.05 grey levels on average from Pillow's decoding and resizing; down to 32 pixels by less than 1, and 99.9 % of the
  values by at most 25.
- for `--augment fast`, if it leaves nine tenths of what is wanted: by less than 3.5 on average, 99.9 % by at most 60. What
  differs is detail about as fine as the result's own pixels, part of which the bilinear filter lets through as moire.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from csl.data import batch_augment
from csl.data.augment import cutout, rand_augment
from csl.data.flip_affine import flip_affine
from csl.data.images import colour_of, load_pixels
from csl.errors import InputError
from csl.machine.image_size import height_width

CUTOUT_FACTOR = 0.5

EXACT = 2.0
"""Times the wanted height and width that a reduced decoding has to leave, where pixels should be those of a whole one."""

FAST = 0.9
"""For an augmentation that warps the pixels anyway. Not 1: at 224 pixels, half of a photo of 640 x 427 would not do."""


def _original(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return rand_augment(cutout(image, CUTOUT_FACTOR, rng), rng)


AUGMENTATIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image] | None] = {
    "original": _original,
    "flip_affine": flip_affine,
    "fast": None,  # on the device: `csl.data.batch_augment`
    "none": None,
}


class _Resizing:
    """The part that both transforms share: `size`, `background`, and how much of a photo they need."""

    size: int | tuple[int, int]
    background: str

    def __post_init__(self):
        height_width(self.size)  # these raise InputError
        colour_of(self.background)

    @property
    def height_width(self) -> tuple[int, int]:
        """(H, W) of the result."""
        return height_width(self.size)

    @property
    def margin(self) -> float:
        """`EXACT` or `FAST`."""
        return EXACT

    @property
    def at_least(self) -> tuple[int, int]:
        """The (H, W) that a decoding at a reduced scale must not fall below."""
        height, width = self.height_width
        return math.ceil(self.margin * height), math.ceil(self.margin * width)

    @property
    def rule(self) -> str:
        """The settings that change the pixels of `resized` beside the size, in words, for `csl.data.photo_cache`."""
        colour = colour_of(self.background)
        return f"bilinear, at least {self.margin:g} x" + (f", on {colour}" if colour else "")

    def read(self, path: str | Path, roots: Sequence[str] = ()) -> np.ndarray:
        """The photo of a file at the transform's size, before any augmentation: uint8 [H, W, 3].

        path, roots: as `csl.data.images.load_pixels` takes them. Raises InputError for a photo that cannot be read.
        """
        return self.resized(load_pixels(path, roots, self.at_least, self.background))

    def resized(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Pixels of any size, or an RGB image, to new ones of the transform's: uint8 [H, W, 3].

        Raises:
            ValueError: an image that is not RGB, or an array that is not uint8 [H, W, 3].
        """
        return resize(_pixels(image), self.height_width)


@dataclass(frozen=True)
class TrainTransform(_Resizing):
    """`transform(image, rng) -> uint8 tensor [3, H, W]`: resize, augment, to tensor.

    size: the side of a square, or (H, W), in pixels. The aspect ratio of the image is not kept.
    augment: "original" (cutout 0.5 and RandAugment, as CSL and ASL train), "flip_affine" (as the NUS-WIDE tutorial),
        "none" (as the fashion fork trains) or "fast" (as "none" here, with `draws` for what the device does then).
    background: the colour that transparent images are laid over, as `csl.data.images.load_pixels` takes it.

    The image is uint8 [H, W, 3], such as `load_pixels` returns, or an RGB Pillow image. All randomness comes from `rng`, a
    `numpy.random.Generator`: equal generators give equal tensors. Raises InputError for a size that is not positive or
    an unknown `augment` or colour, ValueError for an image that is not RGB.
    """

    size: int | tuple[int, int]
    augment: str = "original"
    background: str = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.augment not in AUGMENTATIONS:
            raise InputError(f"unknown augmentation {self.augment!r}: expected one of {', '.join(AUGMENTATIONS)}")

    @property
    def margin(self) -> float:
        """`FAST` for "fast", else `EXACT`."""
        return FAST if self.augment == "fast" else EXACT

    def __call__(self, image: Image.Image | np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Image of any size -> uint8 tensor [3, H, W], channels-last."""
        return self.augmented(self.resized(image), rng)

    def augmented(self, pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The array that `resized` returns -> uint8 tensor [3, H, W], channels-last, which may share its memory."""
        augment = AUGMENTATIONS[self.augment]
        if augment is not None:
            pixels = np.array(augment(Image.fromarray(pixels), rng))
        return _to_tensor(pixels)

    def draws(self, rng: np.random.Generator) -> np.ndarray | None:
        """For "fast" the numbers that `csl.data.batch_augment.augment_batch` needs, float32 [DRAWS]; else None."""
        return batch_augment.draw(rng) if self.augment == "fast" else None


@dataclass(frozen=True)
class EvalTransform(_Resizing):
    """`transform(image) -> uint8 tensor [3, H, W]`: resize (bilinear), to tensor. For validation and inference alike.

    size, background, errors: as in `TrainTransform`.
    """

    size: int | tuple[int, int]
    background: str = "none"

    def __call__(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """Image of any size -> uint8 tensor [3, H, W], channels-last."""
        return self.augmented(self.resized(image))

    def augmented(self, pixels: np.ndarray) -> torch.Tensor:
        """The array that `resized` returns, unchanged -> uint8 tensor [3, H, W], channels-last, sharing its memory."""
        return _to_tensor(pixels)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, averaging over the source area where it shrinks: at most 1 grey level from Pillow's `BILINEAR`.

    Args:
        pixels: uint8 [H, W, 3].
        size: (H, W) of the result.

    Returns:
        uint8 [H, W, 3], new and contiguous.
    """
    if pixels.shape[:2] == size:
        return pixels.copy()
    # The batch dimension has to come first and the strides to be those of channels-last, or PyTorch takes a slower path.
    image = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)  # [1, 3, H, W]
    image = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"pixels {image.dtype} {image.shape}: expected uint8 [H, W, 3]")
        return image
    if image.mode != "RGB":
        raise ValueError(f"image of mode {image.mode}: expected RGB; csl.data.images.load_rgb converts")
    return np.array(image)


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)  # [3, H, W]
