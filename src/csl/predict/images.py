"""The image files that a path stands for."""

import codecs
import os
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path

from csl.errors import InputError, printable
from csl.machine.image_formats import is_of_system, kind_if_no_image

_KINDS, _NAMES = 6, 3  # that a line names of what is passed over


def find_images(path: str | Path, say: Callable[[str], None] = print, follow_links: bool = False) -> list[str]:
    """The image files that `path` stands for: itself, all in a folder and below it, or all in a list file.

    In a folder an image is known by its name or, where that ends in nothing or nothing known, by its content. Hidden files
    and those of the system are no images. What is passed over is said in one line.

    A list file has one path a line, and any extension of text (.txt, .lst, .list) or none; blank lines and lines that begin
    with # are left out, unless the latter name a file. Its paths are relative to the list or to the working folder.

    Args:
        path: of a file or folder.
        say: prints one line.
        follow_links: whether to look into linked folders, each once.

    Raises:
        InputError: no such file or folder, no image in it, or a list whose paths are there in both places.
    """
    path = Path(path)
    if path.is_dir():
        found, passed = _in_folder(path, follow_links)
        line = f"; passed over: {_counted(passed, path)}" if passed else ""
        if not found:
            raise InputError(f"{path}: no images, expected files such as .jpg or .png{line}")
        if passed:
            say(printable(f"{path}: {len(found):,} images{line}"))
        return sorted(found)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an image, a folder of images or a list file (.txt)")
    kind = kind_if_no_image(path)
    if kind in (".txt", ".lst", ".list") or (kind == "without extension" and b"\0" not in path.read_bytes()):
        return _listed(path, say)
    return [str(path)]


def _in_folder(root, follow_links):
    """The images in a folder and below it, and what is passed over: kind -> paths."""
    found, passed = [], defaultdict(list)
    seen, folders = set(), deque([os.fspath(root)])
    while folders:
        folder = folders.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            passed["folder that was seen under another name"].append(folder)
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            passed["folder that cannot be opened"].append(folder)
            continue
        for entry in entries:
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder = is_file = False
            kind = None
            if is_of_system(entry.name):
                kind = "hidden"
            elif is_folder:
                if not entry.is_symlink():
                    folders.appendleft(entry.path)
                elif follow_links:
                    folders.append(entry.path)  # after all that is no link, so that files have their own names
                else:
                    kind = "linked folder (--follow_links)"
            elif is_file:
                kind = kind_if_no_image(entry.path)
                if kind is None:
                    found.append(entry.path)
            else:
                kind = "link to nothing" if entry.is_symlink() else "no plain file"
            if kind is not None:
                passed[kind].append(entry.path)
    return found, passed


def _counted(passed, root):
    """`12 .txt (a.txt, b.txt, c.txt, ...), 1 hidden (.a.jpg)`, the most frequent first."""
    kinds = sorted(passed.items(), key=lambda kind: -len(kind[1]))
    words = []
    for kind, paths in kinds[:_KINDS]:
        names = [os.path.relpath(path, root) for path in sorted(paths)[:_NAMES]]
        words.append(f"{len(paths):,} {kind} ({', '.join(names)}{', ...' if len(paths) > _NAMES else ''})")
    if rest := sum(len(paths) for _, paths in kinds[_KINDS:]):
        words.append(f"{rest:,} of other kinds")
    return ", ".join(words)


def _listed(path, say):
    """The images of a list file."""
    try:
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig", "surrogateescape")  # a name is bytes, of any encoding
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of images ({error})") from None
    if "\0" in text:
        raise InputError(f"{path}: cannot be read as a list of images (it is no text)")
    beside, here = path.parent, Path()
    names = [line.strip().strip('"') for line in text.replace("\r", "\n").split("\n")]
    slashed = {name: name.replace("\\", "/") for name in names if "\\" in name and not _is_there(name, beside, here)}
    names = [slashed.get(name, name) for name in names]  # of a list from Windows
    named = [name for name in names if (name and not name.startswith("#")) or _is_there(name, beside, here)]
    if not named:
        raise InputError(f"{path}: an empty list, expected one image path a line")
    base, line = beside, f"{path}: {len(named):,} images listed"
    relative = [name for name in named if not os.path.isabs(name)]
    if relative and not os.path.samefile(beside, here):
        of_here = [name for name in relative if _is_there(name, here)]
        of_list = [name for name in relative if _is_there(name, beside)]
        others = [n for n in of_here if not _is_there(n, beside) or not os.path.samefile(n, beside / n)]
        if of_list and others:
            raise InputError(
                f"{path}: {others[0]!r} is in the working folder, {of_list[0]!r} beside the list; expected all paths "
                "relative to one of them, or whole ones"
            )
        base = here if others else beside
        line += f", relative to {f'the working folder {Path.cwd()}' if others else beside}"
    if left_out := sum(bool(name) for name in names) - len(named):
        line += f"; {left_out:,} lines that begin with # left out"
    say(printable(line))
    return [str(base / name) for name in named]


def _is_there(name, *folders):
    return bool(name) and any(os.path.exists(folder / name) for folder in folders)
