"""`validate.py`: a network measured on annotated images."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from csl.decisions import Goal, decide
from csl.errors import InputError, printable
from csl.inference.options import NetworkOptions, ValidateOptions
from csl.inference.sources import (
    annotations_for,
    checkpoint_path,
    columns_of,
    destination,
    load_predictor,
    prior_file,
)
from csl.labels import Annotations, LabelMatrix
from csl.labels.inspection import label_warnings
from csl.labels.matching import few_lines
from csl.labels.paths import SPLITS
from csl.labels.trust import escape_table
from csl.machine import distributed
from csl.machine.files import parse_json, replacing, set_aside, strict_json, write_json
from csl.metrics import (
    averaged_scores,
    class_table,
    estimated_f1,
    estimated_mean_average_precision,
    group_accuracy,
    mean_average_precision,
    precision_recall_f1,
)
from csl.predict import Predictor
from csl.predict.kept_decisions import write_decisions
from csl.predict.scoring import gather_scores
from csl.prior import read_prior
from csl.ranges import check_ranges

TABLES = ("validation.csv", "validation_attributes.csv", "validation_bad_images.csv")
"""Of all classes, all attributes, and the images that cannot be read."""


def validate(options: ValidateOptions, say: Callable[[str], None] = print) -> dict[str, float]:
    """Measure a network on a split, print the numbers and write `TABLES` and `validation.json`.

    With several processes (`csl.machine.distributed`) each scores a part of the images; rank 0 prints and writes.

    Args:
        options: as the flags of `validate.py`.
        say: prints one line.

    Returns:
        The numbers of `validation.json`, name -> percent; {} on other ranks than 0.

    Raises:
        InputError: no such checkpoint or annotations, other classes than the network's, a class of `plot_classes` that
            does not exist, or no image that can be read.
    """
    say = distributed.on_rank0(say)
    check_ranges(vars(options))
    goal = _goal(options)
    path = checkpoint_path(options.model_path, options.path_dest)
    predictor = load_predictor(options, path, say)
    classes, groups = predictor.classes, predictor.groups
    annotations, truth = annotations_for(options, options.split, predictor.config, classes, groups, path)
    for note in annotations.notes:
        say(f"{options.split}: {note}")
    file = options.prior_path or prior_file(predictor, path)
    prior = (
        None if file is None or not (options.prior_path or file.is_file()) else read_prior(file, annotations.classes)
    )
    chosen = None
    if options.plot_classes is not None:
        from csl.plots import named_classes  # matplotlib is imported only if a picture is wanted

        chosen = named_classes(options.plot_classes, annotations.classes, annotations.keys)
    result = evaluate(predictor, annotations, options.thre, options.batch_size, options.workers, say)
    if result is None:  # rank 0 has it
        return {}
    numbers = result.numbers
    if truth is not None:
        numbers["mAP_all_labels"] = mean_average_precision(result.probabilities, truth.select(result.indices))
    numbers |= _estimate(annotations, result, file, prior, say)
    if goal is not None:
        predictor.decisions = _calibrate(predictor, annotations, result, goal, prior)
        kept = write_decisions(path, predictor.decisions, options.weights_key)
        say(f"calibrated on {predictor.decisions.images:,} images, kept in {kept}")
    if predictor.decisions is not None:
        numbers |= _at_thresholds(predictor, annotations, result)
    for line in label_warnings(options.split, annotations.select(result.indices)):
        say(printable(line))
    folder = destination(options.path_dest, path)
    _print(result, options.thre, folder, say)
    if predictor.decisions is not None:
        _print_decisions(predictor.decisions, numbers, say)
    folder.mkdir(parents=True, exist_ok=True)
    weights = f"{path} ({options.weights_key})" if options.weights_key else str(path)
    of_what = {"checkpoint": weights, "data": annotations.source, "split": options.split}
    _make_room(folder, of_what | numbers, say)
    bad = pd.DataFrame({"reason": result.bad}) if result.bad else None
    for name, table in zip(TABLES, (result.classes, result.attributes, bad), strict=True):
        if table is not None:
            with replacing(folder / name) as temporary:
                escape_table(table).to_csv(temporary, index=False)
    write_json(folder / "validation.json", of_what | numbers)
    say(f"{len(result.indices):,} images of {annotations.source}; every class in {folder / TABLES[0]}")
    if options.plots or chosen:
        from csl.plots.validation import plot_validation

        made = plot_validation(
            folder / "plots", options.split, annotations, result.indices, result.probabilities,
            options.thre, truth, chosen, predictor.background,
        )  # fmt: skip
        if made:
            say(f"pictures in {folder / 'plots'}: {', '.join(picture.name for picture in made)}")
    return numbers


def _goal(options):
    """What thresholds are wanted for, None where none are to be made."""
    if options.target is not None and not options.calibrate:
        raise InputError(f"--target {options.target}: changes nothing without --calibrate, which makes the thresholds")
    if options.calibrate and options.split == "train":
        raise InputError("--calibrate --split train: the network has learned these labels, expected val or test")
    return Goal.parse(options.target or "f1") if options.calibrate else None


def _of_network(predictor, annotations, result):
    """For each class of the annotations that of the network, and labels [N, C] of the scored images in the network's order."""
    columns = columns_of(predictor, annotations, lambda line: None)
    labels = annotations.labels.select(result.indices)
    if isinstance(columns, slice):
        return np.arange(len(predictor.classes)), labels
    return np.array(columns), labels.rearranged(columns, len(columns))


def _calibrate(predictor, annotations, result, goal, prior):
    """Decisions in the network's order of classes, by a class prior [C] in that of the annotations."""
    columns, labels = _of_network(predictor, annotations.with_labels(annotations.as_collected), result)
    order = np.argsort(columns)
    prior = None if prior is None else prior[order]
    same = (order == np.arange(len(order))).all()  # then without a copy, for which memory may have no room
    return decide(
        result.probabilities if same else result.probabilities[:, order], labels, predictor.groups, goal, prior
    )


def _at_thresholds(predictor, annotations, result):
    """F1 in percent at 0.5 and at the class thresholds, and the columns of the table of classes."""
    columns, _ = _of_network(predictor, annotations, result)
    decisions, targets = predictor.decisions, annotations.labels.select(result.indices)
    for name, values in decisions.table(list(predictor.classes)).iloc[columns].items():
        if name != "class":
            result.classes[name] = values.to_numpy()
    numbers, prior = {}, np.asarray(decisions.prior)[columns]
    for name, thresholds in (
        ("at_0.5", np.full(len(columns), 0.5)),
        ("at_thresholds", decisions.raw_thresholds[columns]),
    ):
        numbers[f"macro_f1_{name}"] = precision_recall_f1(result.probabilities, targets, thresholds)["F_C"]
        if not decisions.shown.startswith("as annotated"):
            by_class = estimated_f1(result.probabilities, targets, prior, thresholds)
            numbers[f"macro_f1_{name}_estimated"] = 100 * float(np.nanmean(by_class)) if len(by_class) else math.nan
    return numbers


def _print_decisions(decisions, numbers, say):
    say(decisions.line())
    for end, of in (("", "on annotated entries"), ("_estimated", "among all images, by the estimated prior")):
        if f"macro_f1_at_0.5{end}" in numbers:
            at, own = numbers[f"macro_f1_at_0.5{end}"], numbers[f"macro_f1_at_thresholds{end}"]
            say(f"macro F1 at 0.5 {at:6.2f}, at the class thresholds {own:6.2f}   {of}")


def _estimate(annotations, result, file, prior, say):
    """The estimated mAP by a class prior [C]; {} and a line that says why, where there is none."""
    counts = annotations.labels.counts()
    off = None
    if not counts.unannotated.any():
        off = "every label is known"
    elif not counts.positives.any():
        off = "no positive is known"
    elif file is None:
        off = "the network's run has no class prior, expected --prior_path FILE"
    elif prior is None:
        off = f"{file}: no such file, where the prior of the network's run was"
    if off is not None:
        say(f"estimated mAP: off ({off})")
        return {}
    targets = annotations.labels.select(result.indices)
    found = estimated_mean_average_precision(result.probabilities, targets, prior)
    low, high, half, twice = (found[f"mAP_estimated_{end}"] for end in ("low", "high", "half_prior", "twice_prior"))
    say(
        f"estimated mAP, all labels known   {found['mAP_estimated']:6.2f} ({low:.2f} to {high:.2f} by 90 % of draws; "
        f"{half:.2f} with half the prior, {twice:.2f} with twice; prior: {file})"
    )
    return found


def _make_room(folder, content, say):
    """Move results of another checkpoint, data set or split, or with other numbers, aside; pictures of them, too."""
    tables = [folder / name for name in ("validation.json", *TABLES)]
    if not any(table.exists() for table in tables):
        return
    try:
        before = parse_json(tables[0].read_bytes(), tables[0])
    except (InputError, OSError):  # cut short or gone: nobody can tell what it was of
        before = None
    before = before if isinstance(before, dict) else {}
    content = json.loads(strict_json(content))
    if any(before.get(name) != value for name, value in content.items() if name in before or not before):
        pictures = sorted(path for split in SPLITS for path in (folder / "plots").glob(f"{split}_*.png"))
        names = [before.get(name) for name in ("checkpoint", "data")]
        what = " on ".join(names) if all(isinstance(name, str) for name in names) else "other networks or data"
        folders = [str(aside) for aside in (set_aside(tables), set_aside(pictures)) if aside is not None]
        say(f"the validation of {what} is now in {' and '.join(folders)}")


def _print(result, threshold, folder, say):
    numbers = result.numbers
    for line in few_lines([f"bad image, left out: {reason}" for reason in result.bad], str(folder / TABLES[2])):
        say(line)
    say(f"mAP on annotated entries          {numbers['mAP']:6.2f}")
    say(f"mAP with un-annotated as negative {numbers['mAP_negative']:6.2f}")
    if "mAP_all_labels" in numbers:
        say(f"mAP with all labels known         {numbers['mAP_all_labels']:6.2f}")
    say(f"at {threshold:g}:  " + "  ".join(f"{k} {numbers[k]:.2f}" for k in ("P_C", "R_C", "F_C", "P_O", "R_O", "F_O")))
    for average in ("micro", "macro", "samples"):
        values = "  ".join(f"{k} {numbers[f'{average}_{k}']:6.2f}" for k in ("precision", "recall", "f1"))
        say(f"at 0.5, {average:8}{values}")
    if result.attributes is not None:
        lines = result.attributes.round(1).to_string(index=False).split("\n")
        say("\n".join([lines[0], *few_lines(lines[1:], str(folder / TABLES[1]))]))


@dataclass(frozen=True)
class Evaluation:
    """Scores of a network on annotated images, and its numbers.

    Attributes:
        probabilities: float32 [N, C] of the images that could be read.
        indices: int64 [N], rows of the annotations.
        numbers: name -> percent.
        classes: a row for each class: AP, positives, negatives, unannotated.
        attributes: a row for each attribute, None without any.
        bad: one line for each image that cannot be read, which is left out.
    """

    probabilities: np.ndarray
    indices: np.ndarray
    numbers: dict[str, float]
    classes: pd.DataFrame
    attributes: pd.DataFrame | None
    bad: list[str]


def evaluate(
    predictor: Predictor,
    annotations: Annotations,
    threshold: float = ValidateOptions.thre,
    batch_size: int = NetworkOptions.batch_size,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Evaluation | None:
    """Score every image of `annotations` and compare the scores with its labels.

    With several processes (`csl.machine.distributed`) each scores a part of the batches. These are the batches of a single
    process, so that the numbers are equal to the last digit. Rank 0 gets the result, the others None.

    Args:
        predictor: the network; its classes may stand in another order than the annotations'.
        annotations: images and labels.
        threshold: of P_C ... F_O, in [0, 1].
        batch_size: images at a time, in each process.
        workers: processes that decode images; None for one a core.
        say: prints one line.

    Raises:
        InputError: other classes than the network's, or no image that can be read.
    """
    columns = columns_of(predictor, annotations, distributed.on_rank0(say))
    part = predictor.score(
        annotations.images, batch_size, workers, progress="validation", shared=True, roots=annotations.roots
    )
    scores = gather_scores(part)
    if scores is None:
        return None
    if not len(scores.indices):
        raise InputError(
            f"{annotations.source}: none of the {len(annotations):,} images can be read; {scores.bad[0].reason}"
        )
    probabilities = scores.probabilities[0]  # [N, C]
    if isinstance(columns, list):
        columns = np.array(columns)
        for row in probabilities:  # in place: memory may have no room for another array
            row[:] = row[columns]
    targets = annotations.labels.select(scores.indices)  # [N, C]
    return Evaluation(
        probabilities=probabilities,
        indices=scores.indices,
        numbers=metric_numbers(probabilities, targets, threshold),
        classes=class_table(probabilities, targets, annotations.classes),
        attributes=group_accuracy(probabilities, targets, annotations.groups) if annotations.groups else None,
        bad=[image.reason for image in scores.bad],
    )


def metric_numbers(probabilities: np.ndarray, targets: LabelMatrix, threshold: float) -> dict[str, float]:
    """Both mAPs, P, R, F per class and overall at `threshold`, micro, macro and samples averages at 0.5; in percent."""
    numbers = {
        "mAP": mean_average_precision(probabilities, targets),
        "mAP_negative": mean_average_precision(probabilities, targets, unannotated="negative"),
        **precision_recall_f1(probabilities, targets, threshold),
    }
    for average, values in averaged_scores(probabilities, targets, 0.5).items():
        numbers |= {f"{average}_{name}": 100 * value for name, value in values.items()}
    return numbers
