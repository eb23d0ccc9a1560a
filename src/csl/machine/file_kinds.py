"""What a file is by its first bytes, where somebody expected the weights of a network."""

import re
import zipfile
from pathlib import Path

_STARTS = (
    (re.compile(rb"version https://git-lfs"), "a pointer of git-lfs and not the file itself: `git lfs pull` fetches that"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<[a-z!?]", re.I), "a web page and not weights: download the file itself"),
    (re.compile(rb"\x08[\x01-\x20][\x12:B]"), "an ONNX network, which infer.py and validate.py run under a name in .onnx"),
    (re.compile(rb"\x89HDF"), "HDF5, as Keras writes it"),
    (re.compile(rb"\x1f\x8b|7z\xbc|Rar!|BZh|\xfd7zXZ"), "a compressed archive: unpack it"),
    (re.compile(rb".{257}ustar", re.S), "a .tar archive: unpack it"),
    (re.compile(rb"\x93NUMPY"), "an array of NumPy"),
)  # fmt: skip
_MEMBERS = {  # in a folder of a zip archive
    "constants.pkl": "a TorchScript archive: save torch.jit.load(FILE).state_dict() instead",
    "archive_format": "an exported program (.pt2): give the checkpoint it was made of",
    "serialized_exported_program.json": "an exported program (.pt2): give the checkpoint it was made of",
}


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and that object."""
    with open(path, "rb") as file:
        head = file.read(10)
    return head[8:] in (b'{"', b"{}", b"{ ") and int.from_bytes(head[:8], "little") < 100_000_000


def other_kind(path: Path) -> str | None:
    """What a file is that is not PyTorch's, in words that end a message; None if its first bytes do not tell."""
    with open(path, "rb") as file:
        head = file.read(1024)
    if not head:
        return "an empty file"
    if head[:4] == b"PK\3\4":
        if not zipfile.is_zipfile(path):
            return f"cut short: the archive has no end after {path.stat().st_size:,} bytes; download or copy it again"
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
        return next((words for member, words in _MEMBERS.items() if member in names), None)
    for start, words in _STARTS:
        if start.match(head):
            return words
    text = head.decode("ascii", errors="replace")
    if all(c.isprintable() or c.isspace() for c in text) and "\ufffd" not in text:
        return f"a text and not weights, it begins with {' '.join(text.split())[:60]!r}"
    return None
