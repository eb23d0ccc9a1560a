"""Decode JPEGs by libjpeg-turbo (the package simplejpeg), at a reduced scale where that is enough."""

import numpy as np
from PIL import Image

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow decodes, its draft mode reduces
    simplejpeg = None

SCALES = (8, 4, 2)  # of the inverse DCT; 3/8, 5/8 and their kin have no SIMD code, and take longer than the whole photo

# Headers that only Pillow reads: APP1 (EXIF and XMP, which hold the orientation) and MPF in APP2 (several pictures).
_APP1, _APP2, _SCAN = 0xE1, 0xE2, 0xDA
_USUAL = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def is_plain(data: bytes) -> bool:
    """Whether the bytes are a JPEG whose header says nothing of an orientation or of further pictures."""
    for place, marker in _segments(data):
        if marker == _SCAN:
            return True
        if marker == _APP1 or (marker == _APP2 and data[place + 4 : place + 8] == b"MPF\0"):
            return False
    return False


def is_usual(head: bytes) -> bool:
    """Whether the first bytes of a JPEG say that it is coded as decoders read it: others, such as lossless ones, may not be."""
    return any(marker in _USUAL for _, marker in _segments(head))


def _segments(data):
    """(place, marker) of each part of a JPEG's header."""
    place = 2 if data[:2] == b"\xff\xd8" else len(data)
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1] if place + 1 < len(data) else 0
        yield place, marker
        if marker == _SCAN:
            return
        place += 2 if marker in _BARE else 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4])


def scale_for(height: int, width: int, at_least: tuple[int, int] | None) -> int:
    """The largest s of 8, 4, 2, 1 at which 1/s of the photo is still `at_least` (H, W) in both directions; None for 1.

    It is what Pillow's `draft` chooses for a JPEG.
    """
    if at_least is None:
        return 1
    return next((s for s in SCALES if s * at_least[0] <= height and s * at_least[1] <= width), 1)


def decode(data: bytes, at_least: tuple[int, int] | None = None) -> np.ndarray | None:
    """Pixels of a JPEG as stored (not turned upright), uint8 [H, W, 3]; None if Pillow must read or reject it.

    It reads undamaged YCbCr files with no more pixels than Pillow takes without a warning. The pixels equal Pillow's
    (`draft`, at a reduced scale), whose decoder is the same library.

    Args:
        data: a file's bytes.
        at_least: as in `scale_for`.
    """
    if simplejpeg is None:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours != "YCbCr" or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        if min(height, width) < 8:  # the package takes the least scale of this size, which may be 3/8 in place of 1/2
            return None
        scale = scale_for(height, width, at_least)
        least = (-(-height // scale), -(-width // scale)) if scale > 1 else (0, 0)
        return simplejpeg.decode_jpeg(data, min_height=least[0], min_width=least[1])
    except ValueError:  # truncated or damaged: Pillow says what it is, or reads it all the same
        return None
