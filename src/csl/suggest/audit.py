"""A random sample of unknown entries to ask about, and what the answers say of the network (`csl.metrics.sampled`).

The first time, `csl suggest RUN --for audit` scores the images, once, draws the questions and keeps, beside them, how many
entries had which score: all that the answers are held against. From then on it scores nothing: it takes the answers from the
file of reviews and prints what they say.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from csl.errors import InputError
from csl.inference.sources import prior_file
from csl.labels.reviews import NO, UNSURE, YES, classes_of, data_folder, find_reviews, newest, read_reviews, rows_of
from csl.machine.draws import generator
from csl.machine.files import replacing, write_json
from csl.metrics.sampled import BINS, EDGES, ScoreCounts, draw, estimate, shares, threshold_for
from csl.prior import read_prior, write_prior
from csl.suggest.best import ranks
from csl.suggest.material import Material
from csl.suggest.output import attribute_of

KEPT, NUMBERS, PRIOR = "audit.npz", "audit.json", "prior_audited.csv"
"""In the folder of the run, beside the questions: the sample and the counts of scores; the numbers; the corrected prior."""

ROOM = 1 << 22
"""Entries that a reservoir holds at most, unless two of each class and bin are more."""

_SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)  # thresholds whose numbers are printed
_TARGET = 0.9  # precision


class Reservoir:
    """Unknown entries at random, at most `most` of each class and bin of scores, of images that come by once.

    Each entry gets a random key, and a cell keeps the least: a simple random sample of it, whatever the number of images.

    Args:
        num_classes: C.
        most: entries of a cell.
        rng: of the keys, which do not depend on how the images are divided into blocks.
    """

    def __init__(self, num_classes: int, most: int, rng: np.random.Generator):
        self.counts = ScoreCounts.empty(num_classes)
        self.most = most
        self._rng = rng
        self._limit = np.ones(num_classes * BINS)  # of keys, by cell: what is not below is not kept
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._waiting = 0

    def add(self, rows: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
        """Take in a block of images: rows int64 [B], scores float [B, C] in [0, 1], labels [B, C] in {1, 0, -1}."""
        cells = np.arange(scores.shape[1]) * BINS + self.counts.add(scores, labels)  # [B, C]
        keys = self._rng.random(scores.shape)
        images, classes = np.nonzero((labels == -1) & (keys < self._limit[cells]))
        self._parts.append((cells[images, classes], keys[images, classes], rows[images], scores[images, classes]))
        self._waiting += len(images)
        if self._waiting > ROOM:
            self._shrink()

    def take(self, classes: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows, int64 [n], and scores [n] of an entry for each class and bin [n]; of one cell never the same twice."""
        self._shrink()
        cells, _, rows, scores = self._parts[0]
        wanted = classes * BINS + bins
        chosen = np.searchsorted(cells, wanted) + ranks(wanted)
        return rows[chosen], scores[chosen]

    def _shrink(self):
        cells, keys, rows, scores = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.lexsort((keys, cells))
        rank = ranks(cells[order])
        last = order[rank == self.most - 1]
        self._limit[cells[last]] = keys[last]
        kept = order[rank < self.most]
        self._parts, self._waiting = [(cells[kept], keys[kept], rows[kept], scores[kept])], 0


def suggest(material: Material) -> pd.DataFrame:
    """Draw the questions: columns image, class, score, stratum (a range of scores) and probability (that it is drawn).

    Raises:
        InputError: no image can be read, or nothing is unknown.
    """
    options, num_classes = material.options, len(material.annotations.classes)
    most = min(max(ROOM // (num_classes * BINS), 2), options.top)
    reservoir = Reservoir(num_classes, most, generator("audit", options.seed, 0))
    for seen in material.batches(progress="scoring"):
        reservoir.add(seen.rows, torch.sigmoid(seen.logits).numpy(), seen.known.numpy())
    counts = reservoir.counts
    there = int(np.minimum(counts.unknown, most).sum())
    if not there:
        raise InputError(
            f"{material.annotations.source}: found no unknown label in the {options.split} split, expected some to audit"
        )
    questions, prior = min(options.top, there), _prior(material, counts)
    share = shares(counts, prior, questions, most)
    classes, bins = draw(share, questions, generator("audit", options.seed, 1))
    rows, scores = reservoir.take(classes, bins)
    with replacing(material.run.path / KEPT) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, by_label=counts.by_label, prior=prior, rows=rows, classes=classes, bins=bins, most=most,
            images=len(material.annotations), split=options.split,
        )  # fmt: skip
    low, high = EDGES[bins], np.append(EDGES, 1)[bins + 1]
    return pd.DataFrame(
        {
            "image": rows,
            "class": classes,
            "score": scores,
            "stratum": [f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True)],
            "probability": questions * share[classes, bins] / counts.unknown[classes, bins],
        }
    )


def _prior(material, counts):
    """The run's class prior float64 [C], in the order of the annotations' classes; without one the mean scores."""
    file = prior_file(material.predictor, material.run.network or material.run.best)
    if file is None or not file.is_file():
        material.say("audit: the run has no class prior; the mean scores guide the questions")
        return counts.mean_scores()
    return read_prior(file, material.annotations.classes).double().numpy()


def is_drawn(material: Material, questions: Path) -> bool:
    """Whether there is a sample in the folder of the run, and the file of its questions."""
    return (material.run.path / KEPT).is_file() and questions.is_file()


def measure(material: Material, questions: Path) -> None:
    """Print and write what the answers so far say; where there are none, a line tells how to give them.

    Args:
        material: of the run.
        questions: their file.

    Raises:
        InputError: the sample was drawn from other data, or is no sample.
    """
    run, annotations, say = material.run.path, material.annotations, material.say
    kept = _load(run / KEPT)
    if (int(kept["images"]), kept["by_label"].shape[1]) != (len(annotations), len(annotations.classes)):
        raise InputError(
            f"{run / KEPT}: drawn from {int(kept['images']):,} images with {kept['by_label'].shape[1]:,} classes of the "
            f"{kept['split']} split, found {len(annotations):,} with {len(annotations.classes):,} in {annotations.source}; "
            "expected the same --data and --split, or the file moved away for a new sample"
        )
    answers = _answers(material, kept["rows"], kept["classes"])
    given = np.array([answer is not None for answer in answers])
    used = len(given) if given.all() else int(given.argmin())
    say(f"audit: {given.sum():,} of {len(given):,} questions of {questions} are answered")
    if used < given.sum():
        name, place = annotations.select(kept["rows"][[used]]).names[0], annotations.classes[int(kept["classes"][used])]
        say(
            f"audit: {given.sum() - used:,} answers wait for that to question {used + 1} ({name}, {place}), yes, no or unsure: "
            "the first of the sample are a sample, others are not"
        )
    told = np.array([np.nan if a == UNSURE else float(a == YES) for a in answers[:used]])
    if (~np.isnan(told)).sum() < 2:
        say(f"audit: answer them by `python -m csl review {run} --questions {questions}`, then run this command again")
        return
    counts, classes, bins = ScoreCounts(kept["by_label"]), kept["classes"][:used], kept["bins"][:used]
    share = shares(counts, kept["prior"], len(given), int(kept["most"]))
    found = estimate(counts, kept["prior"], share, classes, bins, told)
    of_class = np.bincount(classes, minlength=len(annotations.classes))
    content = {
        "answers": used,
        "unsure": int(np.isnan(told).sum()),
        "images": counts.images,
        "split": str(kept["split"]),
        "labels_an_image": _ends(found["labels_an_image"]),
        "mAP": _ends(100 * found["mAP"]),
        "thresholds": {
            "best F1": _ends(EDGES[found["best_f1"]]),
            f"precision {_TARGET:g}": _ends(np.append(EDGES, np.nan)[threshold_for(found["precision"], _TARGET)]),
        },
        "at": [
            {"threshold": EDGES[k]} | {name: _ends(found[name][k]) for name in ("precision", "recall", "f1")}
            for k in np.flatnonzero(~np.isnan(found["f1"][:, 0]))
        ],
        "classes": [
            {"class": name, "answers": int(n), "prior_before": before, "prior": after}
            for name, n, before, after in zip(annotations.classes, of_class, kept["prior"], found["prior"], strict=True)
        ],
    }
    _print(content, found, say)
    write_json(run / NUMBERS, content)
    write_prior(run / PRIOR, annotations.classes, torch.from_numpy(found["prior"]))
    say(f"all of it in {run / NUMBERS}; the corrected prior, for train.py --prior_path, in {run / PRIOR}")


def _print(content, found, say):
    unsure = (
        f", {content['unsure']} of them unsure, which count as the rest would have them" if content["unsure"] else ""
    )
    say(f"{content['answers']:,} answers{unsure}; in brackets what holds the truth 95 times in 100")
    say(f"labels an image  {_words(content['labels_an_image'], '.2f')}")
    say(f"mAP              {_words(content['mAP'], '.1f')}")
    say(f"{'score at least':<16} {'precision':<24}{'recall':<24}F1")
    for threshold in _SHOWN:
        k = int(np.argmin(np.abs(EDGES - threshold)))
        if not np.isnan(found["f1"][k, 0]):
            cells = [_words(_ends(100 * found[name][k]), ".1f") for name in ("precision", "recall", "f1")]
            say(f"{EDGES[k]:<16.3f} {cells[0]:<24}{cells[1]:<24}{cells[2]}")
    for name, ends in content["thresholds"].items():
        say(f"threshold of {name}: {_words(ends, '.3f')}")


def _ends(numbers):
    return dict(zip(("estimate", "low", "high"), np.asarray(numbers, float).tolist(), strict=True))


def _words(ends, form):
    middle, low, high = ("none" if np.isnan(ends[name]) else format(ends[name], form) for name in ends)
    return f"{middle} ({low} to {high})"


def _load(file):
    """The arrays of a sample.

    Raises:
        InputError: it is none.
    """
    try:
        with np.load(file, allow_pickle=False) as kept:
            return {
                name: kept[name] for name in ("by_label", "prior", "rows", "classes", "bins", "most", "images", "split")
            }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{file}: not the sample of an audit ({error}); move it away for a new one") from None


def _answers(material, rows, classes):
    """The answer to each question, None where there is none, from the file of reviews."""
    options = material.options
    config = material.predictor.config or {}
    data = options.data or config.get("data") or "data"
    file, notes = find_reviews(data, options.reviews)
    for note in notes:
        material.say(note)
    if file is None:
        return [None] * len(rows)
    reviews = list(newest(read_reviews(file)).values())
    annotations = material.annotations
    of = (
        rows_of(annotations, [r.image for r in reviews], data_folder(data)),
        classes_of(annotations, [r.name for r in reviews]),
    )
    answer = {}
    for row, number, review in zip(*(each.tolist() for each in of), reviews, strict=True):
        attribute = attribute_of(number, annotations.groups)
        if review.answer == YES and attribute is not None:
            group = annotations.groups[attribute]
            answer |= {(row, other): NO for other in range(group.start, group.stop)}  # the values exclude each other
        answer[row, number] = review.answer
    return [answer.get(entry) for entry in zip(rows.tolist(), classes.tolist(), strict=True)]
