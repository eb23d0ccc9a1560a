"""What a command can do without, pictures and event files: tried, and if it fails a warning in its place."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from csl.errors import in_words
from csl.plots.style import Page


@contextmanager
def tried(what: object, said: set[object] | None = None) -> Iterator[None]:
    """Run a block that makes `what`. Whatever goes wrong in it is one warning, and the caller goes on.

    A library that is missing or broken, a full disk, a folder that cannot be written, a photo that cannot be shown: none
    is worth the work of hours. An interrupt is no such fault and ends the block as any other.

    Args:
        what: the file or folder, as the warning names it.
        said: holds what was warned of before, which is not said again; None to warn each time.
    """
    try:
        yield
    except Exception as error:
        if said is None or what not in said:
            warnings.warn(f"{what}: left out ({type(error).__name__}: {in_words(error)})", stacklevel=1)
        if said is not None:
            said.add(what)


def drawn(folder: str | Path, pictures: Mapping[str, Callable[[], Page]]) -> list[Path]:
    """Write each picture, {file name: function that draws it}, into a folder; returns the files that could be written."""
    made = []
    for name, draw in pictures.items():
        with tried(Path(folder) / name):
            made.append(draw().save(Path(folder) / name))
    return made
