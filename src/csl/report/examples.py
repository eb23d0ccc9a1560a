"""The pictures of a report: known labels that the network contradicts most, and unknown ones that it is surest of."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from csl.data.images import load_pixels
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.metrics import KnownScores
from csl.metrics.ranking import in_blocks
from csl.models.heat_maps import has_heat_maps
from csl.plots.heat_maps import overlaid
from csl.plots.predictions import fitted
from csl.predict import Predictor

SHOWN = 12
"""Pictures of a kind."""

OF_A_CLASS = 2
"""Most of these of one class."""

SIDE = 176
"""Pixels of the longer side of a picture."""


@dataclass(frozen=True)
class Tile:
    """A picture on a page.

    Attributes:
        name: of the image.
        class_name: what is asked of it.
        score: in [0, 1].
        photo, heat: JPEG as data URLs; None where the photo cannot be read, or the network does not say where.
        fault: why one of them is missing, "" if none is.
    """

    name: str
    class_name: str
    score: float
    photo: str | None
    heat: str | None
    fault: str


def worst(known: KnownScores, label: int) -> list[tuple[int, int, float]]:
    """(image, class, score) of known entries with this label, 1 or 0, that the scores contradict most, the worst first."""
    of_label = np.flatnonzero(known.labels == label)
    scores = known.scores[of_label]
    order = of_label[np.argsort(scores if label else -scores, kind="stable")]
    classes = known.classes
    return _spread((int(known.images[e]), int(classes[e]), float(known.scores[e])) for e in order)


def likeliest(probabilities: np.ndarray, labels: LabelMatrix) -> list[tuple[int, int, float]]:
    """(image, class, score) of the unknown entries with the highest scores, the highest first.

    Args:
        probabilities: [N, C].
        labels: of those images.
    """
    by_class = labels.T

    def of_block(classes):
        block = probabilities[:, classes].T  # [B, N]
        block = np.where(by_class[np.arange(classes.start, classes.stop)] == -1, block, -1)
        few = min(OF_A_CLASS, block.shape[1])
        images = np.argpartition(-block, few - 1, axis=1)[:, :few]
        scores = np.take_along_axis(block, images, 1)
        return [
            (int(image), classes.start + c, float(score))
            for c in range(len(block))
            for image, score in zip(images[c], scores[c], strict=True)
            if score >= 0
        ]

    blocks = in_blocks(of_block, probabilities.shape[1]) if len(probabilities) else []
    return _spread(sorted((entry for block in blocks for entry in block), key=lambda entry: -entry[2]))


def _spread(entries: Iterable[tuple[int, int, float]]):
    """The first `SHOWN`, of each class and each image at most `OF_A_CLASS`."""
    chosen, of_class, of_image = [], {}, {}
    for image, c, score in entries:
        if of_class.get(c, 0) < OF_A_CLASS and of_image.get(image, 0) < OF_A_CLASS:
            chosen.append((image, c, score))
            of_class[c], of_image[image] = of_class.get(c, 0) + 1, of_image.get(image, 0) + 1
        if len(chosen) == SHOWN:
            break
    return chosen


def tiles(
    entries: Iterable[tuple[int, int, float]], scored: Annotations, predictor: Predictor, columns: Sequence[int]
) -> list[Tile]:
    """The pictures of (image, class, score), with where the network saw the class if it can say.

    Args:
        entries: rows and columns of `scored`.
        scored: annotations.
        predictor: the network.
        columns: [C] the network's class for each of the annotations'.
    """
    return [
        _tile(scored.select([image]), scored.classes[c], score, predictor, columns[c]) for image, c, score in entries
    ]


def _tile(one, class_name, score, predictor, column):
    path, photo, heat, fault = one.images[0], None, None, ""
    try:
        pixels = load_pixels(path, one.roots, (2 * SIDE, 2 * SIDE), predictor.background)
        photo = fitted(Image.fromarray(pixels), SIDE)
        if has_heat_maps(predictor.model):
            heat = _url(overlaid(photo, predictor.heat_maps(path, [column], one.roots)[0]))
    except InputError as error:  # of the photo, or of a network that has no map after all
        fault = str(error)
    return Tile(one.names[0], class_name, score, None if photo is None else _url(photo), heat, fault)


def _url(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
