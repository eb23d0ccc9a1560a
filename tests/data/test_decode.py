"""csl.data.jpeg and csl.data.images.load_pixels: fast pixels that are Pillow's."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from csl.data import images, jpeg
from csl.data.images import check_image, load_pixels
from csl.data.transforms import EXACT, FAST, EvalTransform, TrainTransform, resize
from csl.errors import InputError


def photo(height, width, seed=0):
    """Something with smooth areas, edges and texture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, 127 + 80 * np.sin(x / 9 + y / 13)], axis=-1)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = (200, 30, 40)
    return np.clip(smooth + rng.normal(0, 12, (height, width, 1)), 0, 255).astype(np.uint8)


def encoded(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def by_pillow(path):
    """The pixels of a file as Pillow alone reads them, upright: uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    """Both ways to decode: with the package and where it is missing."""
    if request.param == "Pillow":
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    return request.param


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}]
)
@pytest.mark.parametrize("size", [(40, 56), (97, 131), (8, 1), (1, 1)])
def test_whole_pixels_equal_pillow(tmp_path, decoder, options, size):
    (tmp_path / "a.jpg").write_bytes(encoded(photo(*size), **options))
    found = load_pixels(tmp_path / "a.jpg")
    np.testing.assert_array_equal(found, np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB")))
    assert found.flags.writeable


def test_the_package_is_what_decodes_a_plain_jpeg():
    data = encoded(photo(40, 56))
    assert jpeg.is_plain(data)
    assert jpeg.decode(data).shape == (40, 56, 3)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(8, 200), st.integers(8, 200)), least=st.tuples(st.integers(1, 60), st.integers(1, 60))
)
def test_reduced_pixels_equal_pillows_draft_and_are_large_enough(size, least):
    data = encoded(photo(*size))
    found = jpeg.decode(data, least)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (least[1], least[0]))
        np.testing.assert_array_equal(found, np.asarray(image))
    scale = jpeg.scale_for(*size, least)
    assert found.shape[:2] == tuple(-(-side // scale) for side in size)
    assert scale == 1 or (found.shape[0] >= least[0] and found.shape[1] >= least[1])
    assert scale == 8 or 2 * scale * least[0] > size[0] or 2 * scale * least[1] > size[1]


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_photos_of_less_than_eight_pixels_are_left_to_pillow(tmp_path, side):
    data = encoded(photo(side, side))
    assert jpeg.decode(data) is None
    (tmp_path / "a.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (1, 1))
        np.testing.assert_array_equal(load_pixels(tmp_path / "a.jpg", at_least=(1, 1)), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_reduced_pixels(tmp_path, decoder, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(96, 160)).save(path, exif=exif)
    with Image.open(path) as image:
        whole = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(load_pixels(path), whole)
    upright = (96, 160) if orientation < 5 else (160, 96)
    assert whole.shape[:2] == upright
    # Wanted is a fifth of the height and a third of the width, as they are seen: only a half leaves both.
    assert load_pixels(path, at_least=(upright[0] // 5, upright[1] // 3)).shape[:2] == (
        upright[0] // 2,
        upright[1] // 2,
    )
    reduced = load_pixels(path, at_least=(upright[0] // 2, upright[1] // 2))
    with Image.open(path) as image:
        image.draft("RGB", (80, 48))
        np.testing.assert_array_equal(reduced, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *[("L", name) for name in ("a.jpg", "a.png", "a.gif", "a.tif")],
        *[("CMYK", "a.jpg"), ("CMYK", "a.tif"), ("P", "a.png"), ("P", "a.gif"), ("1", "a.png"), ("1", "a.tif")],
        *[("RGB", "a.png"), ("RGB", "a.webp"), ("RGBA", "a.png")],
    ],
)
def test_other_modes_and_formats_are_read_as_ever(tmp_path, decoder, mode, name):
    Image.fromarray(photo(40, 56)).convert(mode).save(tmp_path / name)
    np.testing.assert_array_equal(load_pixels(tmp_path / name), by_pillow(tmp_path / name))
    found = load_pixels(tmp_path / name, at_least=(20, 28))
    assert found.shape == ((20, 28, 3) if name == "a.jpg" else (40, 56, 3))


def test_several_pictures_in_one_file_give_the_first(tmp_path, decoder):
    first, second = Image.fromarray(photo(40, 56)), Image.fromarray(photo(40, 56, seed=1))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=90)
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.jpg"), by_pillow(tmp_path / "a.jpg"))


def test_xmp_orientation_is_seen(tmp_path, decoder):
    text = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(photo(40, 56))
    block = b"\xff\xe1" + (len(text) + 2).to_bytes(2) + text
    (tmp_path / "a.jpg").write_bytes(data[:2] + block + data[2:])
    assert by_pillow(tmp_path / "a.jpg").shape == (56, 40, 3)
    np.testing.assert_array_equal(load_pixels(tmp_path / "a.jpg"), by_pillow(tmp_path / "a.jpg"))


def test_is_plain_reads_the_header_alone():
    data = encoded(photo(16, 16))
    assert jpeg.is_plain(data)
    assert jpeg.is_plain(data + b"Exif\0\0MPF\0")  # behind the pixels
    assert jpeg.is_plain(data[:2] + b"\xff\xfe\x00\x08Exif\0\0" + data[2:])  # a comment
    assert not jpeg.is_plain(data[:2] + b"\xff\xe1\x00\x08Exif\0\0" + data[2:])
    assert not jpeg.is_plain(data[:2] + b"\xff\xe2\x00\x06MPF\0" + data[2:])
    assert jpeg.is_plain(data[:2] + b"\xff\xe2\x00\x06ICC_" + data[2:])
    for length in range(data.index(b"\xff\xda") + 1):
        assert not jpeg.is_plain(data[:length])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_fails_as_ever_at_every_length(tmp_path, decoder, progressive):
    whole = encoded(photo(16, 16), progressive=progressive)
    path = tmp_path / "a.jpg"
    for length in range(0, len(whole) - 1, 2):
        path.write_bytes(whole[:length])
        readable = outcome(by_pillow, path) is not None
        assert (outcome(load_pixels, path) is not None) == readable
        assert (outcome(lambda p: load_pixels(p, at_least=(3, 3)), path) is not None) == readable
        assert (check_image(path) is None) == readable


@settings(deadline=None, max_examples=150)
@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_damaged_jpeg_is_read_or_refused_as_pillow_does(tmp_path_factory, place, bit):
    data = bytearray(encoded(photo(32, 40)))
    data[int(place * (len(data) - 1))] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it finds in damaged headers
        expected, found = outcome(by_pillow, path), outcome(load_pixels, path)
    np.testing.assert_array_equal(found, expected)


def outcome(load, path):
    """The pixels of an image, None where there are none: of ours, InputError alone says so."""
    try:
        return load(path)
    except InputError:
        return None
    except Exception:
        if load is not by_pillow:
            raise
        return None


def test_a_bomb_is_left_to_pillow(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(photo(40, 56)))
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 40 * 56 // 2 - 1)
    with pytest.raises(InputError, match="decompression bomb"):
        load_pixels(path)


# --- resizing, and the stated bounds ---


@settings(deadline=None, max_examples=40)
@given(
    old=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 9),
)
def test_resizing_is_pillows_within_two_grey_levels(old, new, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*old, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize(new[::-1], Image.Resampling.BILINEAR)
    found = resize(pixels, new)
    assert found.flags.c_contiguous
    difference = np.abs(found.astype(int) - np.asarray(expected))
    assert difference.max() <= 2


def differences(photos, transform):
    """Mean over all photos, and the 99.9th percentile, of the difference from Pillow's decoding and resizing."""
    counts, reduced = np.zeros(256, int), 0
    height, width = transform.height_width
    for path in photos:
        with Image.open(path) as image:
            whole = image.convert("RGB")
        pixels = load_pixels(path, at_least=transform.at_least)
        reduced += pixels.shape[0] < whole.height
        expected = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR))
        counts += np.bincount(np.abs(transform.resized(pixels).astype(int) - expected).ravel(), minlength=256)
    shares = np.cumsum(counts) / counts.sum()
    return counts @ np.arange(256) / counts.sum(), int(np.searchsorted(shares, 0.999)), reduced


@pytest.mark.parametrize("size", [48, 112, 224])
def test_pixels_of_real_photos_are_within_the_stated_bounds(real, size):
    photos = sorted(real("coco_mini.zip").glob("*/*.jpg"))[::5]
    mean, most, reduced = differences(photos, EvalTransform(size))
    assert EvalTransform(size).margin == EXACT
    assert (mean < 0.05 and most <= 1 and reduced == 0) if size == 224 else (mean < 1 and most <= 25 and reduced)
    mean, most, reduced = differences(photos, TrainTransform(size, "fast"))
    assert TrainTransform(size, "fast").margin == FAST
    assert mean < 3
    assert most <= 60
    assert reduced > 0
