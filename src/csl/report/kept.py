"""The scores of a run's known validation entries, kept in its folder: two runs are compared without their networks or photos.

Only entries that somebody annotated count in a comparison. Of the 125,436 x 9,605 entries of OpenImages these are a few
million, where a matrix would have 4.8 GB.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels import Annotations
from csl.machine.files import replacing
from csl.metrics import KnownScores

MOST_ENTRIES = 20_000_000
"""Of a file, 9 bytes each: labels that are complete on many images are scored again when they are wanted."""


@dataclass(frozen=True)
class KeptScores:
    """What a run scored on its validation split.

    Attributes:
        images: names of the N images, relative to their folder.
        classes: names of the C classes.
        keys: identifiers of the classes.
        known: scores of the known entries.
    """

    images: list[str]
    classes: list[str]
    keys: list[str]
    known: KnownScores

    @classmethod
    def of(cls, scored: Annotations, known: KnownScores) -> "KeptScores":
        """The scores `known` of annotations, whose images were all scored."""
        return cls(scored.names, list(scored.classes), list(scored.keys), known)

    def save(self, path: str | Path) -> bool:
        """Write an .npz file, whole or not at all; returns whether there is one: not of more than `MOST_ENTRIES`."""
        if len(self.known) > MOST_ENTRIES:
            Path(path).unlink(missing_ok=True)  # of other scores
            return False
        texts = {name: _packed(getattr(self, name)) for name in ("images", "classes", "keys")}
        known = self.known
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file, starts=known.starts, rows=known.images, scores=known.scores, labels=known.labels, **texts
            )
        return True

    @classmethod
    def load(cls, path: str | Path) -> "KeptScores":
        """Read a file of `save`; nothing in it is executed.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                texts = [_unpacked(arrays[name]) for name in ("images", "classes", "keys")]
                known = KnownScores(len(texts[0]), *(arrays[name] for name in ("starts", "rows", "scores", "labels")))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file, expected the validation scores of a run") from None
        except Exception as error:  # a broken zip or array fails in ways that NumPy does not list
            raise InputError(f"{path}: not the validation scores of a run ({error})") from None
        entries, starts = len(known.labels), known.starts
        sound = len(texts[1]) == len(texts[2]) == known.num_classes and starts[0] == 0 and starts[-1] == entries
        sound = sound and (np.diff(starts) >= 0).all() and len(known.images) == len(known.scores) == entries
        if not sound or (entries and not 0 <= known.images.min() <= known.images.max() < known.num_images):
            raise InputError(f"{path}: arrays that do not fit together, expected the validation scores of a run")
        return cls(*texts, known)


def _packed(texts):
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def _unpacked(array):
    text = array.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []
