"""Reading image files: every mode to RGB, and one line for what cannot be read."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from csl.data.images import JPEG_TAIL, check_image, load_rgb
from csl.errors import InputError


@pytest.fixture
def picture():
    y, x = np.mgrid[:40, :56]
    return Image.fromarray(np.stack([4 * x, 6 * y, 255 - 2 * x - 2 * y], axis=-1).astype(np.uint8))


def fails(path):
    """The reason of load_rgb's InputError, after checking that it is one line that begins with the path."""
    with pytest.raises(InputError) as caught:
        load_rgb(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def same_pixels(image, expected):
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


# --- modes ---


@pytest.mark.parametrize(
    ("mode", "formats"),
    [
        ("RGB", "png jpg webp bmp tif"),
        ("L", "png jpg pgm"),
        ("1", "png"),
        ("P", "png gif"),
        ("CMYK", "jpg tif"),
        ("YCbCr", "jpg"),
    ],
)
def test_modes_are_converted_as_pillow_does(tmp_path, picture, mode, formats):
    for extension in formats.split():
        path = tmp_path / f"a.{extension}"
        picture.convert(mode).save(path)
        with Image.open(path) as image:
            same_pixels(load_rgb(path), image.convert("RGB"))
        assert check_image(path) is None


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_not_composited(tmp_path, picture, mode):
    base = picture if mode == "RGBA" else picture.convert("L")
    image = base.copy()
    image.putalpha(Image.fromarray(np.tile(np.arange(56, dtype=np.uint8) * 4, (40, 1))))
    image.save(tmp_path / "a.png")
    same_pixels(load_rgb(tmp_path / "a.png"), base.convert("RGB"))


def test_palette_with_transparency_gives_its_colours_without_a_warning(tmp_path, picture):
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    for transparency in (3, bytes(range(0, 160, 10))):
        palette.save(tmp_path / "a.png", transparency=transparency)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same_pixels(load_rgb(tmp_path / "a.png"), palette.convert("RGB"))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, name):
    grey = np.arange(0, 65536, 32, dtype=np.uint16).reshape(32, 64)
    Image.fromarray(grey).save(tmp_path / name)
    same_pixels(load_rgb(tmp_path / name), np.repeat((grey // 256)[..., None], 3, axis=-1))


def test_16_bit_grey_of_a_pgm(tmp_path):
    grey = np.arange(0, 65536, 32, dtype=">u2").reshape(32, 64)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 32 65535\n" + grey.tobytes())
    same_pixels(load_rgb(tmp_path / "a.pgm"), np.repeat((grey // 256)[..., None], 3, axis=-1))


def test_pixels_without_a_defined_white_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    assert fails(tmp_path / "float.tif") == "floating-point pixels, expected 8 or 16 bits per channel"
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "long.tif")
    assert fails(tmp_path / "long.tif") == "grey values from 70000 to 70000, expected 0 to 65535"


def test_the_first_frame_of_an_animation(tmp_path, picture):
    first = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("P", picture.size)])
    same_pixels(load_rgb(tmp_path / "a.gif"), first.convert("RGB"))


# --- EXIF orientation ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_orientation_is_applied_once(tmp_path, picture, orientation, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    same_pixels(load_rgb(tmp_path / name), expected)
    assert expected.size == (picture.size if orientation < 5 else picture.size[::-1])


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_a_damaged_exif_block_counts_as_none(tmp_path, picture, exif):
    picture.save(tmp_path / "plain.jpg")
    picture.save(tmp_path / "a.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own "Corrupt EXIF data"
        same_pixels(load_rgb(tmp_path / "a.jpg"), load_rgb(tmp_path / "plain.jpg"))
        assert check_image(tmp_path / "a.jpg") is None


# --- what cannot be read ---


def test_missing_empty_folder_and_text(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404 Not Found</html>" * 50)
    expected = {
        tmp_path / "none.jpg": "no such file",
        tmp_path / "empty.jpg": "the file is empty",
        tmp_path: "a folder, expected an image file",
        tmp_path / "text.jpg": "not an image, or of a format that Pillow does not read",
    }
    for path, reason in expected.items():
        assert fails(path) == reason
        assert check_image(path) == reason
        assert fails(str(path)) == reason


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.02])
def test_truncated_files(tmp_path, name, part):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    options = {"progressive": True} if name.startswith("progressive") else {}
    path = tmp_path / name
    Image.fromarray(noise).save(path, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    assert fails(path)
    if name.endswith(("jpg", "png")):
        assert check_image(path)


def test_the_check_of_a_jpeg_agrees_with_its_decoding_at_every_length(tmp_path, picture):
    path = tmp_path / "a.jpg"
    picture.save(path)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert check_image(path) == fails(path), length


@pytest.mark.parametrize("trailer", [bytes(10), bytes(10 * JPEG_TAIL)])
def test_a_jpeg_with_a_trailer_is_whole(tmp_path, picture, trailer):
    path = tmp_path / "a.jpg"
    picture.save(path)
    path.write_bytes(path.read_bytes() + trailer)
    assert check_image(path) is None
    load_rgb(path)


def test_a_png_with_a_flipped_byte_fails_the_check(tmp_path, picture):
    path = tmp_path / "a.png"
    picture.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert check_image(path)
    assert fails(path)


def test_a_decompression_bomb(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    for reason in (fails(path), check_image(path)):
        assert "3600000000 pixels" in reason
        assert "decompression bomb" in reason


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
def test_no_file_stays_open(tmp_path, picture):
    picture.save(tmp_path / "a.jpg")
    picture.save(tmp_path / "a.tif")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    before = len(os.listdir("/proc/self/fd"))
    kept = [load_rgb(tmp_path / "a.jpg"), load_rgb(tmp_path / "a.tif")]
    for name in ("cut.jpg", "text.png"):
        fails(tmp_path / name)
        check_image(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before
    os.remove(tmp_path / "a.jpg")
    assert kept[0].getpixel((3, 3)) is not None
