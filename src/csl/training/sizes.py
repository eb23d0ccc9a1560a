"""The size of the training images over a run: `--progressive_size`, small at first and that of `--image_size` at the end.

What a network learns first it learns from small images as well, in a part of the time: progressive resizing (EfficientNetV2,
arXiv 2104.00298, section 4.2; FFCV's ImageNet recipe). The last part of a run has the full size, at which the network is
evaluated: one that has only seen smaller objects is worse there (FixRes, arXiv 1906.06423).
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from csl.machine.image_size import height_width

Size = int | tuple[int, int]

PARTS = 4
"""Equal parts of a run, the first of the smallest size and the last of the full one, with even steps between them."""

MULTIPLE = 16
"""Of the sides in between, in pixels, as maps of a network with strides divide evenly then."""


def sizes_between(smallest: Size, full: Size) -> list[tuple[int, int]]:
    """The (height, width) of each of the `PARTS` of a run; `smallest` and `full` as they are given."""
    low, high = height_width(smallest), height_width(full)

    def side(a, b, part):
        near = MULTIPLE * round((a + (b - a) * part / (PARTS - 1)) / MULTIPLE)
        return min(max(near, a), b)

    between = [tuple(side(a, b, part) for a, b in zip(low, high, strict=True)) for part in range(1, PARTS - 1)]
    return [low, *between, high]


def is_smaller(smallest: Size, full: Size) -> bool:
    """Whether no side of `smallest` is longer than that of `full`, and one is shorter."""
    pairs = list(zip(height_width(smallest), height_width(full), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def size_at(step: int, total_steps: int, smallest: Size | None, full: Size) -> tuple[int, int]:
    """The (height, width) of the images of a step, from 0, of `total_steps`; `full` where `smallest` is None."""
    if smallest is None:
        return height_width(full)
    return sizes_between(smallest, full)[min(PARTS * step // max(total_steps, 1), PARTS - 1)]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Batch uint8 [B, 3, H, W] at `size`, averaged over the area that a pixel stands for; as it is where that is its own.

    It is resized as a batch, in uint8 on a CPU and in float32 elsewhere: to the loader, its cache and the augmentation in its
    processes there is the full size alone.
    """
    if images.shape[2:] == size or not len(images):
        return images
    images = images if images.device.type == "cpu" else images.float()
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


class SizeOfStep:
    """Resizes the batches of a run to the size of the step under way, which is said where it is another than before."""

    def __init__(self, smallest: Size | None, full: Size, total_steps: int, say: Callable[[str], None]):
        self.smallest, self.total_steps, self.say = smallest, total_steps, say
        self.now = self.full = height_width(full)

    def resized(self, images: Tensor, step: int) -> Tensor:
        """Batch uint8 [B, 3, H, W] at the size of the step, from 0."""
        size = size_at(step, self.total_steps, self.smallest, self.full)
        if size != self.now:
            self.now = size
            self.say(f"image size {size[0]}x{size[1]} from step {step + 1} of {self.total_steps} on")
        return resized(images, size)
