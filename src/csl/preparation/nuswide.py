"""Write the subset of NUS-WIDE that the image tagging tutorial trains on: `python -m csl prepare nuswide`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.labels.matching import few
from csl.labels.nuswide import Listed, read_lists, read_nuswide
from csl.labels.photos import clean_name
from csl.machine.files import write_json
from csl.machine.invocation import command

NUM_LABELS, NUM_IMAGES = 27, 6000
TEST_SHARE = 6  # one image in so many is for testing


def prepare_nuswide(
    data: str | Path,
    out: str | Path | None = None,
    labels: Sequence[str] | None = None,
    num_labels: int = NUM_LABELS,
    num_images: int = NUM_IMAGES,
    say: Callable[[str], None] = print,
) -> Path:
    """Write `small_train.json` and `small_test.json`: few labels, and the first images that have one of them.

    The labels are the most frequent over both splits, in the order of the concepts; of equally frequent ones the first. The
    images are the first 5 of 6 parts of `num_images` in the training list and the last part in the test list.

    Args:
        data: a folder of NUS-WIDE in the official form or with the tutorial's `train.json` and `test.json`.
        out: where to write; None for `data`.
        labels: names of labels to keep, instead.
        num_labels: labels to keep.
        num_images: of both splits.
        say: prints one line.

    Returns:
        `out`.

    Raises:
        InputError: nothing to read, an unknown label, or a number out of range.
    """
    if num_images < TEST_SHARE:
        raise InputError(f"--num_images {num_images}: expected {TEST_SHARE} or more")
    out = Path(out) if out is not None else Path(data)
    lists = {split: read_lists(data, split, small=False) for split in ("train", "test")}
    kept = _kept(lists, labels, num_labels)
    names = [lists["train"].classes[column] for column in kept]
    say(f"{len(names)} labels: {', '.join(names)}")
    num_test = num_images // TEST_SHARE
    wanted_of = {"train": num_images - num_test, "test": num_test}
    samples_of = {split: _first(lists[split], kept, wanted) for split, wanted in wanted_of.items()}
    for split, samples in samples_of.items():  # before anything is written: one list without the other would be read
        if not samples:
            raise InputError(f"{lists[split].source}: no {split} image has one of the labels {few(names)}")
    for split, wanted in wanted_of.items():
        samples = samples_of[split]
        file = out / f"small_{split}.json"
        write_json(file, {"samples": samples, "labels": names})
        missing = f" ({wanted:,} wanted, the {split} list has no more)" if len(samples) < wanted else ""
        say(f"{file}: {len(samples):,} images{missing}")
    found = read_nuswide(data) if out.resolve() != Path(data).resolve() else None
    folders = (found.folders or [found.folder]) if found else []
    elsewhere = [word for folder in folders for word in ("--images", folder)]
    say(f"next: {command('train', '--recipe', 'nuswide_tutorial', '--data', out, *elsewhere)}")
    return out


def _kept(lists, labels, num_labels) -> np.ndarray:
    """Columns of the labels to keep, int64 in the order in which they are written."""
    train, test = lists["train"], lists["test"]
    if test.classes != train.classes:
        raise InputError(f"{test.source}: other labels than {train.source}, expected the same in both splits")
    if labels is not None:
        for label in labels:
            if label not in train.classes:
                raise InputError(f"--labels {label}: unknown, expected some of {few(train.classes)}")
        if len(set(labels)) < len(labels) or not labels:
            raise InputError(f"--labels {','.join(labels)}: expected one or more, each once")
        return np.array([train.classes.index(label) for label in labels])
    if not 1 <= num_labels <= len(train.classes):
        raise InputError(f"--num_labels {num_labels}: expected 1 to {len(train.classes)}")
    counts = train.labels.counts().positives + test.labels.counts().positives
    return np.sort(np.argsort(-counts, kind="stable")[:num_labels])


def _first(listed: Listed, columns: np.ndarray, wanted: int) -> list[dict]:
    """The first `wanted` samples that have one of the labels, with those alone."""
    samples = []
    for row in range(len(listed.names)):
        present = columns[listed.labels[row][columns] == 1]
        if len(present):
            labels = [listed.classes[column] for column in present]
            samples.append({"image_name": clean_name(listed.names[row]), "image_labels": labels})
            if len(samples) == wanted:
                break
    return samples
