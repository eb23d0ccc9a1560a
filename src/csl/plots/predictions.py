"""Pictures of images with their predictions, judged by their labels if these are known."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from csl.data.images import load_rgb
from csl.errors import InputError
from csl.labels import NEGATIVE, POSITIVE, Annotations
from csl.labels.class_set import several_values
from csl.machine.draws import generator
from csl.plots.style import BODY, DPI, INK, SMALL, SOFT, Page, styled
from csl.predict import Prediction, name_scores

KINDS = {
    "true": ("✓", "#007a59", "true"),
    "false": ("✗", "#d55e00", "false"),
    "missed": ("○", "#0072b2", "missed"),
    "unknown": ("?", "#6b6b6b", "predicted, truth unknown"),
}
"""Symbol, colour and word of each kind of label."""

_SIDE, _GAP, _ROW = 2.15, 0.3, 0.175  # of an image, between images, of a line of text: inches


@dataclass(frozen=True)
class Sheet:
    """Images of a contact sheet with their scores and labels.

    Attributes:
        images: paths, N.
        probabilities: [N, C] in [0, 1].
        targets: [N, C] in {1, 0, -1}.
        classes: C names.
        groups: for attributes, the slice of classes of each: the likeliest value is the prediction.
        threshold: in [0, 1], over which any other class is predicted.
        roots: the folders that an image must lie in, as `Annotations.roots`.
        background: the colour that transparent images are laid over, as `csl.data.images.load_pixels` takes it.
    """

    images: Sequence[str]
    probabilities: np.ndarray
    targets: np.ndarray
    classes: Sequence[str]
    groups: dict[str, slice] | None = None
    threshold: float = 0.5
    roots: tuple[str, ...] = ()
    background: str = "none"


def sheet_of(
    annotations: Annotations,
    rows: np.ndarray,
    probabilities: np.ndarray,
    threshold: float = 0.5,
    background: str = "none",
) -> Sheet:
    """The sheet of some images of annotations.

    Args:
        annotations: images and labels.
        rows: int64 [S], the images to show.
        probabilities: [S, C] of those.
        threshold, background: as in `Sheet`.
    """
    return Sheet(
        images=[annotations.images[row] for row in rows],
        probabilities=probabilities,
        targets=annotations.labels[rows],
        classes=annotations.classes,
        groups=annotations.groups,
        threshold=threshold,
        roots=annotations.roots,
        background=background,
    )


def choose_images(count: int, most: int = 24, seed: int = 0) -> np.ndarray:
    """`most` numbers of range(count), or all there are, rising; the same seed always chooses the same."""
    return np.sort(generator("photos shown", seed).choice(count, min(most, count), replace=False))


def judge(sheet: Sheet, image: int) -> list[tuple[str, int, float]]:
    """(kind, class, probability) of every label of an image that is predicted or annotated as positive.

    A predicted class is "true", "false" or "unknown" as its label is 1, 0 or -1; one with label 1 that is not predicted is
    "missed". By kind in that order, missed before unknown, then by falling probability.
    """
    probabilities, targets = sheet.probabilities[image], sheet.targets[image]
    found = name_scores(probabilities, sheet.classes, sheet.groups, sheet.threshold, top_k=len(sheet.classes))
    predicted = {prediction.number: prediction.score for prediction in found}
    kind = {POSITIVE: "true", NEGATIVE: "false"}
    judged = [(kind.get(int(targets[c]), "unknown"), c, score) for c, score in predicted.items()]
    judged += [("missed", int(c), float(probabilities[c])) for c in np.flatnonzero(targets == POSITIVE)
               if c not in predicted]  # fmt: skip
    order = list(KINDS)
    return sorted(judged, key=lambda entry: (order.index(entry[0]), -entry[2], entry[1]))


@styled()
def draw_contact_sheet(sheet: Sheet, title: str = "Predictions", columns: int = 6, lines: int = 8) -> Page:
    """Images with their true, false, missed and unknown labels told apart by symbol and colour.

    Args:
        sheet: the images. One that cannot be read becomes an empty tile that says so.
        title: of the picture.
        columns: images in a row, 1 or more.
        lines: labels under an image, 2 or more; the last line counts those left over.
    """
    judged = [judge(sheet, i) for i in range(len(sheet.images))]
    totals = Counter(kind for labels in judged for kind, _, _ in labels)
    texts = []
    for labels in judged:
        shown, rest = _shown(labels, lines)
        text = [(*KINDS[kind][:2], sheet.classes[c], f"{score:.2f}") for kind, c, score in labels if (kind, c) in shown]
        if rest:
            counted = "  ".join(f"{rest[kind]} {KINDS[kind][0]}" for kind in KINDS if rest[kind])
            text.append(("", SOFT, f"and {counted} more", ""))
        texts.append(text or [("", SOFT, "nothing predicted, nothing annotated", "")])

    rule = f"predicted: scores over {sheet.threshold:g}"
    if several_values(sheet.groups):
        rule = f"predicted: of each attribute the likeliest value, of other classes scores over {sheet.threshold:g}"
    legend = [(symbol, colour, f"{word} ({totals[kind]:,})") for kind, (symbol, colour, word) in KINDS.items()]
    return _draw_tiles(sheet.images, texts, title, rule, legend, columns, sheet.roots, sheet.background)


@styled()
def draw_predictions(
    images: Sequence[str], predictions: Sequence[Sequence[Prediction]], background: str = "none"
) -> Page:
    """Images with the classes predicted for each and their probabilities.

    Args:
        images: paths, N.
        predictions: of each image.
        background: as in `Sheet`.
    """
    texts = []
    for found in predictions:
        text = [("", INK, p.name, f"{p.score:.2f}") for p in found[:6]]
        if len(found) > len(text):
            text.append(("", SOFT, f"and {len(found) - len(text)} more", ""))
        texts.append(text or [("", SOFT, "no predictions", "")])
    return _draw_tiles(images, texts, None, "", [], 4, background=background)


def _shown(labels, lines):
    """The (kind, class) of at most `lines` labels, each kind in turn, and how many of each kind are left over."""
    if len(labels) <= lines:
        return {(kind, c) for kind, c, _ in labels}, Counter()
    queues = {kind: [c for k, c, _ in labels if k == kind] for kind in KINDS}
    shown = set()
    while len(shown) < lines - 1:
        for kind, queue in queues.items():
            if queue and len(shown) < lines - 1:
                shown.add((kind, queue.pop(0)))
    return shown, Counter({kind: len(queue) for kind, queue in queues.items()})


def _draw_tiles(images, texts, title, rule, legend, columns, roots=(), background="none"):
    """A page of images, each with its file's name and lines (symbol, colour, text, number) under it."""
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    heights = [
        _SIDE + 0.26 + _ROW * max(map(len, texts[row * columns : (row + 1) * columns])) + _GAP for row in range(rows)
    ]
    top = 0.3 if title is None else 1.25
    tops = top + np.cumsum([0.0, *heights])
    least = 7.6 if title is not None else 0.0  # inches that the legend takes
    page = Page(max(2 * 0.3 + columns * (_SIDE + _GAP) - _GAP, least), max(tops[-1], 1.5))
    if title is not None:
        page.title(title, [rule] if rule else [])
        page.legend(0.3, 0.8, legend)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        left, y = 0.3 + i % columns * (_SIDE + _GAP), tops[i // columns]
        _draw_image(page, left, y, image, roots, background)
        page.text(left, y + _SIDE + 0.05, page.fit(Path(image).name, _SIDE, SMALL - 1), SMALL - 1, color=SOFT)
        for row, (symbol, colour, words, number) in enumerate(text):
            at = y + _SIDE + 0.36 + _ROW * row
            indent = 0.18 if symbol else 0.0
            room = _SIDE - indent - (0.36 if number else 0.0)
            page.text(left, at, symbol, BODY, color=colour, weight="bold", va="baseline")
            page.text(left + indent, at, page.fit(words, room, SMALL), SMALL, color=colour, va="baseline")
            page.text(left + _SIDE, at, number, SMALL, color=colour, ha="right", va="baseline")
    return page


def _draw_image(page, left, top, path, roots, background):
    page.box(left, top, _SIDE, _SIDE, "#f3f3f3")
    try:
        image = load_rgb(path, roots, background)
    except InputError:
        page.text(left + _SIDE / 2, top + _SIDE / 2, "cannot be read", SMALL, ha="center", va="center", color=SOFT)
        return
    image = fitted(image, round(_SIDE * DPI))
    width, height = (length / DPI for length in image.size)
    page.image(left + (_SIDE - width) / 2, top + (_SIDE - height) / 2, np.asarray(image))


def fitted(image: Image.Image, side: int) -> Image.Image:
    """An image whose longer side is `side` pixels, its aspect ratio kept."""
    longest = max(image.size)
    size = tuple(max(1, round(side * length / longest)) for length in image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
