"""The tutorial's augmentation, against torchvision's own transforms of tensors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from csl.data.flip_affine import FILL, flip_affine
from csl.data.transforms import TrainTransform


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


class Recorded:
    """A generator that remembers its draws."""

    def __init__(self, seed):
        self.rng, self.draws = np.random.default_rng(seed), []

    def random(self):
        self.draws.append(self.rng.random())
        return self.draws[-1]

    def uniform(self, low, high):
        self.draws.append(self.rng.uniform(low, high))
        assert low <= self.draws[-1] <= high
        return self.draws[-1]


@pytest.mark.parametrize("seed", range(12))
def test_it_is_torchvisions_affine(picture, seed):
    rng = Recorded(seed)
    found = np.asarray(flip_affine(picture, rng)).astype(int)
    coin, angle, right, down, scale = rng.draws
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
    if coin < 0.5:
        tensor = tensor.flip(-1)
    expected = F.affine(tensor, angle, [round(right), round(down)], scale, [0.0, 0.0], fill=[float(v) for v in FILL])
    same = (found == expected.permute(1, 2, 0).numpy()).all(axis=-1)
    assert same.mean() > 0.97  # nearest neighbours of Pillow and of PyTorch differ where a pixel is halfway


def test_ranges_fill_and_order_of_draws(picture):
    draws = []
    for seed in range(400):
        rng = Recorded(seed)
        flip_affine(picture, rng)
        draws.append(rng.draws)
    coin, angle, right, down, scale = np.array(draws).T
    assert 0.4 < (coin < 0.5).mean() < 0.6
    for values, low, high in ((angle, -20, 20), (right, -12, 12), (down, -8, 8), (scale, 0.5, 1.5)):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high
    small = next(seed for seed in range(400) if scale[seed] < 0.55)
    corner = np.asarray(flip_affine(picture, np.random.default_rng(small)))[0, 0]
    assert tuple(corner) == FILL == tuple(int(255 * mean) for mean in (0.485, 0.456, 0.406))


def test_it_is_an_augmentation_of_the_training_transform(picture):
    transform = TrainTransform(32, "flip_affine")
    first, again = (transform(picture, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, transform(picture, np.random.default_rng(6)))
