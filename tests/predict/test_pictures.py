"""Every way from a file to pixels sees one picture: whatever the format, the EXIF orientation and the size of the file."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, features
from torch import nn

from csl.data import jpeg
from csl.data.dataset import ImageDataset
from csl.data.images import load_pixels, load_rgb
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.labels import Annotations, LabelMatrix
from csl.predict import Predictor

# Name -> (format of csl.data.images.FORMATS, options of Pillow's save, whether Pillow writes an orientation into it).
FILES = {
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}, True),
    "grey jpeg": ("JPEG", {"quality": 95}, True),
    "mpo": (
        "MPO",
        {"quality": 95, "subsampling": 0, "save_all": True, "append_images": [Image.new("RGB", (9, 9))]},
        True,
    ),
    "png": ("PNG", {}, True),
    "webp": ("WEBP", {"lossless": True}, True),
    "tiff": ("TIFF", {}, True),
    "tiff, lzw": ("TIFF", {"compression": "tiff_lzw"}, True),
    "tiff, jpeg": ("TIFF", {"compression": "jpeg", "quality": 95}, True),
    "tiff, palette": ("TIFF", {}, True),
    "avif": ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, True),
    "jpeg 2000": ("JPEG2000", {}, False),
    **{name.lower(): (name, {}, False) for name in ("GIF", "BMP", "DIB", "PPM", "PCX", "QOI", "SGI", "TGA")},
    "ico": ("ICO", {"sizes": [(48, 32)], "bitmap_format": "bmp"}, False),
}
MODES = {"grey jpeg": "L", "tiff, palette": "P", "gif": "P"}
# What is done to the stored picture to see it upright: JEITA CP-3451, tag 0x0112.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


def quarters():
    """Four flat colours, grey too: no turn of it looks like another. uint8 [32, 48, 3]."""
    pixels = np.empty((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = (250, 20, 20), (20, 250, 20)
    pixels[16:, :24], pixels[16:, 24:] = (20, 20, 250), (250, 250, 250)
    return pixels


def predictor(size):
    """Its logits are the pixels that it is given, in [0, 1]."""
    height, width = size
    return Predictor(nn.Flatten(), [str(i) for i in range(3 * height * width)], None, size, torch.device("cpu"))


def seen(probabilities, size):
    """The picture that `predictor` was given, out of its probabilities: uint8 [H, W, 3]."""
    pixels = torch.from_numpy(probabilities).double().logit().mul(255).round().to(torch.uint8)
    return pixels.view(3, *size).permute(1, 2, 0).numpy()


def ways(path, size, folder):
    """The picture of `path` at `size` as each part of the program sees it, by name."""
    network, transform = predictor(size), EvalTransform(size)
    annotations = Annotations([str(path)], LabelMatrix.from_dense(np.zeros((1, 1), np.int8)), ["a"])
    cache = open_cache(str(folder), annotations.images, transform, lambda _: None)
    cached = ImageDataset(annotations, transform, cache=cache)
    found = {
        "training": ImageDataset(annotations, TrainTransform(size, "none"), seed=0).resized(0),
        "made for the cache": cached.resized(0),
        "score": seen(network.score([str(path)], workers=0).probabilities[0, 0], size),
        "stream": seen(next(network.stream([str(path)], workers=0)).probabilities[0], size),
        "predict": seen(network.predict(path), size),
    }
    assert cache.find(0, str(path)).pixels is not None
    return found | {"cached": cached.resized(0)}


@pytest.mark.parametrize(
    ("name", "orientation"), [(name, turn) for name, file in FILES.items() for turn in (UPRIGHT if file[2] else [1])]
)
def test_every_way_sees_the_picture_upright(tmp_path, name, orientation):
    kind, options, has_orientation = FILES[name]
    if kind in ("WEBP", "AVIF", "JPEG2000") and not features.check({"JPEG2000": "jpg_2000"}.get(kind, kind.lower())):
        pytest.skip(f"this Pillow has no {kind}")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored, path = Image.fromarray(quarters()).convert(MODES.get(name, "RGB")), tmp_path / "picture"
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    stored.save(path, kind, **options, **({"exif": exif} if has_orientation else {}))
    expected = UPRIGHT[orientation](np.asarray(stored.convert("RGB")).astype(int))
    found = load_pixels(path)
    assert np.abs(found - expected).mean() < 3  # some formats are lossy; another turn is off by 50 and more
    np.testing.assert_array_equal(np.asarray(load_rgb(path)), found)
    size = expected.shape[:2]
    for way, pixels in ways(path, size, tmp_path).items():
        np.testing.assert_array_equal(pixels, found, err_msg=way)


@pytest.mark.parametrize("decoder", ["simplejpeg", "Pillow"])
@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_every_way_sees_the_same_of_a_large_photo_of_fine_detail(tmp_path, monkeypatch, decoder, orientation):
    if decoder == "Pillow":
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=95, exif=exif)
    size = (40, 64)
    found = ways(tmp_path / "a.jpg", size, tmp_path)
    for way, pixels in found.items():
        np.testing.assert_array_equal(pixels, found["training"], err_msg=way)
    whole = EvalTransform(size).resized(load_rgb(tmp_path / "a.jpg"))
    assert not np.array_equal(whole, found["training"])  # it was decoded at a part of its size
