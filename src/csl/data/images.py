"""Read image files as RGB pixels, or say in one line what is wrong with them."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError

from csl.data import jpeg
from csl.data.shards import find_member
from csl.errors import InputError, printable
from csl.machine.image_formats import described, formats

JPEG_END = b"\xff\xd9"
JPEG_TAIL = 64  # bytes: some writers pad after the marker; small, so as not to find an embedded thumbnail's

JPEG_HEAD = 1 << 16  # bytes, in which the kind of a JPEG stands, mostly
PNG_TEXTS = frozenset({b"zTXt", b"iTXt"})  # behind the pixels they may be too large to be unpacked

# EXIF orientation (JEITA CP-3451, tag 0x0112) -> the transpose that puts the image upright; 1 is upright already.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_rgb(path: str | Path, roots: Sequence[str] = (), background: str = "none") -> Image.Image:
    """The pixels of `load_pixels`, all of them, as an RGB image."""
    return Image.fromarray(load_pixels(path, roots, background=background))


def load_pixels(
    path: str | Path, roots: Sequence[str] = (), at_least: tuple[int, int] | None = None, background: str = "none"
) -> np.ndarray:
    """Read the image at `path` (the first frame, where it has several) by the fastest decoder: RGB, uint8 [H, W, 3].

    Args:
        path: the file.
        roots: folders, links resolved, one of which the file has to lie in, wherever links on the way lead; () for anywhere.
        at_least: (H, W); a JPEG that is at least 2, 4 or 8 times as large in both directions, once upright, comes at that
            part of its size (`csl.data.jpeg.scale_for`), for a resize to follow. None for all pixels.
        background: the colour that a transparent image is laid over (`colour_of`); "none": the colour that the file has under
            a transparent pixel is what is seen, as in the original.

    - Palette, CMYK, grey, bilevel: Pillow's `convert("RGB")`.
    - 16-bit grey keeps its high byte, as Pillow does for 16-bit colour; `convert("RGB")` may clip it to white instead.
    - Of Pillow's formats those of `csl.machine.image_formats` are read, whatever the file is called; HEIC by pillow-heif.
    - The EXIF orientation is applied. The original ignores it; images without the tag come out the same. An EXIF block
      that cannot be parsed counts as none.

    Raises InputError, one line with the path and the reason, for a missing, empty, truncated, damaged or non-image
    file, a link out of the roots, for a decompression bomb (over twice `PIL.Image.MAX_IMAGE_PIXELS`), and for pixels that
    have no defined white: floating point, integers outside 0 to 65,535, or 32-bit ones of a TIFF that all fit into 8 bits.
    """
    # Pillow's plugins raise whatever their parsers trip over in a damaged file (OSError, SyntaxError, struct.error,
    # zlib.error, IndexError, ...), hence the wide net here and in `_seems_whole`.
    data = b""
    try:
        with open_image(path, roots) as file:
            data = file.read()
        if jpeg.is_plain(data) and (pixels := jpeg.decode(data, at_least)) is not None:
            return pixels
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            if image.format not in ("JPEG", "MPO"):
                at_least = None  # they come whole
            if at_least is not None and _orientation(image) >= 5:  # these lie on their side
                at_least = at_least[::-1]
            pixels = jpeg.decode(data, at_least) if image.format == "JPEG" else None
            if pixels is None:
                if at_least is not None:
                    image.draft(None, at_least[::-1])  # (width, height)
                image.load()
                pixels = np.array(_to_rgb(image, colour_of(background)))
            orientation = _orientation(
                image
            )  # only now: Pillow turns a TIFF upright, and drops the tag, as it loads it
    except Exception as error:
        raise InputError(f"{path}: {_reason(error, data)}") from error
    if orientation in UPRIGHT:
        pixels = np.array(Image.fromarray(pixels).transpose(UPRIGHT[orientation]))
    return pixels


@lru_cache
def colour_of(background: str) -> tuple[int, int, int] | None:
    """The red, green and blue, 0 to 255, of a name or code of CSS ("white", "#808080"); None for "none".

    Raises:
        InputError: no such colour.
    """
    if background == "none":
        return None
    try:
        red, green, blue = ImageColor.getrgb(background)
    except ValueError:  # unknown, or with a fourth number
        raise InputError(f"--background {background}: expected a colour such as white or #808080, or none") from None
    return red, green, blue


def check_image(path: str | Path, roots: Sequence[str] = ()) -> str | None:
    """None if `load_rgb(path, roots)` works, else the reason why not, in one line without the path.

    Cheap enough to run over a whole data set before training: a JPEG with an end-of-image marker and a PNG with the right
    check sums are whole, and not decoded. Every other file is read.
    """
    if _is_whole(path, roots):
        return None
    try:
        load_pixels(path, roots)
    except InputError as error:
        return str(error).removeprefix(printable(f"{path}: "))
    return None


def _is_whole(path, roots):
    """Whether a file is a whole JPEG or PNG, as far as can be told without decoding it."""
    try:
        with open_image(path, roots) as file, Image.open(file, formats=formats()) as image:
            if image.format == "PNG":
                file.seek(image.tile[0][2] - 8)  # as `Image.verify`, which keeps to itself what it met
                return PNG_TEXTS.isdisjoint(image.png.verify())
            if image.format in ("JPEG", "MPO") and _has_jpeg_end(file):
                file.seek(0)
                return jpeg.is_usual(file.read(JPEG_HEAD))
    except Exception:
        return False  # whoever reads it says what is wrong
    return False


@contextmanager
def open_image(path: str | Path, roots: Sequence[str] = ()) -> Iterator[io.BufferedIOBase]:
    """The bytes of an image, a file of its own or one in a tar shard (`csl.data.shards`), open for reading.

    Raises:
        InputError, OSError, EOFError: there is none, it is empty, no plain file, or outside of the roots.
    """
    if member := find_member(path):
        if roots and not _is_inside(member.tar, roots):
            raise OSError(f"{member.tar} is outside of {roots[-1]}; expected it inside, or --follow_links")
        with member.open() as file:
            yield file
        return
    if roots and not _is_inside(path, roots):
        raise OSError(
            f"leads to {os.path.realpath(path)}, outside of {roots[-1]}; expected it inside, or --follow_links"
        )
    status = os.stat(path)  # before it is opened: to open a pipe would wait for somebody to write into it
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError("a pipe or a device, expected an image file")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise EOFError("the file is empty")
        yield file


def identity(path: str | Path) -> str:
    """Size and modification time of an image file, or of its tar shard with its place there, to notice changes.

    Raises:
        InputError, OSError: there is no such image.
    """
    member = find_member(path)
    status = os.stat(member.tar if member else path)
    place = f" {member.offset} {member.size}" if member else ""
    return f"{status.st_size} {status.st_mtime_ns}{place}"


def _is_inside(path: str | Path, roots: Sequence[str]) -> bool:
    """Whether the file lies in one of these folders once all links are followed."""
    folder, name = os.path.split(path)
    real = os.path.join(_resolved(os.path.join(os.getcwd(), folder)), name)  # as the working folder may change
    if os.path.islink(real) or name in ("", "..", "."):
        real = os.path.realpath(real)
    return any(real.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> str:
    return os.path.realpath(folder)


def _reason(error: Exception, data: bytes) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, expected an image file"
    if isinstance(error, UnidentifiedImageError):
        kind = described(data[:1024])
        if kind in formats():
            return f"damaged, begins as {kind} does"
        if kind == "HEIF":
            return "HEIC: pip install pillow-heif, which reads it"
        if kind is not None:
            return f"{kind}, expected a photo such as JPEG, PNG, WebP or TIFF"
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


def _to_rgb(image: Image.Image, background: tuple[int, int, int] | None) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # "I;16", "I;16B", ...; "I", 32-bit, is also what some formats give for 16 bits
        grey = np.asarray(image)  # [H, W]
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"grey values from {grey.min()} to {grey.max()}, expected 0 to 65535")
        if image.mode == "I" and image.format == "TIFF" and 0 < grey.max() < 256:
            raise ValueError(f"32-bit grey values up to {grey.max()}: white may be 255 or 65535, expected 8 or 16 bits")
        clear = image.info.get("transparency")  # a value of 16 bits
        image = Image.fromarray((grey >> 8).astype(np.uint8))
        if clear is not None:
            image.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    if background is not None and image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image.info.pop("transparency", None)  # else converting a palette with an alpha table warns, once per file
    return image.convert("RGB")
