"""The network, the data and the folder of the results, and what these are where no flag says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csl.checkpoint import locate
from csl.errors import InputError, NoSplit, printable
from csl.inference.options import NetworkOptions
from csl.labels import Annotations, LabelMatrix
from csl.labels.matching import match_classes
from csl.labels.options import DataOptions
from csl.labels.paths import TEST_AS_VAL
from csl.labels.read import recognised
from csl.machine.precision import preferred_precision
from csl.models import zoo
from csl.predict import Predictor
from csl.ranges import DEFAULT_IMAGE_SIZE
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder, latest_network
from csl.runs.split import read_by_split


def checkpoint_path(given: str | None, results: str | None = None) -> Path:
    """The file of a checkpoint.

    Args:
        given: a file; the folder of a run, for its best checkpoint; the name of published weights, which are downloaded
            if they are missing; or None, for that of the run in the folder `results`, else of the last run.
        results: the folder that results go to, None where none is given.

    Raises:
        InputError: no such checkpoint.
    """
    if given is None:
        return (results is not None and RunFolder(results).network) or latest_network()
    path = RunFolder(given).network or Path(given)
    if path.is_file():
        return path
    if zoo.is_published(given):
        return locate(given)
    raise InputError(
        f"--model_path {given}: no such file, expected a checkpoint, the folder of a run or {zoo.hint(given)}"
    )


def load_predictor(
    options: NetworkOptions,
    path: Path,
    say: Callable[[str], None],
    default_image_size: int = DEFAULT_IMAGE_SIZE,
    looks_inside: str | None = None,
) -> Predictor:
    """Load the network of the file `path`, which a line names, as the options say; others tell which of its weights were
    taken, what runs InPlace-ABN's layers, the precision that was chosen for the device, and which engine runs the network.

    Args:
        options: as above.
        path: the file.
        say: prints one line.
        default_image_size: as of `Predictor.load`.
        looks_inside: the flag or command that looks into the network, which only PyTorch lets it; None without.

    Raises:
        InputError: as `Predictor.load`.
    """
    say(f"network: {printable(str(path))}")
    engine, inside = options.engine, looks_inside if path.suffix != ".onnx" else None
    if inside is not None and engine not in ("auto", "torch"):
        raise InputError(f"--engine {engine}: {inside} looks into the network, expected torch")
    predictor = Predictor.load(
        path, options.model_name, options.num_classes, options.image_size, default_image_size,
        device=options.device, amp=options.amp, abn=options.abn, compile=options.compile, weights_key=options.weights_key,
        background=options.background, engine=engine if inside is None else "torch",
    )  # fmt: skip
    predictor.cache = options.cache
    if inside is not None:
        predictor.engine_line = f"engine: PyTorch ({inside} looks into the network)"
    dtype, why = preferred_precision(predictor.device)
    name = str(dtype or torch.float32).removeprefix("torch.")
    precision = f"precision: {name} ({why})" if predictor.amp == "auto" else None
    for line in filter(None, (predictor.origin, predictor.abn, precision, predictor.engine_line)):
        say(line)
    return predictor


def prior_file(predictor: Predictor, checkpoint: Path) -> Path | None:
    """The file of the class prior that the network's run had, None if it had none; it may not be there any more."""
    known = {field.name for field in fields(TrainConfig)}
    config = TrainConfig(**{name: value for name, value in (predictor.config or {}).items() if name in known})
    return RunFolder(checkpoint.parent).prior_file(config)


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
            Where that is missing, other data than the run's are read with a note.

    Raises:
        InputError: no annotations, none of their images is there, the run's data without its split, or as the reader says.
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
    lost = bool(config and config.get("val_split")) and split != "test" and not file.is_file()
    if lost and Path(options.data).resolve() == Path(str(config.get("data"))).resolve():
        raise InputError(f"{file}: no such file, expected the split of the run, beside its checkpoint, or other --data")
    try:
        annotations, truth = read_by_split(options, split, classes, groups, file)
    except NoSplit as error:
        raise (
            InputError(f"{error}; or {file}, the split of the run, beside its checkpoint") if lost else error
        ) from None
    annotations.expect_photos()
    if lost and TEST_AS_VAL not in annotations.notes:
        note = f"{file} is not there: photos that the network was trained on (--val_split) may be among these"
        annotations = replace(annotations, notes=(*annotations.notes, note))
    return annotations, truth


def as_trained(annotations: Annotations, run: RunFolder) -> Annotations:
    """The training split of a run that hid labels (`--simulate_partial_type`) as it learned from it: these are unknown, and
    images that it left out are not there.

    Raises:
        InputError: its file of labels cannot be read, or is of other data.
    """
    left_out = run.read_config().get("left_out") or {}
    rows = np.setdiff1d(np.arange(len(annotations)), np.array(left_out.get("train") or [], np.int64))
    labels = LabelMatrix.load(run.partial_labels)
    if labels.shape != (len(rows), len(annotations.classes)):
        raise InputError(
            f"{run.partial_labels}: {labels.shape[0]:,} images and {labels.shape[1]:,} classes, expected "
            f"{len(rows):,} and {len(annotations.classes):,}, those of {annotations.source}"
        )
    return annotations.select(rows).with_labels(labels)


def columns_of(predictor: Predictor, annotations: Annotations, say: Callable[[str], None]) -> list[int] | slice:
    """The network's column for each class of the annotations: by key if these agree, else by `match_classes`.

    Raises:
        InputError: other classes than the network's.
    """
    theirs, keys = list(predictor.classes), list(annotations.keys)
    if len(theirs) != len(keys):
        raise InputError(f"{annotations.source}: {len(keys)} classes, the network has {len(theirs)}; expected the same")
    ours = keys if sorted(keys) == sorted(theirs) else annotations.classes
    columns = match_classes(ours, theirs, annotations.source, "the network", say)
    return slice(None) if columns == list(range(len(theirs))) else columns
