"""Which images an earlier run was trained on: its score of these says no more than that it has learned them."""

import os

import numpy as np

from csl.errors import InputError
from csl.inference.sources import annotations_for
from csl.labels import Annotations
from csl.labels.matching import few_names
from csl.labels.options import DataOptions
from csl.predict import Predictor
from csl.runs.folder import RunFolder


def trained_on(annotations: Annotations, run: RunFolder, predictor: Predictor) -> np.ndarray:
    """Whether each image was among the training images of a run, bool [N]: by its name or by its path.

    Raises:
        InputError: the training data of the run are not there.
    """
    if not predictor.config or not run.config.is_file():
        raise InputError(
            f"--from_runs {run.path}: no folder of a run of train.py, whose training images would be known"
        )
    train, _ = annotations_for(
        DataOptions(), "train", predictor.config, predictor.classes, predictor.groups, run.network
    )
    theirs = {*train.names, *map(os.path.abspath, train.images)}
    pairs = zip(annotations.names, annotations.images, strict=True)
    return np.array([name in theirs or os.path.abspath(path) in theirs for name, path in pairs], bool)


def held_out(annotations: Annotations, trained: np.ndarray, folders: list[str]) -> tuple[np.ndarray, str]:
    """The rows of the images that a run can be asked about, int64 [n], and a line that counts them.

    Args:
        annotations: N images.
        trained: bool [R, N], whether each run was trained on each image.
        folders: of the runs.

    Raises:
        InputError: every run was trained on every image.
    """
    rows = np.flatnonzero(~trained.all(0))
    runs = few_names(folders)
    if not len(rows):
        raise InputError(
            f"--from_runs: each of the {len(annotations):,} images was trained on by {runs}, whose scores of them say nothing; "
            "expected runs with other training images, such as --val_split 0.3 with another --seed"
        )
    left = len(annotations) - len(rows)
    more = f"; {left:,} that all of them were trained on are left out" if left else ""
    return rows, f"{len(rows):,} images are scored by those of {runs} that were not trained on them{more}"
