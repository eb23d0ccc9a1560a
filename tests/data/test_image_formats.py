"""The look before training and the reader agree on every format, mode and fault; other files are named as what they are."""

import io
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from csl.data.images import check_image, load_pixels, load_rgb
from csl.errors import InputError
from csl.machine.image_formats import METADATA_BYTES

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))
FORMATS = [
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "ICO",
    "PCX",
    "QOI",
    "SGI",
    "TGA",
    "MPO",
]
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"]


def saved(image, format_, **options):
    """The bytes of a file, None where the format has no such mode."""
    file = io.BytesIO()
    try:
        image.save(file, format_, **options)
    except (OSError, ValueError, KeyError):
        return None
    return file.getvalue()


def in_mode(mode):
    if mode in ("I", "F", "I;16"):
        grey = np.asarray(NOISE.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(grey.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    return NOISE.convert("LA").convert("PA") if mode == "PA" else NOISE.convert(mode)


def texts(size):
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * size, zip=True)
    info.add_itxt("c", "d" * size, zip=True)
    return {"pnginfo": info, "icc_profile": bytes(size)}


def behind_the_pixels(png):
    """The PNG with its packed texts where a program puts them that learns of them late."""
    chunks, place = [], 8
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4])
        chunks.append(png[place:end])
        place = end
    late = [chunk for chunk in chunks if chunk[4:8] in (b"zTXt", b"iTXt")]
    return png[:8] + b"".join([c for c in chunks[:-1] if c not in late and c[4:8] != b"iCCP"] + late + chunks[-1:])


def outcome(path):
    """The reader's reason, or None where it reads; the look gives the same."""
    try:
        assert load_rgb(path).mode == "RGB"
        reason = None
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
    assert check_image(path) == reason
    return reason


@pytest.mark.parametrize("format_", FORMATS)
def test_look_and_reader_agree_on_every_mode_and_length(tmp_path, format_):
    if format_ == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path, read = tmp_path / "image", 0
    for mode in MODES:
        animated = {"save_all": True, "append_images": [in_mode(mode)]} if mode == "RGB" else {}
        for content in filter(None, (saved(in_mode(mode), format_, **options) for options in ({}, animated))):
            path.write_bytes(content)
            reason = outcome(path)
            read += reason is None
            assert (reason is None) == (mode != "F" or format_ not in ("TIFF", "PPM")), (mode, reason)
            for length in np.linspace(1, len(content) - 1, 9 if mode == "RGB" else 3).astype(int):
                path.write_bytes(content[:length])
                outcome(path)
    assert read


@pytest.mark.parametrize("late", [False, True])
def test_a_png_with_much_metadata_is_read_up_to_a_bound(tmp_path, late):
    path = tmp_path / "a.png"
    content = saved(NOISE, "PNG", **texts(2 << 20))
    path.write_bytes(behind_the_pixels(content) if late else content)
    assert outcome(path) is None
    np.testing.assert_array_equal(load_pixels(path), np.asarray(NOISE))
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(METADATA_BYTES)) for _ in range(2)) + packer.flush()
    body = b"zTXta\0\0" + packed
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    whole = saved(NOISE, "PNG")
    path.write_bytes(behind_the_pixels(whole[:33] + chunk + whole[33:]) if late else whole[:33] + chunk + whole[33:])
    assert "Decompressed data too large" in outcome(path)


def test_32_bit_grey_is_16_bit_where_it_can_be_no_other(tmp_path):
    grey = np.arange(480, dtype=np.int32).reshape(24, 20)
    for name, pixels, reason in (
        ("a.tif", grey * 100, None),
        ("b.tif", grey // 2, "32-bit grey values up to 239: white may be 255 or 65535, expected 8 or 16 bits"),
        ("c.tif", grey * 0, None),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        assert outcome(tmp_path / name) == reason
        if reason is None:
            np.testing.assert_array_equal(load_pixels(tmp_path / name)[..., 1], pixels >> 8)


def test_a_jpeg_of_an_unusual_kind_is_looked_into(tmp_path):
    content = bytearray(saved(NOISE, "JPEG"))
    content[content.index(b"\xff\xc0") + 1] = 0xC7  # lossless, in differences: no decoder reads it
    (tmp_path / "a.jpg").write_bytes(content)
    assert outcome(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"), (b"%PDF-1.7", "PDF"),
        (b"<?xml version='1.0'?><!-- a --><svg xmlns=''>", "SVG"), (b"\0\0\0\x18ftypisom", "video"),
        (b"\x1a\x45\xdf\xa3", "video"), (b"RIFF\0\0\0\0AVI LIST", "video"), (b"8BPS\0\1", "Photoshop"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_named(tmp_path, beginning, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(beginning + np.random.default_rng(1).bytes(5000))
    assert outcome(path) == f"{kind}, expected a photo such as JPEG, PNG, WebP or TIFF"


def test_heic_without_its_package_is_named(tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    without = "import sys; sys.modules['pillow_heif'] = None; from csl.data.images import check_image; "
    code = without + f"print(check_image({str(path)!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.strip() == "HEIC: pip install pillow-heif, which reads it"


def test_heic_is_read_where_its_package_is(tmp_path):
    pytest.importorskip("pillow_heif")
    from csl.machine.image_formats import formats
    from csl.predict import find_images

    assert "HEIF" in formats()
    smooth = Image.radial_gradient("L").convert("RGB")
    for name in ("a.heic", "b"):
        (tmp_path / name).write_bytes(saved(smooth, "HEIF", quality=95))
        assert outcome(tmp_path / name) is None
        assert np.abs(load_pixels(tmp_path / name).astype(int) - np.asarray(smooth)).mean() < 3
    assert len(find_images(tmp_path)) == 2
    (tmp_path / "a.heic").write_bytes((tmp_path / "b").read_bytes()[:300])
    assert outcome(tmp_path / "a.heic") == "damaged, begins as HEIF does"
