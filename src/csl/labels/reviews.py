"""Answers of people (`reviews.csv`): whether an image has a class, laid over the labels of any format.

A row is `image,class,answer,score,when`: the name of an image relative to the data folder (or as the reader calls it, relative
to its own folder), the name or key of a class, `yes`, `no` or `unsure`, the score that was shown (or nothing), and the time
(ISO 8601). Of several rows of one image and class the newest counts.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csl.errors import InputError
from csl.labels.annotations import Annotations
from csl.labels.class_set import several_values
from csl.labels.dialect import header_of
from csl.labels.matching import few_names
from csl.labels.matrix import NEGATIVE, POSITIVE, UNANNOTATED, LabelMatrix
from csl.labels.paths import ImagePaths
from csl.labels.table import Table

REVIEWS = "reviews.csv"
"""The file beside the data that is taken without being named."""

COLUMNS = ("image", "class", "answer", "score", "when")
YES, NO, UNSURE = ANSWERS = ("yes", "no", "unsure")
NONE = "none"
"""In place of a file: no answers are taken."""

_BLOCK = 1 << 22  # labels that are dense at a time


class Review(NamedTuple):
    """One answer; `score` is the text of the file, "" where none was shown; `when` knows its time zone."""

    image: str
    name: str
    answer: str
    score: str
    when: datetime


def data_folder(data: str | Path) -> Path:
    """The folder that reviews lie in and that their images are relative to: the data, or the folder that its file is in."""
    path = Path(os.path.normpath(data))
    return path if path.is_dir() else path.parent


def is_reviews(file: Path) -> bool:
    """Whether a table is one of answers, by the names of its columns."""
    return set(COLUMNS) <= set(header_of(file))


def find_reviews(data: str | Path, given: str | Path | None = None) -> tuple[Path | None, tuple[str, ...]]:
    """The file of answers to these data, None without one, and notes.

    Args:
        data: the folder or file of annotations.
        given: the file; NONE for none; None for `REVIEWS` beside the data, if it is there.

    Raises:
        InputError: no such file.
    """
    if given is not None:
        file = None if str(given) == NONE else Path(given)
        if file is not None and not file.is_file():
            raise InputError(f"--reviews {given}: no such file, expected {','.join(COLUMNS)}, or none")
        return file, ()
    file = data_folder(data) / REVIEWS
    if not file.is_file() or file == Path(os.path.normpath(data)):
        return None, ()
    if is_reviews(file):
        return file, ()
    return None, (f"{file}: not used, as it holds no answers (its first line is not {','.join(COLUMNS)})",)


def read_reviews(file: str | Path) -> list[Review]:
    """All answers of a file, the oldest first; of one time in their order there.

    Raises:
        InputError: it cannot be read, has other columns, or a row is no answer; the message names its line.
    """
    table = Table.read(file)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise InputError(f"{file}, line 1: no column {missing[0]!r}, expected {','.join(COLUMNS)}")
    cells = (table.frame[name] for name in COLUMNS)
    found = []
    for row, (image, name, answer, score, when) in enumerate(zip(*cells, strict=True)):
        if answer.strip().lower() not in ANSWERS:
            raise InputError(f"{table.at(row, 'answer')}: found {answer[:80]!r}, expected {', '.join(ANSWERS)}")
        try:
            time = datetime.fromisoformat(when.strip())
        except ValueError:
            raise InputError(
                f"{table.at(row, 'when')}: found {when[:80]!r}, expected a time such as 2026-01-31T12:00:00Z"
            ) from None
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        found.append(Review(image, name, answer.strip().lower(), score.strip(), time))
    return sorted(found, key=lambda review: review.when)


def newest(reviews: Sequence[Review]) -> dict[tuple[str, str], Review]:
    """{(image, class): its newest answer}, of answers that `read_reviews` returns; the oldest first."""
    found: dict[tuple[str, str], Review] = {}
    for review in reviews:
        found.pop((review.image, review.name), None)
        found[review.image, review.name] = review
    return found


def rows_of(annotations: Annotations, names: Sequence[str], folder: Path) -> np.ndarray:
    """The row, int64 [n], of each named image, -1 where there is none.

    Args:
        annotations: of N images.
        names: relative to the data folder; where no image is called so, as `Annotations.names` has them.
        folder: of the data.
    """
    images = annotations.images
    inner = getattr(images, "folder", annotations.folder)
    places = [os.fspath(folder), *dict.fromkeys((inner, *annotations.folders))]
    paths = [[os.path.normpath(os.path.join(place, name)) for place in places] for name in names]
    wanted = {path for some in paths for path in some}
    if isinstance(images, ImagePaths):
        within = os.path.join(inner, "") if inner else ""
        rows = images.among([path.removeprefix(within) for path in wanted if path.startswith(within)])
        row_of = {images[row]: row for row in rows.tolist()}
    else:
        row_of = {path: row for row, path in enumerate(images) if path in wanted}
    found = [next((row_of[path] for path in some if path in row_of), -1) for some in paths]
    return np.array(found, np.int64)


def classes_of(annotations: Annotations, names: Sequence[str]) -> np.ndarray:
    """The class, int64 [n], that each name or key is of, -1 where there is none, or several classes have the name."""
    places = []
    for some in (annotations.keys, annotations.classes):
        count = Counter(some)
        places.append({name: number for number, name in enumerate(some) if count[name] == 1})
    place = places[0] | places[1]
    return np.array([place.get(name, -1) for name in names], np.int64)


def with_reviews(annotations: Annotations, file: str | Path, folder: str | Path) -> Annotations:
    """The annotations with the answers of a file laid over their labels, and a note that counts them.

    `yes` makes a label 1, `no` 0; `unsure` leaves it as it is. Of an attribute, whose values exclude each other, `yes` makes
    the other values 0, and `no` leaves them open: those that only a value denied excluded are -1 again.

    Args:
        annotations: of one split; answers to images of others are counted and have no effect.
        file: as `read_reviews` takes it.
        folder: of the data, which images are relative to.

    Raises:
        InputError: as `read_reviews`, or no answer is of a class of the annotations.
    """
    everything = read_reviews(file)
    reviews = list(newest(everything).values())
    rows = rows_of(annotations, [review.image for review in reviews], Path(folder))
    columns = classes_of(annotations, [review.name for review in reviews])
    strangers = [review.name for review, column in zip(reviews, columns, strict=True) if column < 0]
    if reviews and len(strangers) == len(reviews):
        raise InputError(
            f"{file}: none of its {len(reviews):,} answers is of a class of {annotations.source} ({few_names(strangers)}); "
            "expected answers to these data, or --reviews none"
        )
    used = np.flatnonzero((rows >= 0) & (columns >= 0))
    labels, collected, counts = _overlaid(annotations, [reviews[k] for k in used], rows[used], columns[used])
    said = [f"{counts[what]:,} {words}" for what, words in _WORDS.items() if counts[what]]
    said += [f"{len(everything) - len(reviews):,} are answered again"] if len(everything) > len(reviews) else []
    elsewhere = int(((rows < 0) & (columns >= 0)).sum())
    said += [f"{elsewhere:,} are of images of other splits or data"] if elsewhere else []
    if strangers:
        said.append(f"{len(strangers):,} are of other classes ({few_names(list(dict.fromkeys(strangers)))})")
    note = f"{file}: {len(everything):,} answers" + (f": {', '.join(said)}" if said else "")
    if not counts["new"] or not any(count.any() for count in collected.counts()[:2]):
        collected = None  # all is as it was collected, or only answers tell anything
    notes = (*annotations.notes, note)
    return replace(annotations, labels=labels, collected=collected, answers=len(used), notes=notes)


_WORDS = {
    "new": "tell what was unknown",
    "same": "agree with the labels",
    "other": "contradict the labels and count in their place",
    "unsure": "are unsure",
}


def _overlaid(annotations, reviews, rows, columns):
    """The labels with answers, each of a row and a class, the oldest first; these less what was unknown; and how many answers
    of each kind there are."""
    counts = dict.fromkeys(_WORDS, 0)
    labels, group_of = annotations.labels, np.full(len(annotations.classes), None, dtype=object)
    for group in several_values(annotations.groups).values():
        group_of[group] = [group] * (group.stop - group.start)
    changed = np.unique(rows)
    order = np.argsort(rows, kind="stable")  # of one image the oldest first
    starts = np.searchsorted(rows[order], changed)
    parts, without, most = [], [], max(1, _BLOCK // max(labels.num_classes, 1))
    for start in range(0, len(changed), most):
        some = slice(start, start + most)
        dense = labels[changed[some]]  # int8 [R, C]
        unknown = dense == UNANNOTATED
        ends = [*starts[some][1:], starts[some.stop] if some.stop < len(starts) else len(order)]
        for row, first, end in zip(dense, starts[some], ends, strict=True):
            _answer(row, [(reviews[k].answer, int(columns[k])) for k in order[first:end]], group_of, counts)
        parts.append(LabelMatrix.from_dense(dense, labels.fill))
        without.append(LabelMatrix.from_dense(np.where(unknown, UNANNOTATED, dense), labels.fill))
    return labels.with_rows(changed, parts), labels.with_rows(changed, without), counts


def _answer(labels, answers, group_of, counts):
    """Write the answers to one image into its labels, int8 [C]."""
    before, denied = labels.copy(), set()
    for answer, c in answers:
        if answer == UNSURE:
            counts["unsure"] += 1
            continue
        value = POSITIVE if answer == YES else NEGATIVE
        counts["new" if before[c] == UNANNOTATED else "same" if before[c] == value else "other"] += 1
        if (group := group_of[c]) is not None:
            if answer == YES:
                labels[group] = NEGATIVE
            elif labels[c] == POSITIVE:
                labels[group] = UNANNOTATED
                labels[[k for k in denied if group.start <= k < group.stop]] = NEGATIVE
        denied.discard(c) if answer == YES else denied.add(c)
        labels[c] = value
