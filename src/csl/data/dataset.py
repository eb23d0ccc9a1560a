"""The data set: an image file and its row of labels, augmented by draws that depend on its place in the epoch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from csl.data.logic_mix import mixed_labels, mixed_pixels, partners
from csl.data.photo_cache import PhotoCache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError
from csl.labels import Annotations
from csl.machine.draws import generator


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read: its row, and one line that names the file and what is wrong."""

    index: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """A batch of a loader: the images that could be read, and a list of those that could not.

    Attributes:
        images: uint8 [B, 3, H, W].
        targets: int8 [B, C] in {1, 0, -1}.
        indices: int64 [B], rows of the annotations.
        bad: the images left out.
        draws: float32 [B, DRAWS], for `csl.data.batch_augment`; None where nothing is left to do on the device.
        alone: bool [B], which images are no mixtures; None where none is.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    bad: tuple[BadImage, ...] = ()
    draws: Tensor | None = None
    alone: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> "Batch":
        """Page-locked copies, for a copy to the GPU that does not wait."""
        return self._with(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """Images, targets and draws on the device; from page-locked memory the host does not wait for the copy."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell the allocator of CUDA memory that `stream` uses the tensors as well."""
        for tensor in (self.images, self.targets, self.draws):
            if tensor is not None:
                tensor.record_stream(stream)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        draws = None if self.draws is None else change(self.draws)
        return dataclasses.replace(self, images=change(self.images), targets=change(self.targets), draws=draws)


class Key(NamedTuple):
    """What a sampler asks an `ImageDataset` for: the image of a row, as it is at a place of an epoch, both from 0."""

    epoch: int
    place: int
    row: int


class ImageDataset(Dataset):
    """Images of `annotations` and their labels.

    Args:
        annotations: images and labels.
        transform: a `TrainTransform`, which is given a generator of (seed, epoch, place); an `EvalTransform` where
            `seed` is None.
        seed: of the augmentation's draws; None for a transform without any.
        cache: where resized photos are cached; None for no cache.
        mix: whether images are mixed with others (`csl.data.logic_mix`), with a seed.

    Items are asked for by `Key`s: neither the worker nor the rank that has a sample changes its pixels, and an image that
    an epoch holds several times is another one at each place.
    """

    def __init__(
        self,
        annotations: Annotations,
        transform: TrainTransform | EvalTransform,
        seed: int | None = None,
        cache: PhotoCache | None = None,
        mix: bool = False,
    ):
        self.annotations, self.transform, self.seed, self.cache, self.mix = annotations, transform, seed, cache, mix

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, key: Key) -> "Sample | BadImage":
        epoch, place, index = key
        rows = [index]
        if self.mix:
            rows += partners(generator("mixing", self.seed, epoch, place), len(self))
        photos = []
        for row in rows:
            try:
                photos.append(self.resized(row))  # [H, W, 3]
            except InputError as error:
                return BadImage(row, str(error))
        if self.seed is None:
            return Sample(self.transform.augmented(photos[0]), self.annotations.labels[index], index)
        rng = generator("augmentation", self.seed, epoch, place)
        pixels = [self.transform.augmented(photo, rng) for photo in photos]
        labels = [self.annotations.labels[row] for row in rows]  # of [C]
        if len(rows) == 1:
            return Sample(pixels[0], labels[0], index, self.transform.draws(rng))
        return Sample(mixed_pixels(pixels), mixed_labels(labels), index, self.transform.draws(rng), alone=False)

    def resized(self, index: int) -> np.ndarray:
        """What `transform.read` makes of the photo of a row, from the cache where it is there: uint8 [H, W, 3]."""
        path = self.annotations.images[index]
        kept = self.cache.find(index, path) if self.cache is not None else None
        if kept is not None and kept.pixels is not None:
            return kept.pixels
        pixels = self.transform.read(path, self.annotations.roots)
        if kept is not None:
            self.cache.keep(index, kept.fingerprint, pixels)
        return pixels


class Sample(NamedTuple):
    """One image, read: `pixels` uint8 [3, H, W], `labels` int8 [C], its row, `draws` and `alone` as in `Batch`."""

    pixels: Tensor
    labels: np.ndarray
    index: int
    draws: np.ndarray | None = None
    alone: bool = True


def collate(items: "list[Sample | BadImage]") -> Batch:
    """Stack the readable items of a batch, images channels-last, and list the others."""
    good = [item for item in items if not isinstance(item, BadImage)]
    bad = tuple(item for item in items if isinstance(item, BadImage))
    if not good:
        empty = torch.empty(0, dtype=torch.int64)
        return Batch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), torch.empty(0, 0, dtype=torch.int8), empty, bad)
    pixels, labels, indices, draws, alone = zip(*good, strict=True)
    images = torch.stack([one.permute(1, 2, 0) for one in pixels])  # [B, H, W, 3], one copy of whole images
    return Batch(
        images.permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(labels)),
        torch.tensor(indices),
        bad,
        None if draws[0] is None else torch.from_numpy(np.stack(draws)),
        None if all(alone) else torch.tensor(alone),
    )
