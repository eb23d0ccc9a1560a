"""`infer.py`: images in; names, a CSV and a picture out."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from csl.errors import InputError
from csl.files import replacing
from csl.labels import read_class_descriptions
from csl.plots import plot_predictions, title_of
from csl.predict import Predictor, attribute_table, attribute_values, find_images, name_scores
from csl.sources import annotations_for, checkpoint_path, destination

CLASS_DESCRIPTIONS = "./data/oidv6-class-descriptions.csv"
OPEN_IMAGES = ("openimages", "openimagess")
"""Spellings of the data set, in lower case; the second is the original's default."""

SHOWN = 12
"""Images in the picture, and printed, of a run over many."""


@dataclass
class InferenceOptions:
    """The flags of `infer.py`, which explain each (`csl.cli.infer`)."""

    pic_path: str | None = None
    all_val_inference: bool = False
    data: str | None = None
    images: str | None = None
    model_path: str | None = None
    model_name: str | None = None
    num_classes: int | None = None
    image_size: int | tuple[int, int] | None = None
    dataset_type: str | None = None
    class_description_path: str | None = None
    th: float | None = None
    top_k: int = 30
    path_dest: str | None = None
    batch_size: int = 32
    workers: int | None = None
    device: str | None = None
    amp: str = "auto"


def infer(options: InferenceOptions, say: Callable[[str], None] = print) -> Path:
    """Name what is in the images; returns the folder of the results.

    Written there: `predictions.csv` (`filename,class,score`, a row for each class named, one with empty class and score where
    there is none), `predictions.png` (the first images, titled with what was predicted) and, for the validation split
    of attribute data, `attributes_val_inference.csv`.

    Raises:
        InputError: no such checkpoint or images, none that can be read, or a class file of other columns.
    """
    open_images = (options.dataset_type or "").lower() in OPEN_IMAGES
    path = checkpoint_path(options.model_path)
    predictor = Predictor.load(
        path, options.model_name, options.num_classes, options.image_size, default_image_size=224,
        device=options.device, amp=options.amp,
    )  # fmt: skip
    classes = _names(predictor, open_images, options.class_description_path, say)
    threshold = options.th if options.th is not None else 0.97 if open_images else 0.7

    annotations = None
    if options.pic_path is not None:
        images = find_images(options.pic_path, say)
    elif not predictor.config and options.data is None:
        raise InputError(
            f"--pic_path: not given, and {path} is of no run whose images could be shown; expected an image"
        )
    else:
        flags = {"images": options.images} if options.images else {}
        annotations, _ = annotations_for(predictor, options.data, "val", flags)
        if not options.all_val_inference:
            annotations = annotations.select(range(min(SHOWN, len(annotations))))
            say(f"no --pic_path: the first {len(annotations)} validation images of {annotations.source}")
        images = annotations.images
    scores = predictor.score(images, options.batch_size, options.workers, progress="images")
    for image in scores.bad:
        print(f"bad image, left out: {image.reason}", file=sys.stderr)
    if not len(scores.indices):
        raise InputError(
            f"{images[0]}: "
            + ("cannot be read" if len(images) == 1 else f"nor any other of {len(images):,} images can be read")
        )

    probabilities = scores.probabilities[0]  # [N, C]
    images = [images[i] for i in scores.indices]
    predictions = [name_scores(p, classes, predictor.groups, threshold, options.top_k) for p in probabilities]
    for image, found in zip(images[:SHOWN], predictions, strict=False):
        say(f"{image}: " + title_of(found, most=options.top_k).replace("\n", ", ").replace("  ", " "))
    if len(images) > SHOWN:
        say(f"... and {len(images) - SHOWN:,} images more")

    folder = destination(options.path_dest, path) / "results"
    _write(folder / "predictions.csv", _long_table(images, predictions))
    plot_predictions(images[:SHOWN], predictions[:SHOWN], folder / "predictions.png")
    written = ["predictions.csv", "predictions.png"]
    if options.all_val_inference and annotations is not None and annotations.table is not None and predictor.groups:
        values = attribute_values(predictor.classes, predictor.groups)
        table = annotations.table.iloc[scores.indices].reset_index(drop=True)
        _write(folder / "attributes_val_inference.csv", attribute_table(table, probabilities, predictor.groups, values))
        written.append("attributes_val_inference.csv")
    say(f"{len(images):,} images; results in {folder}: {', '.join(written)}")
    return folder


def _names(predictor, open_images, description_path, say):
    """Class names to show: display names for MIDs, which stay where there is no file of them."""
    if not open_images:
        return predictor.classes
    path = Path(description_path or CLASS_DESCRIPTIONS)
    if description_path is None and not path.exists():
        say(f"{path} is not there, so MIDs are shown: --class_description_path names the file")
        return predictor.classes
    descriptions = read_class_descriptions(path)
    return [descriptions.get(key, key) for key in predictor.classes]


def _long_table(images, predictions):
    rows = []
    for image, found in zip(images, predictions, strict=True):
        rows.extend((image, p.name, round(p.score, 6)) for p in found)
        if not found:
            rows.append((image, "", ""))
    return pd.DataFrame(rows, columns=["filename", "class", "score"])


def _write(path, table):
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
