"""Labels with the answers in them: a new file of the same format, in which everything else is byte for byte as it was."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.labels.layouts import COCO
from csl.labels.options import DataOptions
from csl.labels.read import read_split
from csl.labels.reviews import NONE, with_reviews
from csl.machine.files import replacing, set_aside
from csl.review import merge_coco, merge_table
from csl.review.questions import Photos


def merge(
    data: DataOptions, photos: Photos, reviews: Path, out: Path, say: Callable[[str], None] = print
) -> list[Path]:
    """Write the files with the labels of `photos` again, with the answers in them; returns the new files.

    What is written is read again: a label that the new file does not say as the answers do is counted. Files that were there
    are moved aside.

    Args:
        data: how the photos were read.
        photos: with the labels as they are.
        reviews: the file of answers.
        out: a file, where the labels are in one, or a folder.
        say: prints a line.

    Raises:
        InputError: labels of a format that is not written, or `out` is one of the files with the labels.
    """
    answered: dict[Path, list[tuple[Annotations, LabelMatrix]]] = {}
    for part in photos.parts:
        labels = with_reviews(part, reviews, photos.folder).labels
        answered.setdefault(Path(part.source), []).append((part, labels))
    written = []
    for source, parts in answered.items():
        if all(part.labels == labels for part, labels in parts):
            say(f"{source}: no answer changes it")
            continue
        target = out if len(answered) == 1 and out.suffix == source.suffix else out / _inner(source, photos.folder)
        if any(target.resolve() == other.resolve() for other in answered):
            raise InputError(f"--merge {out}: is the file with the labels, expected another: it stays as it is")
        if source.suffix.lower() in merge_table.SUFFIXES and parts[0][0].table is not None:
            content, lines = merge_table.merged(source, parts)
        elif COCO.is_label_file(source):
            content, lines = merge_coco.merged(source, parts)
        else:
            raise InputError(f"--merge: {source} is written neither as a table nor as COCO, expected one of them")
        target.parent.mkdir(parents=True, exist_ok=True)
        if aside := set_aside([target]):
            say(f"the {target.name} that was there is now in {aside}")
        with replacing(target) as temporary:
            temporary.write_bytes(content)
        changed, missing = _read_again(data, photos, target, parts)
        say(f"{target}: {changed:,} labels are others than in {source}; everything else is as it was")
        lines += [f"{missing:,} labels cannot be said in this file: keep {reviews} beside it"] if missing else []
        for line in lines:
            say(f"{target}: {line}")
        written.append(target)
    return written


def _inner(source, folder):
    """Where a file lies in the data folder, or its name."""
    return source.relative_to(folder) if source.is_relative_to(folder) else Path(source.name)


def _read_again(data, photos, target, parts):
    """How many labels of the new file are others than before, and how many others than the answers say."""
    folders = list(dict.fromkeys(folder for part, _ in parts for folder in (part.folder, *part.folders)))
    options = replace(data, data=str(target), images=data.images or folders, reviews=NONE, keep_unlabelled_images=False)
    changed = missing = 0
    for part, labels in parts:
        of_part = next(s for s, one in zip(photos.splits, photos.parts, strict=True) if one is part)
        split = of_part if len(parts) > 1 else None
        keep = COCO.is_label_file(target)
        again = read_split(replace(options, keep_unlabelled_images=keep), split, part.classes, part.groups)
        row_of = {name: row for row, name in enumerate(again.images)}
        for row, image in enumerate(part.images):
            wanted, before = labels[row], part.labels[row]
            found = again.labels[row_of[image]] if image in row_of else np.full_like(before, -2)
            changed += int((found != before).sum())
            missing += int((found != wanted).sum())
    return changed, missing
