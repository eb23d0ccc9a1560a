"""csl.data.batch_augment: each sample as its own row of draws says, against Pillow, NumPy and plain loops."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from csl.data import batch_augment as ba
from csl.data.augment import cutout
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import TrainTransform
from csl.labels import Annotations, LabelMatrix

NOTHING = 0.999  # for a chance: not taken; for a magnitude: about its end


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([4 * x, 5 * y, 128 + 60 * np.sin(x / 5)], axis=-1) + rng.normal(0, 8, (48, 64, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def as_batch(pixels, count=1, dtype=torch.float32):
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).to(dtype) / 255
    return image.repeat(count, 1, 1, 1)


def as_pixels(image):
    return (image * 255).permute(1, 2, 0).numpy()


def draws(count=1, **columns):
    """Rows in which nothing happens but what is named (`FLIP=0.1`), magnitudes at their middle."""
    rows = torch.full((count, ba.DRAWS), 0.5)
    rows[:, [ba._FLIP, ba._WARP, ba._IF_BRIGHT, ba._IF_CONTRAST, ba._IF_COLOUR]] = NOTHING
    for name, value in columns.items():
        rows[:, getattr(ba, f"_{name}")] = torch.as_tensor(value, dtype=torch.float32)
    return rows


def test_nothing_drawn_is_nothing_done(picture):
    x = as_batch(picture)
    torch.testing.assert_close(ba.warp(x, draws()), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(ba.change_colours(x, draws()), x, rtol=0, atol=1e-6)


def test_the_mirror_is_the_mirror(picture):
    torch.testing.assert_close(
        ba.warp(as_batch(picture), draws(FLIP=0.1)), as_batch(picture[:, ::-1].copy()), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_rotation_is_pillows(picture, share):
    degrees = (2 * share - 1) * ba.DEGREES
    found = as_pixels(ba.warp(as_batch(picture), draws(WARP=0.1, ANGLE=share))[0])
    expected = Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
    inner = np.s_[12:-12, 12:-12]  # Pillow does not blend with the fill at the border
    assert np.abs(found[inner] - np.asarray(expected, float)[inner]).max() < 2.5
    assert degrees == 0 or np.abs(found - picture)[inner].mean() > 2


@pytest.mark.parametrize(
    ("columns", "matrix"),
    [
        ({"SHIFT_X": 1.0}, (1, 0, ba.TRANSLATE * 64, 0, 1, 0)),
        ({"SHIFT_Y": 0.0}, (1, 0, 0, 0, 1, -ba.TRANSLATE * 48)),
        ({"SHEAR_X": 1.0}, (1, ba.SHEAR, -ba.SHEAR * 24, 0, 1, 0)),
        ({"SHEAR_Y": 1.0}, (1, 0, 0, ba.SHEAR, 1, -ba.SHEAR * 32)),
        ({"ZOOM": 1.0}, (1 / ba.ZOOM, 0, 32 - 32 / ba.ZOOM, 0, 1 / ba.ZOOM, 24 - 24 / ba.ZOOM)),
    ],
)
def test_the_warp_is_pillows_affine(picture, columns, matrix):
    found = as_pixels(ba.warp(as_batch(picture), draws(WARP=0.1, **columns))[0])
    expected = Image.fromarray(picture).transform(
        (64, 48), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)
    )
    difference = np.abs(found - np.asarray(expected, float)).max(-1)
    assert (difference < 2.5).mean() > 0.9  # all but the blend at the border
    assert difference[14:-14, 18:-18].max() < 2.5
    assert np.abs(found - picture).mean() > 3


def test_what_is_uncovered_is_grey(picture):
    found = as_pixels(ba.warp(as_batch(picture), draws(WARP=0.1, SHIFT_X=1.0))[0])
    np.testing.assert_allclose(found[:, -int(ba.TRANSLATE * 64) + 1 :], 128, atol=1e-3)


@pytest.mark.parametrize(
    ("columns", "enhancer"),
    [
        (("IF_BRIGHT", "BRIGHT"), ImageEnhance.Brightness),
        (("IF_CONTRAST", "CONTRAST"), ImageEnhance.Contrast),
        (("IF_COLOUR", "COLOUR"), ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_colours_change_as_pillows_enhancers_change_them(picture, columns, enhancer, share):
    found = as_pixels(ba.change_colours(as_batch(picture), draws(**{columns[0]: 0.1, columns[1]: share}))[0])
    expected = np.asarray(enhancer(Image.fromarray(picture)).enhance(1 + (2 * share - 1) * ba.ENHANCE), float)
    assert np.abs(found - expected).max() < 2.1  # Pillow rounds the grey that it blends with, and the result
    assert found.min() >= 0
    assert found.max() <= 255


def test_the_box_is_that_of_the_original_cutout(picture):
    class Given:
        """Hands out what `cutout` would draw: the centre, then the colour."""

        def __init__(self, *values):
            self.values = list(values)

        def integers(self, most, size=None):
            value = self.values.pop(0)
            assert np.all(np.asarray(value) < most)
            return value

    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y, colour = int(rng.integers(64)), int(rng.integers(48)), rng.integers(256, size=3)
        expected = cutout(Image.fromarray(picture), ba.CUTOUT_FACTOR, Given(x, y, colour))
        row = draws(BOX_X=(x + 0.5) / 64, BOX_Y=(y + 0.5) / 48)
        row[0, ba._RED : ba._BLUE + 1] = torch.from_numpy(colour / 255)
        found = as_pixels(ba.cut_out(as_batch(picture), row)[0])
        np.testing.assert_allclose(found, np.asarray(expected, float), atol=1e-3)


def test_a_sample_depends_on_its_own_image_and_row_alone(picture):
    rng = np.random.default_rng(1)
    rows = torch.from_numpy(np.stack([ba.draw(rng) for _ in range(9)]))
    x = torch.rand(9, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    together = ba.augment_batch(x, rows)
    for i in range(9):
        torch.testing.assert_close(ba.augment_batch(x[i : i + 1], rows[i : i + 1])[0], together[i], rtol=0, atol=1e-6)
    order = torch.randperm(9)
    torch.testing.assert_close(ba.augment_batch(x[order], rows[order]), together[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_images_of_the_same_kind(dtype):
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(np.stack([ba.draw(rng) for _ in range(64)]))
    x = torch.rand(64, 3, 20, 28, dtype=dtype)
    before = x.clone()
    found = ba.augment_batch(x, rows)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(x, before)


def test_probabilities_and_ranges():
    rng = np.random.default_rng(0)
    rows = np.stack([ba.draw(rng) for _ in range(4000)])
    assert rows.dtype == np.float32
    assert rows.min() >= 0
    assert rows.max() < 1
    for column, share in ((ba._FLIP, ba.FLIP), (ba._WARP, ba.WARP), (ba._IF_COLOUR, ba.COLOUR)):
        assert (rows[:, column] < share).mean() == pytest.approx(share, abs=4 * math.sqrt(0.25 / 4000))
    assert np.abs(np.corrcoef(rows.T) - np.eye(ba.DRAWS)).max() < 0.08


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected"):
        ba.augment_batch(torch.zeros(2, 3, 8, 8), torch.zeros(3, ba.DRAWS))
    with pytest.raises(ValueError, match="expected"):
        ba.augment_batch(torch.zeros(2, 1, 8, 8), torch.zeros(2, ba.DRAWS))


@pytest.fixture
def dataset(tmp_path, picture):
    paths = []
    for i in range(10):
        paths.append(str(tmp_path / f"{i}.jpg"))
        Image.fromarray(np.roll(picture, 3 * i, axis=1)).save(paths[-1])
    annotations = Annotations(paths, LabelMatrix.from_dense(np.zeros((10, 2), np.int8)), ["a", "b"])
    return ImageDataset(annotations, TrainTransform(24, "fast"), seed=7)


def augmented(loader, epoch, start=0):
    """{row: augmented image} of an epoch, from a step on."""
    loader.batch_sampler.set_epoch(epoch, start)
    found = {}
    for batch in loader:
        images = ba.augment_batch(batch.images.float() / 255, batch.draws)
        found |= dict(zip(batch.indices.tolist(), images, strict=True))
    return found


def test_draws_depend_on_seed_epoch_and_place_alone(dataset):
    whole = augmented(create_loader(dataset, 4, 0, shuffle_seed=7), epoch=1)
    again = augmented(create_loader(dataset, 5, 2, shuffle_seed=7), epoch=1)  # other batches and workers
    assert set(whole) == set(again) == set(range(10))
    for row, image in whole.items():
        torch.testing.assert_close(image, again[row], rtol=0, atol=1e-6)
    for row, image in augmented(create_loader(dataset, 4, 0, shuffle_seed=7), epoch=1, start=1).items():
        torch.testing.assert_close(image, whole[row], rtol=0, atol=1e-6)
    other = augmented(create_loader(dataset, 4, 0, shuffle_seed=7), epoch=2)
    assert not any(torch.equal(whole[row], other[row]) for row in range(10))
    np.testing.assert_array_equal(dataset[1, 3, 0].draws, dataset[1, 3, 9].draws)  # epoch, place, row
    assert (dataset[1, 3, 0].draws != dataset[1, 2, 0].draws).any()


def test_other_augmentations_leave_nothing_for_the_device(dataset):
    plain = ImageDataset(dataset.annotations, TrainTransform(24, "original"), seed=7)
    (batch, *_) = create_loader(plain, 4, 0, shuffle_seed=7)
    assert batch.draws is None


@pytest.mark.gpu
def test_a_gpu_does_the_same():
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(np.stack([ba.draw(rng) for _ in range(16)]))
    x = torch.rand(16, 3, 64, 48)
    found = ba.augment_batch(x.cuda(), rows.cuda()).cpu()
    assert ((found - ba.augment_batch(x, rows)).abs() > 1e-3).float().mean() < 1e-3  # but for an edge of a box or so
