"""Defaults for the checkpoint, the data and the folder of the results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from csl.checkpoint import locate
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.labels.options import DataOptions
from csl.labels.read import recognised
from csl.models import zoo
from csl.runs.folder import RunFolder, find_latest
from csl.runs.split import read_by_split


def checkpoint_path(given: str | None) -> Path:
    """The file of a checkpoint.

    Args:
        given: a file; the folder of a run, for its best checkpoint; the name of published weights, which are downloaded
            if they are missing; or None, for the best checkpoint of the last run.

    Raises:
        InputError: no such checkpoint.
    """
    if given is None:
        run = find_latest()
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
    """The folder of results: `given`, else the folder of the checkpoint's run, else ./outputs."""
    if given is not None:
        return Path(given)
    return checkpoint.parent if RunFolder(checkpoint.parent).config.exists() else Path("outputs")


def annotations_for(
    options: DataOptions,
    split: str,
    config: Mapping[str, Any] | None,
    classes: Sequence[str] | None,
    groups: Mapping[str, range] | None,
    checkpoint: Path,
) -> tuple[Annotations, LabelMatrix | None]:
    """Read the annotations that a network is compared with, and their full labels if these are known.

    Args:
        options: what to read; without `data` the run's data, else ./data.
        split: "train", "val" or "test".
        config: the settings of the network's run, None without one; they replace options that are not given.
        classes, groups: the network's.
        checkpoint: its file; the split that its run made, beside it, is that of the data again (`csl.runs.split`).

    Raises:
        InputError: no annotations, none of their images is there, or as the reader says.
    """
    if groups and options.ignore_columns:
        raise InputError(
            "--ignore_columns: the network's own attributes are read, whatever else there is; leave it out"
        )
    file = RunFolder(checkpoint.parent).split
    if options.data is None:
        options = options.over(config) if config and config.get("data") else replace(options, data="data")
        if not Path(options.data).exists() and not recognised(options.data):
            raise InputError(f"no data given and {options.data} is not there: expected --data DIR")
        if config and config.get("val_split") and split != "test" and not file.is_file():
            raise InputError(
                f"{file}: no such file, expected the split of the run, beside its checkpoint, or --data DIR"
            )
    annotations, truth = read_by_split(options, split, classes, groups, file)
    annotations.expect_photos()
    return annotations, truth
