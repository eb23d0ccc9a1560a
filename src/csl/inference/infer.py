"""`infer.py`: the classes of images, printed, in a table and in a picture."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from csl.decisions import Decisions
from csl.errors import InputError, printable
from csl.inference.options import InferenceOptions
from csl.inference.sources import annotations_for, checkpoint_path, destination, load_predictor
from csl.inference.tables import BAD, PREDICTIONS, SCORE, Results
from csl.labels import read_class_descriptions
from csl.labels.class_set import several_values
from csl.labels.trust import escape_cell, escape_table, path_cell
from csl.machine import distributed
from csl.machine.files import strict_json
from csl.models.heat_maps import has_heat_maps
from csl.plots import draw_heat_maps, draw_predictions, tried
from csl.predict import attribute_table, attribute_values, find_images, name_scores
from csl.predict.scoring import show_bar
from csl.ranges import check_ranges

CLASS_DESCRIPTIONS = "./data/oidv6-class-descriptions.csv"
OPEN_IMAGES = ("openimages", "openimagess")
"""Spellings of the data set, in lower case; the second is the original's default."""
OTHERS = ("ms-coco", "flixstock")
"""Data sets whose networks name their classes themselves, in lower case."""

SHOWN_IMAGES = 12
"""The first images of a run, which are printed and drawn."""

SHOWN_NAMES = 30
"""The first names of each of them; the table has all."""

PICTURE = "predictions.png"
HEAT_MAPS = "heatmaps.png"
SHOWN_MAPS = 5
"""The first classes of an image whose heat maps are drawn."""

ATTRIBUTES = "attributes_val_inference"
SAY_SECONDS = 60
"""Seconds between two lines of progress if there is no terminal for a bar."""


def infer(options: InferenceOptions, say: Callable[[str], None] = print) -> Path:
    """Name the classes of images; returns the folder of the results.

    The folder gets these files:
    - `predictions.csv`, or `options.output`: `filename,class,score` with a row for each named class; an image without any
      has one row with empty class and score.
    - `predictions.png`: the first images with their predictions.
    - `heatmaps.png`, with `options.heatmap`: where in these their first classes were seen.
    - `attributes_val_inference.csv`: of all validation images of attribute data, the CSV's rows with the predictions.
    - `bad_images.csv`: `filename,reason` of images that cannot be read, if there are any.

    Beside another `options.output`, NAME.csv, the other files are called NAME_predictions.png and so on.

    Rows are written as they come (`csl.inference.tables`): the same call goes on where a killed one stopped. With several
    processes (`csl.machine.distributed`) each does a part of the images.

    Args:
        options: as the flags of `infer.py`.
        say: prints one line; on rank 0 only.

    Raises:
        InputError: no such checkpoint or images, no image that can be read, or a class file of other columns.
    """
    say = distributed.on_rank0(say)
    open_images = (options.dataset_type or "").lower() in OPEN_IMAGES
    _check(options, open_images)
    path = checkpoint_path(options.model_path, options.path_dest)
    predictor = load_predictor(options, path, say, 224, "--heatmap" if options.heatmap else None)
    if options.heatmap and not has_heat_maps(predictor.model):
        raise InputError(f"--heatmap: {path} holds no network with a feature map that can be looked into: leave it out")
    _say_idle(options, open_images, predictor, say)
    classes = _names(predictor, open_images, options.class_description_path, say)
    decisions = predictor.decisions if options.th is None else None
    threshold = options.th if options.th is not None else 0.97 if open_images else 0.7
    if decisions is not None:
        say(f"{decisions.line()}; --th {threshold:g} shows scores as they are")
    elif options.th is None and not _values_alone(predictor):
        say(f"threshold: {threshold:g} of every score; validate.py --calibrate makes one for each class")

    named_by = partial(
        name_scores,
        classes=classes,
        groups=predictor.groups,
        threshold=threshold,
        top_k=options.top_k,
        decisions=decisions,
    )
    images, roots, annotations = _images(options, predictor, path, say)
    keep = _keep_attributes(options, annotations, predictor, decisions)
    output = (
        Path(options.output) if options.output else destination(options.path_dest, path) / "results" / "predictions.csv"
    )
    columns = {PREDICTIONS: ("filename", "class", SCORE), BAD: ("filename", "reason")}
    columns |= {ATTRIBUTES: keep.columns} if keep else {}
    plan = _plan(predictor, path, images, classes, threshold if decisions is None else decisions, options)
    others = [PICTURE, *([HEAT_MAPS] if options.heatmap else []), f"{ATTRIBUTES}.csv"]
    with closing(Results(output, plan, len(images), columns, others, say)) as results:
        if distributed.all_reduce_max(results.done)[0]:
            done = sum(distributed.gather_objects(results.done))
            say(f"{done:,} of {len(images):,} images were done before: going on in {results.folder}")
        shown = _Shown(results, predictor, options, roots, say)
        _score(predictor, images, roots, options, results, shown, keep, named_by)
        named = results.finish()
    if not named:
        raise InputError(
            f"{printable(str(images[0]))}: "
            + ("cannot be read" if len(images) == 1 else f"nor any other of {len(images):,} images can be read")
        )
    if named > SHOWN_IMAGES:
        say(f"... and {named - SHOWN_IMAGES:,} images more")
    paths = map(results.path, others if keep else others[:-1])
    written = [output.name, *(path.name for path in paths if path.exists())]
    if results.path(f"{BAD}.csv").exists():
        written.append(results.path(f"{BAD}.csv").name)
        say(f"{len(images) - named:,} bad images left out, named in {results.path(f'{BAD}.csv')}")
    say(f"{named:,} images; results in {output.parent}: {', '.join(written)}")
    return output.parent


def _images(options, predictor, path, say):
    """The images that are asked for, the folders that they must lie in, and their annotations, None of any photos."""
    if options.pic_path is not None:
        images = find_images(options.pic_path, say, options.follow_links)
        confine = Path(options.pic_path).is_dir() and not options.follow_links
        return images, (os.path.realpath(options.pic_path),) if confine else (), None
    if not predictor.config and options.data is None:
        raise InputError(
            f"--pic_path: not given, and {path} is of no run whose images could be shown; expected an image"
        )
    annotations, _ = annotations_for(options, "val", predictor.config, predictor.classes, predictor.groups, path)
    for note in annotations.notes:
        say(f"val: {note}")
    if not options.all_val_inference:
        annotations = annotations.select(range(min(SHOWN_IMAGES, len(annotations))))
        say(f"no --pic_path: the first {len(annotations)} validation images of {annotations.source}")
    return annotations.images, annotations.roots, annotations


def _check(options, open_images):
    """Check the flags, and that none of them changes nothing beside the others."""
    if options.dataset_type is not None and options.dataset_type.lower() not in OPEN_IMAGES + OTHERS:
        raise InputError(f"--dataset_type {options.dataset_type}: unknown, expected OpenImages, MS-COCO or flixstock")
    check_ranges(vars(options))
    for name, idle, why in (
        *(
            (n, options.pic_path is not None, "with --pic_path")
            for n in ("all_val_inference", "data", "images", "reviews")
        ),
        ("class_description_path", not open_images, "without --dataset_type OpenImages"),
        ("path_dest", options.output is not None, "with --output"),
    ):
        if idle and getattr(options, name):
            raise InputError(f"--{name} changes nothing {why}: leave it out")


def _say_idle(options, open_images, predictor, say):
    """Name the flags of old command lines that this network has no use for."""
    if options.dataset_type is not None and not open_images:
        say(f"--dataset_type {options.dataset_type}: not used, the network's file names the classes")
    if _values_alone(predictor):
        for name in ("top_k",) if predictor.decisions else ("th", "top_k"):  # --th says that none is unsure
            if getattr(options, name) != getattr(InferenceOptions, name):
                say(f"--{name}: not used, every class is a value of an attribute, of which the most likely is named")


def _values_alone(predictor):
    """Whether every class is a value of an attribute."""
    groups = several_values(predictor.groups).values()
    return sum(group.stop - group.start for group in groups) == len(predictor.classes)


def _score(predictor, images, roots, options, results, shown, keep, named_by):
    """Score the images that are left, name them by a function of their scores, and write their rows as they come."""
    first = results.images.start + results.done
    left = range(first, results.images.stop)
    if not left:
        return
    part = images[left.start : left.stop]
    progress = _Progress(len(left), shown.say)
    for scored in predictor.stream(part, options.batch_size, options.workers, roots):
        rows = {}  # image -> table -> rows
        for index, probabilities in zip(scored.indices.tolist(), scored.probabilities, strict=True):
            found = named_by(probabilities)
            rows[index] = {PREDICTIONS: _rows(part[index], found)}
            shown.add(part[index], found)
        if keep and rows:
            for index, row in zip(rows, keep.rows(first + scored.indices, scored.probabilities), strict=True):
                rows[index][ATTRIBUTES] = [row]
        for image in scored.bad:
            rows[image.index] = {BAD: [(path_cell(part[image.index]), image.reason)]}
            shown.add_bad(image)
        for index in sorted(rows):
            results.add(rows[index])
        progress.add(scored.images)
        if shown.ready:
            results.write()
    shown.draw()
    progress.close()


def _names(predictor, open_images, description_path, say):
    """Class names to show: display names instead of MIDs; MIDs if there is no file of names."""
    if not open_images:
        return predictor.classes
    path = Path(description_path or CLASS_DESCRIPTIONS)
    if description_path is None and not path.exists():
        say(f"{path} is not there, so MIDs are shown: --class_description_path names the file")
        return predictor.classes
    descriptions = read_class_descriptions(path)
    return [descriptions.get(key, key) for key in predictor.classes]


def _rows(image, found):
    name = path_cell(image)
    return [(name, escape_cell(p.name), round(p.score, 6)) for p in found] or [(name, "", "")]


def _plan(predictor, path, images, classes, threshold, options):
    """All that the rows depend on."""
    status = Path(path).stat()
    return {
        "images": _digest(map(str, images)),
        "weights": [str(path), status.st_size, status.st_mtime_ns, *filter(None, [options.weights_key])],
        "classes": _digest(classes),
        "image_size": predictor.image_size,
        "background": predictor.background,
        "device": predictor.device.type,
        "amp": predictor.amp,
        "engine": predictor.engine,
        "threshold": _digest([strict_json(threshold.to_plain())]) if isinstance(threshold, Decisions) else threshold,
        "top_k": options.top_k,
    }


def _digest(texts):
    """A hash of a sequence of texts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:32]


class _Shown:
    """Prints the first `SHOWN_IMAGES` results and draws them as one picture; `ready` tells when that is done.

    With `options.heatmap` another picture shows where their classes were seen.
    """

    def __init__(self, results, predictor, options, roots, say):
        self.say, self._results, self._predictor, self._options, self._roots = say, results, predictor, options, roots
        # The picture of a job that goes on was drawn before.
        self.ready = results.draft(PICTURE).exists() or not distributed.is_main()
        self._images, self._found, self.bad = [], [], 0

    def add(self, image, found):
        if self.ready:
            return
        names = [f"{p.name} {p.score:.2f}" for p in found[:SHOWN_NAMES]]
        names += [f"and {len(found) - SHOWN_NAMES} more"] * (len(found) > SHOWN_NAMES)
        self.say(printable(f"{image}: {', '.join(names) or 'no predictions'}"))
        self._images.append(image)
        self._found.append(found)
        if len(self._images) == SHOWN_IMAGES:
            self.draw()

    def add_bad(self, image):
        self.bad += 1
        if self.bad <= SHOWN_IMAGES:
            print(f"bad image, left out: {image.reason}", file=sys.stderr)

    def draw(self):
        if not self.ready and self._images:
            with tried(self._results.path(PICTURE)):
                page = draw_predictions(self._images, self._found, self._predictor.background)
                page.save(self._results.draft(PICTURE))
            if self._options.heatmap:
                with tried(self._results.path(HEAT_MAPS)):
                    self._draw_maps()
        self.ready = True

    def _draw_maps(self):
        predictor, found = self._predictor, []
        for image, named in zip(self._images, self._found, strict=True):
            named = named[:SHOWN_MAPS]
            maps = predictor.heat_maps(image, [p.number for p in named], self._roots) if named else []
            found.append([(f"{p.name}  {p.score:.2f}", heat) for p, heat in zip(named, maps, strict=True)])
        page = draw_heat_maps(self._images, found, self._roots, predictor.background)
        page.save(self._results.draft(HEAT_MAPS))


class _KeptAttributes:
    """Gives the rows of an attribute CSV with the predictions."""

    def __init__(self, annotations, predictor, decisions):
        self.decisions = decisions
        self.table, self.groups = annotations.table, predictor.groups
        self.values = attribute_values(predictor.classes, predictor.groups)
        nobody = np.zeros((0, len(predictor.classes)), np.float32)
        empty = attribute_table(self.table.iloc[:0], nobody, self.groups, self.values)
        self.columns = list(escape_table(empty).columns)

    def rows(self, indices, probabilities):
        table = self.table.iloc[indices].reset_index(drop=True)
        table = escape_table(attribute_table(table, probabilities, self.groups, self.values, self.decisions))
        return table.astype(object).where(table.notna(), "").itertuples(index=False, name=None)


def _keep_attributes(options, annotations, predictor, decisions):
    wanted = options.all_val_inference and annotations is not None and annotations.table is not None
    return _KeptAttributes(annotations, predictor, decisions) if wanted and predictor.groups else None


class _Progress:
    """A bar on a terminal; else a line every `SAY_SECONDS`, with the rate and the time left."""

    def __init__(self, total, say):
        self.total, self.say, self.count = total, say, 0
        self.started = self.said = time.monotonic()
        self.bar = tqdm(total=total, desc="images", unit="img", leave=False, disable=not show_bar())

    def add(self, count):
        self.count += count
        self.bar.update(count)
        now = time.monotonic()
        if not show_bar() and now - self.said >= SAY_SECONDS:
            rate = self.count / (now - self.started)
            left = tqdm.format_interval((self.total - self.count) / rate)  # of any number of hours
            self.say(f"{self.count:,} of {self.total:,} images, {rate:.1f} img/s, {left} left")
            self.said = now

    def close(self):
        self.bar.close()
