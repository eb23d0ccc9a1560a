"""The image files that a path stands for."""

from collections.abc import Callable
from pathlib import Path

from csl.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def find_images(path: str | Path, say: Callable[[str], None] = print) -> list[str]:
    """The image files that `path` stands for: itself, all in a folder and below it, or all in a list file (.txt).

    Paths in a list file, one a line, are relative to it.

    Raises:
        InputError: no such file or folder, or no image in it.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            raise InputError(f"{path}: no images, expected files such as .jpg or .png")
        return found
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an image, a folder of images or a list file (.txt)")
    if path.suffix.lower() in (".txt", ".lst", ".list"):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a list of images ({error})") from None
        lines = [line.strip() for line in text.splitlines()]
        found = [str(path.parent / line) for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"{path}: an empty list, expected one image path a line")
        say(f"{path}: {len(found):,} images listed")
        return found
    return [str(path)]
