"""Which checkpoint, which data and which folder are meant where the user does not say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csl.checkpoint import locate
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix, parse_attributes, read_annotations
from csl.labels.formats import recognised
from csl.models import zoo
from csl.predict import Predictor
from csl.run import RunFolder, find_last

DEFAULT_METADATA = "./data/COCO_2014"
"""Where `train.json` and `val.json` are looked for if the data holds no annotations: the original's default."""


def checkpoint_path(given: str | None) -> Path:
    """The checkpoint that was given; a run's folder stands for its best, nothing for the last run's best.

    The name of published weights stands for their file, which is downloaded where it is not there yet.

    Raises:
        InputError: there is none.
    """
    if given is None:
        run = find_last()
        return run.best if run.best.exists() else run.last
    path = Path(given)
    if path.is_dir():
        path = RunFolder(path).best
    if path.is_file():
        return path
    if zoo.is_published(given):
        return locate(given)
    raise InputError(
        f"--model_path {given}: no such file, expected a checkpoint, the folder of a run or {zoo.hint(given)}"
    )


def destination(given: str | None, checkpoint: Path) -> Path:
    """Where results go: what was given, else the run that the checkpoint lies in, else ./outputs."""
    if given is not None:
        return Path(given)
    return checkpoint.parent if RunFolder(checkpoint.parent).config.exists() else Path("outputs")


def read_split(
    source: Path,
    split: str,
    settings: Mapping[str, Any],
    classes: Sequence[str] | None = None,
    groups: dict | None = None,
) -> Annotations:
    """One split of the annotations at `source`.

    Args:
        source: folder or file.
        split: "train", "val" or "test".
        settings: those of `train.py --help` under "data", where there are any.
        classes, groups: for attributes, those of a training run, to read the file against.

    Raises:
        InputError: as `csl.labels.read_annotations`.
    """
    options: dict[str, Any] = {
        "images": settings.get("images"),
        "metadata": settings.get("metadata"),
        "layout": settings.get("debug_mode"),
        "ignore_columns": tuple(settings.get("ignore_columns") or ()),
        "keep_unlabelled_images": settings.get("keep_unlabelled_images", False),
        "classes_file": settings.get("classes_file"),
        "strict_labels": settings.get("strict_labels", False),
        "follow_links": settings.get("follow_links", False),
    }
    if groups:
        options |= {"classes": classes, "groups": groups}
    elif settings.get("attributes"):
        options["attributes"] = parse_attributes(settings["attributes"])
    if options["metadata"] is None and Path(DEFAULT_METADATA, f"{split}.json").is_file() and not recognised(source):
        options["metadata"] = DEFAULT_METADATA
    return read_annotations(source, split=split, **options)


def read_truth(source: Path, split: str, settings: Mapping[str, Any], annotations: Annotations) -> LabelMatrix | None:
    """All labels of `annotations`, where a `truth.csv` beside them holds what is unknown in them; else None."""
    file = Path(source) / "truth.csv"
    if not annotations.groups or not file.is_file():
        return None
    return read_split(file, split, settings, annotations.classes, annotations.groups).labels


def annotations_for(
    predictor: Predictor, data: str | None, split: str, flags: dict
) -> tuple[Annotations, LabelMatrix | None]:
    """The annotations to compare a network with, read against its classes, and all their labels where they are known.

    Args:
        predictor: the network; the settings of its run stand in for flags that are not given.
        data: folder or file; None for the run's own, else ./data.
        split: "train", "val" or "test".
        flags: those of `validate.py --help` under "data", where given.

    Raises:
        InputError: nothing to read, or as the reader says.
    """
    config = predictor.config or {}
    same_data = data is None and config.get("data")
    source = Path(data or config.get("data") or "data")
    settings = {**(config if same_data else {}), **flags}
    if data is None and not source.exists() and not recognised(source):
        raise InputError(f"no data given and {source} is not there: expected --data DIR")
    annotations = read_split(source, split, settings, predictor.classes, predictor.groups)
    return annotations, read_truth(source, split, settings, annotations)
