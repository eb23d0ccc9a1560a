"""`report.html` of a run: what was trained on what, how good each class is, and where the network is wrong."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels import Annotations
from csl.labels.matrix import ClassCounts
from csl.machine.files import parse_json
from csl.metrics import KnownScores, estimated_average_precision
from csl.predict import Predictor
from csl.prior import read_prior
from csl.report import charts, classes, examples
from csl.report.classes import Column
from csl.report.kept import KeptScores
from csl.report.page import write_page
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder, read_log
from csl.runs.record import command, settings_of

_SETTINGS = (
    "model_name",
    "head",
    "image_size",
    "loss",
    "partial_loss_mode",
    "epochs",
    "batch_size",
    "lr",
    "augment",
    "seed",
)
"""Of a run, which its page shows; the command has all."""


def write_report(
    run: RunFolder,
    train: Annotations | None,
    scored: Annotations | None,
    probabilities: np.ndarray | None = None,
    predictor: Predictor | None = None,
    columns: Sequence[int] | None = None,
    kept: KeptScores | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html` of a run, and keep the scores of its known validation entries for `csl compare`.

    What is not given is left out of the page.

    Args:
        run: its folder.
        train: images and labels that it was trained on.
        scored: the N validation images that could be read, and their labels.
        probabilities: [N, C] of these.
        predictor: the network of `best.ckpt`, for heat maps and thresholds.
        columns: [C] the network's class for each of the annotations'; None for the same order.
        kept: scores of the known entries, where `scored` and `probabilities` are not at hand.
        notes: lines for the reader.

    Returns:
        The path of the page.
    """
    config, notes = run.read_config(), list(notes)
    settings = settings_of(config)
    if scored is not None and probabilities is not None:
        kept = KeptScores.of(scored, KnownScores.of(probabilities, scored.labels))
        kept.save(run.validation_scores)
    if kept is not None and train is not None and list(train.classes) != kept.classes:
        notes.append(f"training labels: not counted ({train.source} has other classes than the run)")
        train = None
    known = kept.known if kept is not None else None
    if known is not None and not len(known):
        notes.append("no validation label is known: no class can be measured")
        known = None
    precision = None if known is None else classes.Precision.of(known)
    bins = None if known is None else classes.reliability_bins(known)
    decisions, calibrated = None if predictor is None else predictor.decisions, None
    named, made = scored if scored is not None else train, []
    if (names := kept.classes if kept is not None else train.classes if train is not None else None) is not None:
        prior, estimated = _prior(run, settings, names, notes), None
        if prior is not None and probabilities is not None and scored.labels.counts().unannotated.any():
            estimated = estimated_average_precision(probabilities, scored.labels, prior)
        made = classes.columns(
            names,
            named.groups if named is not None else None,
            len(kept.images) if kept is not None else 0,
            precision,
            bins,
            None if train is None else train.labels.counts(),
            prior,
            estimated,
            None if probabilities is None or not len(probabilities) else probabilities.mean(0, dtype=np.float64),
        )
        order = list(range(len(names)) if columns is None else columns)
        if (after := _calibrated(known, decisions, order)) is not None:
            of_classes = classes.reliability_bins(after)
            error, calibrated = 100 * classes.calibration_error(of_classes), of_classes.sum(0)
            text = "the same of calibrated probabilities, %, on the labels that they were calibrated on"
            made.append(Column("calibrated", text, "percent", error))
        made += [] if decisions is None else _thresholds(decisions, order)
    if precision is not None:
        notes += _undefined(precision)
    return write_page(
        run.report,
        "report.html",
        title=f"Run {run.path.resolve().name}",
        numbers=_numbers(run, precision),
        labels=[
            _labels(name, part) for name, part in (("training", train), ("validation", scored)) if part is not None
        ],
        settings=[(name, _shown(settings[name])) for name in _SETTINGS if settings.get(name) is not None],
        source=train.source if train is not None else settings.get("data"),
        notes=notes,
        charts=charts.training(read_log(run.log) if run.log.exists() else []),
        reliability=None if bins is None else charts.reliability(bins.sum(0), calibrated),
        decided=None if decisions is None else decisions.line(),
        error=None if bins is None else 100 * float(classes.calibration_error(bins.sum(0))),
        columns=made,
        curves=None if known is None else classes.curves(known),
        diagrams=None if bins is None else classes.diagrams(bins),
        galleries=_galleries(scored, probabilities, known, predictor, columns),
        command=_command(settings, config),
        versions=config.get("versions") or {},
        revision=config.get("revision"),
    )


def _numbers(run, precision):
    """(number, value, what it says) of the top of the page."""
    results = run.path / "results.json"
    results = parse_json(results.read_bytes(), results) if results.exists() else {}
    found = []
    if precision is not None:
        middle, half = precision.mean()
        defined = int((~np.isnan(precision.ap)).sum())
        found.append(
            (
                "mAP on annotated entries",
                _percent(middle),
                ""
                if math.isnan(half)
                else f"{max(middle - half, 0):.1f} to {min(middle + half, 100):.1f} by 90 % of draws; "
                f"mean over {defined:,} of {len(precision.ap):,} classes",
            )
        )
    if isinstance(estimate := results.get("estimate"), dict):
        low, high = (_percent(estimate.get(f"mAP_estimated_{end}")) for end in ("low", "high"))
        text = f"{low} to {high} by 90 % of draws; by the class prior of the run"
        found.append(("mAP estimated as if all labels were known", _percent(estimate.get("mAP_estimated")), text))
    if "mAP_all_labels" in results:
        found.append(
            ("mAP with all labels known", _percent(results["mAP_all_labels"]), "labels that training did not see")
        )
    best = results.get("best")
    if isinstance(best, dict) and best.get("mAP_negative") is not None:
        text = "the original's number: what nobody knows counts as absent"
        found.append(("mAP with un-annotated as negative", _percent(best["mAP_negative"]), text))
    return found


def _percent(value):
    return f"{value:.1f}" if isinstance(value, int | float) and math.isfinite(value) else "undefined"


def _undefined(precision):
    """Lines on the classes that cannot be measured, and why."""
    lines = []
    for missing, there, what in (
        (precision.positives == 0, precision.negatives > 0, "no known positive"),
        (precision.negatives == 0, precision.positives > 0, "no known negative"),
        (precision.positives == 0, precision.negatives == 0, "no known label"),
    ):
        if count := int((missing & there).sum()):
            lines.append(f"{count:,} of {len(missing):,} classes have {what} in validation: no average precision")
    if precision.of_draws.shape[1] == 1:
        lines.append("no intervals: so many known labels that drawing them again would take long")
    return lines


def _labels(name, annotations):
    """A row of the table of labels: images, and numbers and shares of positives, negatives and unknown."""
    counts: ClassCounts = annotations.labels.counts()
    numbers = [int(count.sum()) for count in counts]
    total = max(sum(numbers), 1)
    return name, len(annotations), [(number, 100 * number / total) for number in numbers]


def _shown(value):
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _prior(run, settings, names, notes):
    """[C] the class prior that the run trained with, None without one."""
    config = TrainConfig(**settings)
    file = run.prior_file(config)
    if file is None or (config.probe and not file.exists()):  # without a known negative there is none
        return None
    try:
        return read_prior(file, names).numpy()
    except InputError as error:
        notes.append(f"no class prior: {error}")
        return None


_DECIDED = {
    "threshold": ("threshold", "calibrated probability over which infer.py names the class", "number"),
    "reached": ("reaches", "what the threshold is estimated to reach of its goal", "number"),
    "low": ("reaches from", "lower end of its interval", "number"),
    "high": ("reaches to", "upper end of its interval", "number"),
    "basis": (
        "rests on",
        "own: known labels of its own; few: few of them; common: the threshold of all classes",
        "text",
    ),
}
"""What is decided of each class (`csl.decisions.decisions.Rows`), and how a table calls it."""


def _thresholds(decisions, columns):
    """Columns of the thresholds; columns: [C] the network's class for each row."""
    return [
        Column(title, help_, kind, values[columns] if kind == "number" else values[columns].tolist())
        for key, (title, help_, kind) in _DECIDED.items()
        for values in [np.array(getattr(decisions.classes, key))]
    ]


def _calibrated(known, decisions, columns):
    """The known scores as calibrated probabilities; None without, or where these are not of the images that are known."""
    if known is None or decisions is None or not decisions.shown.startswith("as annotated"):
        return None
    of_entries = np.array(columns)[known.classes]
    return replace(known, scores=decisions.classes.calibrated(known.scores, of_entries).astype(np.float32))


def _galleries(scored, probabilities, known, predictor, columns):
    """(title, explanation, pictures) of mistakes and of missing labels."""
    if scored is None or predictor is None or known is None:
        return []
    columns = range(len(scored.classes)) if columns is None else columns
    kinds = [
        ("Seen, though the label says no", "known negatives with the highest scores", examples.worst(known, 0)),
        ("Not seen, though the label says yes", "known positives with the lowest scores", examples.worst(known, 1)),
    ]
    if probabilities is not None:
        missing = examples.likeliest(probabilities, scored.labels)
        kinds.append(("Most likely missing labels", "what nobody knows, with the highest scores", missing))
    return [(title, text, examples.tiles(found, scored, predictor, columns)) for title, text, found in kinds if found]


def _command(settings, config):
    launch = config.get("launch")
    try:
        return command(settings, launch if isinstance(launch, dict) else None)
    except InputError:
        return None
