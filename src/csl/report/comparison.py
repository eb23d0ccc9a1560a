"""`csl compare`: two runs or more on the same validation images, and what of the difference is more than chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from csl.errors import InputError, printable
from csl.inference.options import NetworkOptions
from csl.inference.sources import annotations_for, columns_of, load_predictor
from csl.labels.options import DataOptions
from csl.metrics import KnownScores
from csl.metrics.bootstrap import spread
from csl.ranges import check_ranges
from csl.report import charts
from csl.report.classes import Column, Precision, mean_of_draws
from csl.report.command import run_with_network
from csl.report.kept import KeptScores
from csl.report.page import write_page
from csl.runs.folder import RunFolder, read_log
from csl.runs.record import settings_of

SHOWN = 10
"""Classes that gained, and that lost, in the text; the page has all."""


@dataclass(kw_only=True)
class CompareOptions(NetworkOptions, DataOptions):
    """The flags of `csl compare`.

    Attributes:
        runs: folders of two runs or more; the first is what the others are compared with.
        output: the page.
    """

    runs: Sequence[str] = ()
    output: str = "compare.html"


@dataclass(frozen=True)
class Difference:
    """What a run changes against the first.

    Attributes:
        mean: of mAP, in points of percent.
        half: half the width of its 90 % interval, from the same draws of images for both.
        by_class: float64 [C] of AP; NaN where it is not defined.
        half_by_class: float64 [C] half the width of the interval of each; NaN where too few labels are known.
    """

    mean: float
    half: float
    by_class: np.ndarray
    half_by_class: np.ndarray

    @classmethod
    def between(cls, first: Precision, other: Precision) -> "Difference":
        """Of two networks on the same known labels."""
        defined = ~np.isnan(first.ap)
        means = [mean_of_draws(precision.of_draws[defined]) for precision in (first, other)]
        mean = means[1] - means[0]
        by_class = other.of_draws - first.of_draws  # draw by draw
        half = Precision(by_class, first.positives, first.negatives).half()
        return cls(float(mean[0]), float(spread(mean[1:])) if len(mean) > 1 else float("nan"), by_class[:, 0], half)

    @property
    def beyond_chance(self) -> np.ndarray:
        """bool [C]: the classes whose interval does not hold 0."""
        return np.abs(self.by_class) > np.nan_to_num(self.half_by_class, nan=np.inf)


def compare(options: CompareOptions, say: Callable[[str], None] = print) -> Path:
    """Compare runs, print the differences and write a page; returns its path.

    Runs that kept their scores (`csl.report.kept`) need neither data nor network; others score their validation images.

    Raises:
        InputError: fewer than two runs, no run in a folder, or no label that is known to all of them.
    """
    check_ranges(vars(options))
    if len(options.runs) < 2:
        raise InputError("compare: one run, expected two or more")
    runs = [run_with_network(folder) for folder in options.runs]
    names = _names(options.runs)
    kept, notes = aligned([_scores_of(run, options, say) for run in runs], names)
    for note in notes:
        say(printable(note))
    found = [Precision.of(each.known) for each in kept]
    differences = [Difference.between(found[0], other) for other in found[1:]]
    defined = int((~np.isnan(found[0].ap)).sum())
    first = kept[0]
    head = (
        f"{len(first.images):,} images, {len(first.known):,} labels known; mean over {defined:,} of {len(first.classes):,} "
        "classes; intervals hold 90 % of draws of the images, the same for every run"
    )
    say(head)
    width = max(map(len, names))
    rows = [[name, *_of(*precision.mean()), ""] for name, precision in zip(names, found, strict=True)]
    for row, difference in zip(rows[1:], differences, strict=True):
        row[-1] = f"{difference.mean:+.2f}{_interval(difference.mean, difference.half, '+.2f')} against {names[0]}"
    for name, value, interval, text in rows:
        say(printable(f"{name:{width}}  mAP {value}{interval}  {text}").rstrip())
    for name, difference in zip(names[1:], differences, strict=True):
        for line in _of_classes(name, difference, first.classes, defined):
            say(printable(line))
    columns = [Column("class", "", "text", list(first.classes))]
    for name, precision in zip(names, found, strict=True):
        columns.append(Column(f"AP {name}", f"average precision of {name}, %", "percent", precision.ap))
    for name, difference in zip(names[1:], differences, strict=True):
        columns += [
            Column(
                f"{name} − {names[0]}", f"AP of {name} less that of {names[0]}, points", "change", difference.by_class
            ),
            Column("±", "half the width of the 90 % interval of this difference", "percent", difference.half_by_class),
        ]
    columns += [
        Column("val +", "validation images known to have the class", "count", found[0].positives),
        Column("val −", "validation images known to lack the class", "count", found[0].negatives),
    ]
    logs = {name: read_log(run.log) if run.log.exists() else [] for name, run in zip(names, runs, strict=True)}
    path = write_page(
        options.output,
        "compare.html",
        title=" against ".join([*names[1:], names[0]] if len(names) == 2 else [", ".join(names[1:]), names[0]]),
        head=head,
        rows=rows,
        notes=notes,
        settings=_settings(runs, names),
        names=names,
        chart=charts.runs(logs),
        lists=[
            (name, _of_classes(name, d, first.classes, defined)) for name, d in zip(names[1:], differences, strict=True)
        ],
        columns=columns,
    )
    say(f"side by side: {path}")
    return path


def aligned(kept: Sequence[KeptScores], names: Sequence[str]) -> tuple[list[KeptScores], list[str]]:
    """The scores of what all runs share: images by name, classes by key, entries that are known to all, with one label.

    Returns:
        The scores, all of the same entries in the same order, and a line for each thing that was left out.

    Raises:
        InputError: they share no known label.
    """
    first, notes = kept[0], []
    if any((each.images, each.keys) != (first.images, first.keys) for each in kept[1:]):
        theirs = set(first.images).intersection(*(each.images for each in kept[1:]))
        images = [name for name in first.images if name in theirs]
        theirs = set(first.keys).intersection(*(each.keys for each in kept[1:]))
        keys = [key for key in first.keys if key in theirs]
        for what, shared, attribute in (("images", images, "images"), ("classes", keys, "keys")):
            numbers = [len(getattr(each, attribute)) for each in kept]
            if any(number != len(shared) for number in numbers):
                each = ", ".join(f"{name} {number:,}" for name, number in zip(names, numbers, strict=True))
                notes.append(f"{len(shared):,} {what} are shared ({each}): the others are left out")
    else:
        images, keys = first.images, first.keys
    of_first = dict(zip(first.keys, first.classes, strict=True))
    places = [_places(each, images, keys) for each in kept]
    common = places[0][0]
    for place, _ in places[1:]:
        common = np.intersect1d(common, place, assume_unique=True)
    picked = [entries[np.searchsorted(place, common)] for place, entries in places]
    labels = np.stack([each.known.labels[entries] for each, entries in zip(kept, picked, strict=True)])  # [R, E]
    agree = (labels == labels[0]).all(0)
    if not agree.all():
        notes.append(f"{int((~agree).sum()):,} labels differ between the runs: left out")
    only = sum(len(place) for place, _ in places) - len(common) * len(kept)
    if only:
        notes.append(f"{only:,} labels are known to some of the runs alone: left out")
    common = common[agree]
    if not len(common):
        raise InputError(
            f"{', '.join(names)}: no validation label that all of them know, expected runs on the same data"
        )
    starts = np.searchsorted(common, np.arange(len(keys) + 1, dtype=np.int64) * len(images))
    rows = (common % len(images)).astype(np.int32)
    return [
        KeptScores(
            list(images), [of_first[key] for key in keys], list(keys),
            KnownScores(len(images), starts, rows, each.known.scores[entries[agree]], labels[0][agree]),
        )
        for each, entries in zip(kept, picked, strict=True)
    ], notes  # fmt: skip


def _places(each, images, keys):
    """Sorted places class * N + image of a run's known entries among the shared ones, and the entry of each."""
    row = {name: i for i, name in enumerate(images)}
    column = {key: c for c, key in enumerate(keys)}
    rows = np.array([row.get(name, -1) for name in each.images], np.int64)[each.known.images]
    columns = np.array([column.get(key, -1) for key in each.keys], np.int64)[each.known.classes]
    entries = np.flatnonzero((rows >= 0) & (columns >= 0))
    place = columns[entries] * len(images) + rows[entries]
    order = np.argsort(place, kind="stable")
    return place[order], entries[order]


def _scores_of(run: RunFolder, options, say) -> KeptScores:
    """The kept scores of a run, which are made where it has none."""
    if run.validation_scores.is_file() and options.data is None:
        return KeptScores.load(run.validation_scores)
    say(f"{run.path}: scoring its validation images")
    predictor = load_predictor(replace(options, model_path=str(run.network)), run.network, say)
    val, _ = annotations_for(options, "val", predictor.config, predictor.classes, predictor.groups, run.network)
    columns = columns_of(predictor, val, say)
    parts = predictor.stream(val.images, options.batch_size, options.workers, val.roots)
    batches = ((p.indices, p.probabilities[:, columns], val.labels[p.indices]) for p in parts if len(p.indices))
    kept = KeptScores.of(val, KnownScores.of_batches(batches, val.labels.shape))
    if options.data is None:
        kept.save(run.validation_scores)
    return kept


def _names(folders):
    """A short name for each run: the last part of its path that tells it from the others."""
    paths = [Path(folder).resolve() for folder in folders]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{folders[0]}: given twice, expected runs that differ")


def _of(value, half):
    return f"{value:.2f}", _interval(value, half, ".2f")


def _interval(value, half, form):
    return "" if np.isnan(half) else f" ({value - half:{form}} to {value + half:{form}})"


def _of_classes(name, difference, classes, defined):
    """Lines on the classes that gained and lost the most, and how many did more than the draws scatter."""
    by_class, half = difference.by_class, difference.half_by_class
    beyond = difference.beyond_chance
    lines = []
    for word, sign in (("gained", 1), ("lost", -1)):
        order = [c for c in np.argsort(-sign * np.nan_to_num(by_class), kind="stable") if sign * by_class[c] > 0][
            :SHOWN
        ]
        if order:
            each = ", ".join(f"{classes[c]} {by_class[c]:+.1f}{_interval(by_class[c], half[c], '+.1f')}" for c in order)
            lines.append(f"{name}, classes that {word} most: {each}")
    up, down = (int((beyond & (sign * by_class > 0)).sum()) for sign in (1, -1))
    judged = int((~np.isnan(half)).sum())
    lines.append(
        f"{name}: more than the draws scatter gained {up:,} and lost {down:,} classes; of {judged:,} that are judged about "
        f"{judged / 10:.0f} would by chance"
    )
    return lines


def _settings(runs, names):
    """Rows (setting, its value in each run) of the settings that differ."""
    of_runs = [settings_of(run.read_config()) for run in runs]
    keys = sorted(set().union(*of_runs) - {"path_dest", "resume"})
    rows = [(key, [settings.get(key) for settings in of_runs]) for key in keys]
    return [
        (key, ["–" if v is None else str(v) for v in values])
        for key, values in rows
        if any(v != values[0] for v in values)
    ]
