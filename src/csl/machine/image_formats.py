"""Which files are images: the formats that Pillow reads here, their names, and what a file that is none may be."""

import mimetypes
import os
from functools import cache
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

# Pillow reads more formats, chosen by content and not by name; some are unsafe for untrusted files (EPS runs
# Ghostscript) or have rarely used, little tested parsers. HEIF is that of the package pillow-heif.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "PCX", "QOI", "SGI", "TGA",
)  # fmt: skip

METADATA_BYTES = 64 << 20
"""Of a PNG: most of its colour profile, and of each text. Pillow's own 1 MiB refuses sound pixels of some programs."""

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = METADATA_BYTES

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"heif", b"mif1", b"msf1")
_BEGINNINGS = {
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"%PDF-": "PDF", b"%!PS": "PostScript", b"8BPS": "Photoshop",
    b"\x1a\x45\xdf\xa3": "video", b"\0\0\x01\xba": "video", b"\0\0\x01\xb3": "video", b"FLV": "video",
    b"\x30\x26\xb2\x75": "video", b"PK\x03\x04": "archive", b"\x1f\x8b": "archive",
}  # fmt: skip
_RAW = frozenset({".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf"})
"""Cameras' own files: some are TIFFs, in which Pillow finds the small preview."""
_HEAD = 1024  # bytes: an SVG's first element stands behind comments


_SYSTEM = frozenset(
    ("@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information",
     "#recycle", "#snapshot", "lost+found")
)  # fmt: skip


def is_of_system(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or one that systems, network disks and Office leave among others."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM


@cache
def formats() -> tuple[str, ...]:
    """The members of `FORMATS` that this Pillow reads."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_suffixes() -> frozenset[str]:
    """What the names of images end in, in lower case: `.jpg`. Those that lack a package here are among them."""
    read = (*formats(), "MPO")  # which Pillow opens as JPEG
    named = {suffix for suffix, name in Image.registered_extensions().items() if name in read}
    return frozenset({*named, ".avif", ".heic", ".heif"})


def is_image_name(name: str | Path) -> bool:
    """Whether a name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in image_suffixes()


def described(head: bytes) -> str | None:
    """What a file with this beginning is, where Pillow may not read it: "HEIF", "PDF", "video"; None if that is not known."""
    if head[4:8] == b"ftyp":
        if b"avif" in head[8:64] or b"avis" in head[8:64]:
            return "AVIF"
        return "HEIF" if head[8:12] in _HEIC_BRANDS else "video"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video"
    if b"<svg" in head:
        return "SVG"
    return next((name for beginning, name in _BEGINNINGS.items() if head.startswith(beginning)), None)


def kind_if_no_image(path: str | Path) -> str | None:
    """None for an image, by its name or, where that ends in nothing or nothing known, by its content; else what it is.

    The kind is the ending, ".txt", unless its content says it better, "video".
    """
    if is_image_name(path):
        return None
    suffix = os.path.splitext(path)[1].lower()
    kind = mimetypes.guess_type(os.path.basename(path))[0] or "image"
    if suffix not in _RAW and (kind.startswith("image") or kind == "application/octet-stream"):
        try:
            with open(path, "rb") as file:
                found = described(file.read(_HEAD))
            # TGA begins like anything: without its ending it is not told from other files.
            with Image.open(path, formats=[name for name in formats() if Image.OPEN[name][1] is not None]):
                return None
        except UnidentifiedImageError:
            return None if found == "HEIF" else found or suffix or "without extension"
        except Exception:  # it begins as an image does, or cannot be opened: whoever reads it says what is wrong
            return None
    return suffix
