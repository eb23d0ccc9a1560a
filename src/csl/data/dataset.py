"""The data set: an image file and its row of labels, augmented by draws that depend on (seed, epoch, index) alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from csl.data.images import load_rgb
from csl.errors import InputError
from csl.labels import Annotations


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read: its row, and one line that names the file and what is wrong."""

    index: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """What a loader yields: only the images that could be read, and the names of those that could not.

    Attributes:
        images: uint8 [B, 3, H, W].
        targets: int8 [B, C] in {1, 0, -1}.
        indices: int64 [B], rows of the annotations.
        bad: the images left out.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    bad: tuple[BadImage, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> "Batch":
        """Page-locked copies, for a copy to the GPU that does not wait."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices, self.bad)


class ImageDataset(Dataset):
    """Images of `annotations` and their labels.

    Args:
        annotations: what is known about each image.
        transform: `transform(image, rng)` for training, where rng is a generator seeded by (seed, epoch, index);
            `transform(image)` where `seed` is None.
        seed: of the augmentation's draws; None for a transform without any.

    Items are asked for by (epoch, index): neither the worker nor the rank that has a sample changes its pixels.
    """

    def __init__(self, annotations: Annotations, transform: Callable[..., Tensor], seed: int | None = None):
        self.annotations, self.transform, self.seed = annotations, transform, seed

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, np.ndarray, int] | BadImage:
        epoch, index = key
        try:
            image = load_rgb(self.annotations.images[index])
        except InputError as error:
            return BadImage(index, str(error))
        return self._transformed(image, epoch, index), self.annotations.labels[index], index

    def _transformed(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        if self.seed is None:
            return self.transform(image)
        return self.transform(image, np.random.default_rng((self.seed, epoch, index)))


def collate(items: list) -> Batch:
    """Stack the readable items of a batch and keep the others' names."""
    good = [item for item in items if not isinstance(item, BadImage)]
    bad = tuple(item for item in items if isinstance(item, BadImage))
    if not good:
        empty = torch.empty(0, dtype=torch.int64)
        return Batch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), torch.empty(0, 0, dtype=torch.int8), empty, bad)
    images, targets, indices = zip(*good, strict=True)
    return Batch(torch.stack(images), torch.from_numpy(np.stack(targets)), torch.tensor(indices), bad)
