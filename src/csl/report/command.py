"""`csl report`: the page of a run that is there already."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csl.errors import InputError, printable
from csl.inference.options import NetworkOptions
from csl.inference.sources import annotations_for, as_trained, columns_of, load_predictor
from csl.inference.validate import evaluate
from csl.labels.options import DataOptions
from csl.predict import Predictor
from csl.ranges import check_ranges
from csl.report.kept import KeptScores
from csl.report.write import write_report
from csl.runs.folder import RunFolder


@dataclass(kw_only=True)
class ReportOptions(NetworkOptions, DataOptions):
    """The flags of `csl report`.

    Attributes:
        run: the folder of a run.
    """

    run: str = "outputs"


def report_on(options: ReportOptions, say: Callable[[str], None] = print) -> Path:
    """Score the validation images of a run and write its `report.html`; returns the path of the page.

    Where the data are gone, the page has what the folder of the run holds, and says what is missing.

    Raises:
        InputError: no run, or one without a network.
    """
    check_ranges(vars(options))
    run = run_with_network(options.run)
    predictor = load_predictor(options, run.network, say, looks_inside="csl report")
    notes, kept, scored, probabilities, columns = [], None, None, None, None
    try:
        val, _ = _read(options, "val", predictor, run)
        result = evaluate(predictor, val, batch_size=options.batch_size, workers=options.workers, say=say)
        scored, probabilities = val.select(result.indices), result.probabilities
        columns = np.arange(len(val.classes))[columns_of(predictor, val, lambda _: None)].tolist()
        notes += [f"bad image, left out: {reason}" for reason in result.bad[:5]]
    except InputError as error:
        notes.append(f"validation images: not scored ({error})")
        if run.validation_scores.is_file():
            kept = KeptScores.load(run.validation_scores)
            notes.append("the scores are those that the run kept of its known validation labels")
    try:
        train, _ = _read(options, "train", predictor, run)
        train = as_trained(train, run) if run.partial_labels.is_file() else train
    except InputError as error:
        train = None
        notes.append(f"training labels: not counted ({error})")
    for note in notes:
        say(printable(note))
    path = write_report(run, train, scored, probabilities, predictor, columns, kept, notes)
    say(f"report: {path}")
    return path


def run_with_network(folder: str) -> RunFolder:
    """The run in a folder.

    Raises:
        InputError: there is none, or it has no network yet.
    """
    run = RunFolder(folder)
    if not run.config.is_file():
        raise InputError(f"{folder}: no {run.config.name} in it, expected the folder of a run of train.py")
    if run.network is None:
        raise InputError(f"{folder}: holds no checkpoint yet, expected a run that has ended an epoch")
    return run


def _read(options, split, predictor: Predictor, run):
    return annotations_for(options, split, predictor.config, predictor.classes, predictor.groups, run.network)
