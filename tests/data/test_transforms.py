"""Augmentation: against the `randaugment` package where it is installed, against plain NumPy everywhere."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from csl.data import augment
from csl.data.augment import CUTOUT_GREY, GREY, LEVELS, OPERATIONS, cutout, draw_pair, rand_augment
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError

SIGNS = {name: (1, -1) if operation.signed else (1,) for name, operation in OPERATIONS.items()}


@pytest.fixture
def picture():
    """A drawn RGB image, 60 wide and 44 high: shapes on a gradient with noise, so that no operation is a no-op."""
    y, x = np.mgrid[:44, :60]
    pixels = np.stack([40 + 3 * x, 30 + 4 * y, 60 + x + y], axis=-1)
    pixels = pixels + np.random.default_rng(0).integers(-20, 20, pixels.shape)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 6, 30, 30), fill=(220, 60, 50))
    draw.rectangle((36, 20, 54, 40), fill=(40, 90, 200), outline=(250, 250, 120), width=2)
    return image


def pixels(image):
    return np.asarray(image).astype(int)


def apply(name, image, level, sign=1, seed=0):
    operation = OPERATIONS[name]
    return operation.apply(image, sign * operation.magnitudes[level], np.random.default_rng(seed))


# --- against the package ---


@pytest.fixture
def package(monkeypatch):
    """The module `randaugment.randaugment`; it needs the `numpy.int` that NumPy 1.24 removed, also when called."""
    monkeypatch.setattr(np, "int", int, raising=False)
    pytest.importorskip("randaugment")
    from randaugment import randaugment

    return randaugment


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_equals_the_package(package, picture, monkeypatch, name):
    for level in LEVELS:
        for sign in SIGNS[name]:
            monkeypatch.setattr(random, "choice", lambda signs, sign=sign: sign)
            rng = np.random.default_rng(level)  # the package draws Cutout's row, which it means as x, first
            monkeypatch.setattr(np.random, "randint", lambda low, high, rng=rng: int(rng.integers(high)))
            theirs = package.SubPolicy(1.0, name, level, 0.0, name, level)(picture)
            ours = apply(name, picture, level, sign, seed=level)
            np.testing.assert_array_equal(pixels(ours), pixels(theirs), err_msg=f"{name} {level} {sign}")


def test_pairs_and_probabilities_are_the_package_s(package):
    theirs = package.RandAugment.get_rand_policies()
    assert {p for pair in theirs for p, _, _ in pair} == {augment.APPLY_PROBABILITY}
    pairs = Counter(((a, i), (b, j)) for (_, a, i), (_, b, j) in theirs)
    ours = [(name, level) for name in OPERATIONS for level in LEVELS]
    assert pairs == Counter((first, second) for first in ours for second in ours)


def test_signs_are_drawn_where_the_package_draws_them(package, picture, monkeypatch):
    drawn = []
    monkeypatch.setattr(random, "choice", lambda signs: drawn.append(signs) or 1)
    for name, operation in OPERATIONS.items():
        drawn.clear()
        package.SubPolicy(1.0, name, 5, 0.0, name, 5)(picture)
        assert drawn == ([[-1, 1]] if operation.signed else []), name


# --- the draws ---


def test_drawn_pairs_are_uniform_and_independent():
    rng, draws = np.random.default_rng(1), 20_000
    pairs = [draw_pair(rng) for _ in range(draws)]

    def chi_square(counts, cells):  # in standard deviations from its mean, for `cells` equally likely outcomes
        assert len(counts) == cells
        expected = draws / cells
        statistic = sum((n - expected) ** 2 / expected for n in counts.values())
        return (statistic - (cells - 1)) / np.sqrt(2 * (cells - 1))

    assert abs(chi_square(Counter(first for first, _ in pairs), 15 * 9)) < 4
    assert abs(chi_square(Counter(second for _, second in pairs), 15 * 9)) < 4
    assert abs(chi_square(Counter((a, b) for (a, _), (b, _) in pairs), 15 * 15)) < 4
    assert abs(chi_square(Counter((i, j) for (_, i), (_, j) in pairs), 9 * 9)) < 4


def test_each_operation_is_applied_with_probability_half_and_either_sign(monkeypatch):
    applied = []

    def record(image, magnitude, rng):
        applied[-1].append(magnitude)
        return image

    stand_ins = {n: augment.Operation((0, *range(1, 10)), record, op.signed) for n, op in OPERATIONS.items()}
    monkeypatch.setattr(augment, "OPERATIONS", stand_ins)
    rng, image, draws = np.random.default_rng(2), Image.new("RGB", (1, 1)), 8_000
    for _ in range(draws):
        applied.append([])
        assert rand_augment(image, rng) is image
    for count, p in ((0, 0.25), (1, 0.5), (2, 0.25)):
        assert sum(len(a) == count for a in applied) / draws == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / draws))
    magnitudes = [m for a in applied for m in a]
    signed = sum(op.signed for op in OPERATIONS.values())
    assert signed == 8
    p = signed / len(OPERATIONS) / 2
    assert np.mean([m < 0 for m in magnitudes]) == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / len(magnitudes)))


def test_the_generator_decides_everything(picture):
    def run(seed):
        return [pixels(rand_augment(cutout(picture, 0.5, rng), rng)) for rng in map(np.random.default_rng, seed)]

    random.seed(1)
    first = run([(7, 0, i) for i in range(40)])
    np.random.seed(2)
    random.seed(3)
    second = run([(7, 0, i) for i in range(40)])
    other_epoch = run([(7, 1, i) for i in range(40)])
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other_epoch, strict=True))


# --- each operation, without the package ---


def test_magnitudes():
    table = {name: operation.magnitudes for name, operation in OPERATIONS.items()}
    assert all(len(magnitudes) == 10 for magnitudes in table.values())
    assert table["Posterize"] == (8, 8, 7, 7, 6, 6, 5, 5, 4, 4)
    assert table["Cutout"] == (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)
    assert table["Solarize"] == pytest.approx([256 * (9 - i) / 9 for i in range(10)])
    assert table["Rotate"] == pytest.approx([30 * i / 9 for i in range(10)])
    for name in ("ShearX", "ShearY"):
        assert table[name] == pytest.approx([0.3 * i / 9 for i in range(10)])
    for name in ("TranslateX", "TranslateY"):
        assert table[name] == pytest.approx([150 / 331 * i / 9 for i in range(10)])
    for name in ("Sharpness", "Contrast", "Color", "Brightness"):
        assert table[name] == pytest.approx([0.1 * i for i in range(10)])


@pytest.mark.parametrize("level", LEVELS)
def test_point_operations(picture, level):
    x = pixels(picture)
    np.testing.assert_array_equal(pixels(apply("Invert", picture, level)), 255 - x)
    keep = 2 ** (8 - OPERATIONS["Posterize"].magnitudes[level])
    np.testing.assert_array_equal(pixels(apply("Posterize", picture, level)), x // keep * keep)
    threshold = 256 * (9 - level) / 9
    np.testing.assert_array_equal(pixels(apply("Solarize", picture, level)), np.where(x < threshold, x, 255 - x))
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    np.testing.assert_allclose(pixels(apply("AutoContrast", picture, level)), (x - low) * 255 / (high - low), atol=1)


@pytest.mark.parametrize("level", LEVELS)
def test_equalize_makes_the_histogram_flat(picture, level):
    x = pixels(apply("Equalize", picture, level))
    cumulative = [(x[..., c] <= v).mean() for c in range(3) for v in range(256)]
    # No further from a straight line than the tallest bar of the input's histogram, which cannot be split.
    tallest = max(np.bincount(pixels(picture)[..., c].ravel()).max() for c in range(3)) / x[..., 0].size
    assert np.abs(np.array(cumulative) - np.tile(np.arange(256) / 255, 3)).max() <= tallest + 2 / 255


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", LEVELS)
def test_enhancers_blend_away_from_their_degenerate_image(picture, level, sign):
    x, factor = pixels(picture), 1 + sign * level / 10
    grey = pixels(picture.convert("L"))[..., None]
    degenerate = {
        "Brightness": 0,
        "Color": grey,
        "Contrast": int(grey.mean() + 0.5),
        "Sharpness": pixels(picture.filter(ImageFilter.SMOOTH)),
    }
    for name, image in degenerate.items():
        expected = (image + factor * (x - image)).clip(0, 255)
        np.testing.assert_allclose(pixels(apply(name, picture, level, sign)), expected, atol=1, err_msg=name)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", LEVELS)
def test_translations_move_whole_pixels_and_uncover_grey(picture, level, sign):
    x = pixels(picture)
    part = sign * 150 / 331 * level / 9
    for name, axis, side in (("TranslateX", 1, 60), ("TranslateY", 0, 44)):
        source = np.floor(np.arange(side) + 0.5 + part * side).astype(int)  # nearest: the pixel under the centre
        inside = (source >= 0) & (source < side)
        expected = np.take(x, source.clip(0, side - 1), axis=axis)
        np.moveaxis(expected, axis, 0)[~inside] = GREY
        np.testing.assert_array_equal(pixels(apply(name, picture, level, sign)), expected, err_msg=name)


@pytest.mark.parametrize("level", LEVELS)
def test_rotation_is_counter_clockwise_with_grey_corners(picture, level):
    x, turned = pixels(picture), pixels(apply("Rotate", picture, level))
    angle = np.deg2rad(30 * level / 9)
    row, column = np.mgrid[:44, :60]
    right, up = column + 0.5 - 30, 22 - (row + 0.5)  # about the centre
    source_x = right * np.cos(angle) + up * np.sin(angle) + 30
    source_y = 22 - (up * np.cos(angle) - right * np.sin(angle))
    inside = (source_x >= 0) & (source_x < 60) & (source_y >= 0) & (source_y < 44)
    expected = x[source_y.astype(int).clip(0, 43), source_x.astype(int).clip(0, 59)]
    expected[~inside] = GREY
    assert (turned == expected).all(axis=-1).mean() > 0.995  # Pillow rounds the matrix: a pixel may tip over an edge


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", LEVELS)
def test_shears_slide_rows_or_columns_from_the_top_left(level, sign):
    y, x = np.mgrid[:44, :60]
    ramp = Image.fromarray(np.stack([4 * x, 5 * y, 2 * x + y], axis=-1).astype(np.uint8))
    slope = sign * 0.3 * level / 9
    # On a ramp each value tells which point was read. Pillow's bicubic (a = -1) bends a ramp by up to 0.1 of its step
    # between pixels, here 5, and cuts off the fraction.
    for name, channel, values in (
        ("ShearX", 0, 4 * (x + slope * (y + 0.5))),
        ("ShearY", 1, 5 * (y + slope * (x + 0.5))),
    ):
        sheared = pixels(apply(name, ramp, level, sign))
        per_pixel = values.max() / (60 if channel == 0 else 44)
        top = (59 if channel == 0 else 43) * (4 if channel == 0 else 5)
        well_inside = (values > 2 * per_pixel) & (values < top - 2 * per_pixel)
        np.testing.assert_allclose(sheared[..., channel][well_inside], values[well_inside], atol=1.5, err_msg=name)
        outside = (values < -per_pixel) | (values > top + per_pixel)
        assert outside.any()
        assert (sheared[outside] == GREY).all()


@pytest.mark.parametrize("level", LEVELS)
def test_small_cutout(picture, level):
    reach = OPERATIONS["Cutout"].magnitudes[level] // 2
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = rng.integers(60), rng.integers(44)
        expected = pixels(picture)
        expected[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach] = CUTOUT_GREY
        np.testing.assert_array_equal(pixels(apply("Cutout", picture, level, seed=seed)), expected)


def test_no_operation_changes_its_input_or_the_size(picture):
    before = pixels(picture)
    for name in OPERATIONS:
        for level in LEVELS:
            changed = apply(name, picture, level)
            assert (changed.size, changed.mode) == (picture.size, "RGB")
    cutout(picture, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels(picture), before)


def test_operations_take_the_smallest_images():
    for size in ((1, 1), (1, 5), (3, 2)):
        image = Image.new("RGB", size, (10, 200, 90))
        for name in OPERATIONS:
            assert apply(name, image, 9).size == size


# --- the large cutout ---


def painted(before, after):
    """Bounding box (left, top, right, bottom; inclusive) and colour of the pixels that differ."""
    rows, columns = np.nonzero((pixels(before) != pixels(after)).any(axis=-1))
    return (columns.min(), rows.min(), columns.max(), rows.max()), tuple(np.asarray(after)[rows[0], columns[0]])


@pytest.mark.parametrize(("size", "factor"), [((64, 64), 0.5), ((61, 61), 0.5), ((60, 44), 0.5), ((64, 64), 0.2)])
def test_cutout_paints_one_box_in_one_colour_anywhere(size, factor):
    width, height = size
    reach_x, reach_y = int(factor * width + 0.5) // 2, int(factor * height + 0.5) // 2
    blank = Image.fromarray(np.full((height, width, 3), (1, 2, 3), np.uint8))
    boxes, colours = [], []
    for seed in range(600):
        after = cutout(blank, factor, np.random.default_rng(seed))
        (left, top, right, bottom), colour = painted(blank, after)
        assert (np.asarray(after)[top : bottom + 1, left : right + 1] == colour).all()
        boxes.append((left, top, right, bottom))
        colours.append(colour)
    left, top, right, bottom = np.array(boxes).T
    box_width, box_height = right - left + 1, bottom - top + 1
    # Both ends are included: 2 reach + 1 pixels where nothing is clipped; at least reach + 1 at a border.
    assert (box_width.min(), box_width.max()) == (reach_x + 1, 2 * reach_x + 1)
    assert (box_height.min(), box_height.max()) == (reach_y + 1, 2 * reach_y + 1)
    assert ((box_width == 2 * reach_x + 1) | (left == 0) | (right == width - 1)).all()
    # The centre is uniform: x = right - reach where the right end is not clipped, else left + reach.
    centre_x = np.where(right < width - 1, right - reach_x, left + reach_x)
    centre_y = np.where(bottom < height - 1, bottom - reach_y, top + reach_y)
    assert (centre_x.min(), centre_x.max(), centre_y.min(), centre_y.max()) == (0, width - 1, 0, height - 1)
    assert np.mean(centre_x) == pytest.approx((width - 1) / 2, abs=4 * width / np.sqrt(12 * 600))
    assert np.mean(centre_y) == pytest.approx((height - 1) / 2, abs=4 * height / np.sqrt(12 * 600))
    assert abs(np.mean(colours) - 127.5) < 4 * 256 / np.sqrt(12 * 1800)
    assert len(set(colours)) > 590


# --- the transforms ---


def test_eval_transform_is_a_bilinear_resize(picture):
    tensor = EvalTransform((20, 30))(picture)
    assert (tensor.shape, tensor.dtype) == ((3, 20, 30), torch.uint8)
    assert tensor.permute(1, 2, 0).is_contiguous()
    expected = np.asarray(picture.resize((30, 20), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(tensor.permute(1, 2, 0).numpy(), expected.astype(int), rtol=0, atol=1)
    assert EvalTransform(32)(picture).shape == (3, 32, 32)


def test_eval_transform_keeps_an_image_that_has_the_size(picture):
    np.testing.assert_array_equal(EvalTransform((44, 60))(picture).permute(1, 2, 0).numpy(), np.asarray(picture))


def test_train_transform_resizes_cuts_out_then_augments(picture):
    for seed in range(20):
        tensor = TrainTransform((40, 48))(picture, np.random.default_rng(seed))
        assert (tensor.shape, tensor.dtype) == ((3, 40, 48), torch.uint8)
        rng = np.random.default_rng(seed)
        resized = Image.fromarray(EvalTransform((40, 48))(picture).permute(1, 2, 0).numpy())
        expected = rand_augment(cutout(resized, 0.5, rng), rng)
        np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_train_transform_without_augmentation_is_the_eval_transform(picture):
    rng = np.random.default_rng(0)
    assert torch.equal(TrainTransform(32, augment="none")(picture, rng), EvalTransform(32)(picture))
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_transforms_survive_pickling_and_own_their_memory(picture):
    train, evaluate = pickle.loads(pickle.dumps((TrainTransform(32), EvalTransform((16, 24)))))
    assert (train, evaluate) == (TrainTransform(32), EvalTransform((16, 24)))
    seeds = np.random.default_rng(5), np.random.default_rng(5)
    assert torch.equal(train(picture, seeds[0]), TrainTransform(32)(picture, seeds[1]))
    before = pixels(picture)
    EvalTransform((44, 60))(picture).zero_()
    np.testing.assert_array_equal(pixels(picture), before)


@pytest.mark.parametrize("size", [0, -1, (32, 0), (), (1, 2, 3)])
def test_bad_sizes(size):
    for transform in (TrainTransform, EvalTransform):
        with pytest.raises(InputError, match="expected a positive number of pixels"):
            transform(size)


def test_an_unknown_augmentation_lists_the_known():
    with pytest.raises(InputError, match="unknown augmentation 'heavy': expected one of original, "):
        TrainTransform(32, augment="heavy")


def test_only_rgb(picture):
    with pytest.raises(ValueError, match="mode L: expected RGB"):
        EvalTransform(32)(picture.convert("L"))
