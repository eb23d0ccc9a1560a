"""Image files: read one as RGB pixels, or say in one line what is wrong with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from csl.errors import InputError

JPEG_END = b"\xff\xd9"
JPEG_TAIL = 64  # bytes: some writers pad after the marker; small, so as not to find an embedded thumbnail's

# EXIF orientation (JEITA CP-3451, tag 0x0112) -> what puts the image upright; 1 is upright already.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_rgb(path: str | Path) -> Image.Image:
    """Read the image at `path` (the first frame, where it has several) as a fully decoded RGB image.

    - Palette, CMYK, grey, bilevel: Pillow's `convert("RGB")`. Transparency is dropped, not composited: the colour
      under a transparent pixel is what is seen, as in the original.
    - 16-bit grey keeps its high byte, as Pillow does for 16-bit colour; `convert("RGB")` may clip it to white instead.
    - The EXIF orientation is applied. The original ignores it; images without the tag come out the same. An EXIF block
      that cannot be parsed counts as none.

    Raises InputError, one line with the path and the reason, for a missing, empty, truncated, damaged or non-image
    file, for a decompression bomb (over twice `PIL.Image.MAX_IMAGE_PIXELS`), and for pixels that have no defined white:
    floating point, or integers outside 0 to 65,535.
    """
    # Pillow's plugins raise whatever their parsers trip over in a damaged file (OSError, SyntaxError, struct.error,
    # zlib.error, IndexError, ...), hence the wide net here and in `check_image`.
    try:
        with _open(path) as image:
            image.load()
            orientation = _orientation(image)
            rgb = _to_rgb(image)
    except Exception as error:
        raise InputError(f"{path}: {_reason(error)}") from error
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def check_image(path: str | Path) -> str | None:
    """None if `load_rgb(path)` may be expected to work, else the reason why not, in one line without the path.

    Cheap enough to run over a whole data set before training. Found: a missing, empty or non-image file or a
    decompression bomb (from the header, every format); a truncated JPEG (no end-of-image marker at its end, then
    confirmed by decoding it); a truncated or damaged PNG (from its check sums). Damage inside the pixels of other
    formats is not looked for.
    """
    try:
        with _open(path) as image:
            if image.format == "PNG":
                image.verify()
            elif image.format in ("JPEG", "MPO") and not _has_jpeg_end(image.fp):
                image.load()
    except Exception as error:
        return _reason(error)
    return None


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    """The image with its header read; the file is closed on leaving, also where Pillow would keep it open."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise EOFError("the file is empty")
        with Image.open(file) as image:
            yield image


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, expected an image file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that Pillow does not read"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _has_jpeg_end(file) -> bool:
    """Whether a JPEG's last bytes hold the end-of-image marker, which cannot occur inside coded pixels."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - JPEG_TAIL))
    found = JPEG_END in file.read()
    file.seek(position)
    return found


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the block is damaged (the pixels may be sound)."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # "I;16", "I;16B", ...; "I", 32-bit, is also what some formats give for 16 bits
        grey = np.asarray(image)  # [H, W]
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"grey values from {grey.min()} to {grey.max()}, expected 0 to 65535")
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # else converting a palette with an alpha table warns, once per file
    return image.convert("RGB")
