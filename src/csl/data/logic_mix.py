"""LogicMix: photos laid over one another, with the labels that follow for the mixture (Chong et al., arXiv 2405.15860).

With probability 1/2 a training photo becomes the mean of itself and one or two others, drawn from the whole training set, each
augmented by itself. A class is there if it is in one of them, absent if it is absent from all, else unknown: the logical OR of
what is known.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PROBABILITY = 0.5
MOST = 3
"""Photos of a mixture, at least 2, each number as likely."""


def partners(rng: np.random.Generator, images: int) -> list[int]:
    """The rows, of that many, that a photo is mixed with; none where it stays alone."""
    if rng.random() >= PROBABILITY:
        return []
    return rng.integers(images, size=rng.integers(1, MOST)).tolist()


def mixed_pixels(photos: Sequence[Tensor]) -> Tensor:
    """The mean of photos uint8 [3, H, W], rounded, of the same type and layout."""
    return torch.stack([photo.permute(1, 2, 0) for photo in photos]).float().mean(0).round().byte().permute(2, 0, 1)


def mixed_labels(labels: Sequence[np.ndarray]) -> np.ndarray:
    """The logical OR of rows of labels, int8 [C] in {1, 0, -1}."""
    rows = np.stack(labels)  # [K, C]
    return np.where((rows == 1).any(0), 1, np.where((rows == 0).all(0), 0, -1)).astype(np.int8)
