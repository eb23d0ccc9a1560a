"""Augmentation of a whole batch on the device: `--augment fast`.

A loader worker draws a row of numbers for each sample, from (seed, epoch, place) alone; the device does the rest, for all
samples at once. What is done is close to `csl.data.augment` in kind: a warp whose uncovered corners are grey, changes of
colour, and the same large cutout. There, of two operations each is applied with probability 0.5 at full range, and 5 of
the 15 warp: 31 % of the images are warped, 2/3 of an operation on average changes colours. Here it is as often, with all
parts of the warp together, at about half of their range. The mirror is new.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FLIP = 0.5  # probability of the mirror
WARP = 0.3  # of the warp
COLOUR = 0.2  # of each of the three changes of colour
DEGREES = 15.0  # rotation, to either side
SHEAR = 0.15  # slope, to either side, of rows and of columns
TRANSLATE = 0.2  # part of the side, to either side
ZOOM = 1.25  # a factor between 1 / ZOOM and ZOOM, evenly in its logarithm
ENHANCE = 0.5  # brightness, contrast and saturation: a factor of 1 +- ENHANCE
GREY = 128 / 255  # fill of the areas that the warp uncovers
CUTOUT_FACTOR = 0.5  # the side of the box as a part of the image's
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's grey

# Columns of a row of draws, uniform in [0, 1).
_FLIP, _WARP, _ANGLE, _SHEAR_X, _SHEAR_Y, _SHIFT_X, _SHIFT_Y, _ZOOM = range(8)
_IF_BRIGHT, _IF_CONTRAST, _IF_COLOUR, _BRIGHT, _CONTRAST, _COLOUR = range(8, 14)
_BOX_X, _BOX_Y, _RED, _GREEN, _BLUE = range(14, 19)
DRAWS = 19


def draw(rng: np.random.Generator) -> np.ndarray:
    """The draws of one sample: float32 [DRAWS], uniform in [0, 1)."""
    return rng.random(DRAWS, dtype=np.float32)


def augment_batch(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror, warp, change the colours and cut a box out of every image, as its row of draws says.

    Args:
        images: float32 or float64 [B, 3, H, W] in [0, 1], B at least 1.
        draws: float32 [B, DRAWS] in [0, 1), on the same device: rows of `draw`.

    Returns:
        [B, 3, H, W] of the same type, in [0, 1], channels-last. A sample depends on its own image and row alone.

    Raises:
        ValueError: shapes that do not fit.
    """
    if images.ndim != 4 or images.shape[1] != 3 or draws.shape != (len(images), DRAWS):
        raise ValueError(
            f"images {tuple(images.shape)} with draws {tuple(draws.shape)}: expected [B, 3, H, W] and [B, {DRAWS}]"
        )
    draws = draws.to(images.dtype)
    images = change_colours(warp(images, draws), draws)
    return cut_out(images, draws).contiguous(memory_format=torch.channels_last)


def warp(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror left and right; rotate, shear, zoom and shift, in one bilinear sampling around the centre.

    images [B, 3, H, W] in [0, 1], draws [B, DRAWS] -> [B, 3, H, W].
    """
    height, width = images.shape[2:]
    on = draws[:, _WARP] < WARP  # [B]

    def signed(column, most):
        return torch.where(on, (2 * draws[:, column] - 1) * most, 0)

    angle = signed(_ANGLE, math.radians(DEGREES))
    zoom = torch.exp(signed(_ZOOM, math.log(ZOOM)))
    mirror = torch.where(draws[:, _FLIP] < FLIP, -1.0, 1.0).to(images.dtype)
    shear_x, shear_y = signed(_SHEAR_X, SHEAR), signed(_SHEAR_Y, SHEAR)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # Where a pixel of the result comes from, in pixels around the centre: rotation x shear / zoom x mirror.
    xx, xy = (cos - sin * shear_y) * mirror / zoom, (cos * shear_x - sin) / zoom
    yx, yy = (sin + cos * shear_y) * mirror / zoom, (sin * shear_x + cos) / zoom
    aspect = height / width  # affine_grid counts both sides from -1 to 1
    x_row = torch.stack([xx, xy * aspect, 2 * signed(_SHIFT_X, TRANSLATE)], dim=1)  # [B, 3]
    y_row = torch.stack([yx / aspect, yy, 2 * signed(_SHIFT_Y, TRANSLATE)], dim=1)
    grid = F.affine_grid(torch.stack([x_row, y_row], dim=1), list(images.shape), align_corners=False)  # [B, H, W, 2]
    # Outside of the image is 0 to grid_sample, and grey to us.
    return F.grid_sample(images - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY


def change_colours(images: Tensor, draws: Tensor) -> Tensor:
    """Brightness, contrast around the image's mean grey, and saturation, each times a factor; the result is clipped.

    images [B, 3, H, W] in [0, 1], draws [B, DRAWS] -> [B, 3, H, W] in [0, 1].
    """

    def factor(chance, column):
        drawn = 1 + (2 * draws[:, column] - 1) * ENHANCE
        return torch.where(draws[:, chance] < COLOUR, drawn, 1)[:, None, None, None]  # [B, 1, 1, 1]

    images = (images * factor(_IF_BRIGHT, _BRIGHT)).clamp(0, 1)
    mean = _grey(images).mean((2, 3), keepdim=True)  # [B, 1, 1, 1]
    images = torch.lerp(mean, images, factor(_IF_CONTRAST, _CONTRAST)).clamp(0, 1)
    return torch.lerp(_grey(images), images, factor(_IF_COLOUR, _COLOUR)).clamp(0, 1)


def _grey(images):
    """[B, 3, H, W] -> [B, 1, H, W]."""
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def cut_out(images: Tensor, draws: Tensor) -> Tensor:
    """Paint one box of each image in one colour: the box of `csl.data.augment.cutout`, drawn likewise.

    images [B, 3, H, W], draws [B, DRAWS] -> [B, 3, H, W].
    """
    height, width = images.shape[2:]

    def inside(column, side):
        reach = int(CUTOUT_FACTOR * side + 0.5) // 2
        centre = (draws[:, column] * side).floor().clamp(max=side - 1)[:, None]  # [B, 1]
        places = torch.arange(side, device=images.device, dtype=images.dtype)
        return (places - centre).abs() <= reach  # [B, side]

    box = inside(_BOX_Y, height)[:, None, :, None] & inside(_BOX_X, width)[:, None, None, :]  # [B, 1, H, W]
    colour = draws[:, _RED : _BLUE + 1, None, None]  # [B, 3, 1, 1]
    return torch.where(box, colour, images)
