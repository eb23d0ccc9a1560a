"""The data of a run: read the annotations, check them, leave out unreadable images, hide labels."""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from csl.data.checking import find_bad_images, report_bad_images
from csl.data.duplicates import same_photos
from csl.errors import InputError, NoSplit, printable
from csl.garments import make_garments
from csl.labels import Annotations, LabelMatrix, simulate
from csl.labels.division import joined, owners, validation_rows
from csl.labels.inspection import column_lines, images_in_both, label_warnings
from csl.labels.matching import few
from csl.labels.options import DataOptions
from csl.labels.paths import TEST_AS_VAL
from csl.labels.read import read_split, read_truth
from csl.machine import distributed
from csl.machine.draws import generator
from csl.runs.config import TrainConfig
from csl.runs.record import differences, fingerprint
from csl.runs.split import parts_by, split_rows
from csl.training.recipes import DEMO_DATA

Say = Callable[[str], None]
OF_UNKNOWN = ("partial_loss_mode", "gamma_unann", "alpha_unann", "prior_path")
"""Settings that act on un-annotated labels alone; others come with them."""


@dataclass(frozen=True)
class Data:
    """The annotations of a run.

    Attributes:
        train, val: the two splits.
        truth, train_truth: all labels of `val` and `train`, where a truth.csv beside the annotations holds them.
    """

    train: Annotations
    val: Annotations
    truth: LabelMatrix | None = None
    train_truth: LabelMatrix | None = None


def load_data(config: TrainConfig, say: Say = tqdm.write, split_file: Path | None = None) -> Data:
    """Read the annotations of both splits, after drawing the demo set if it is asked for and missing.

    Data without a validation split is divided by `val_split` and the seed, or by the `split_file` of a resumed run.

    Raises:
        InputError: the annotations cannot be read, or have no validation split and `val_split` is None, or both.
    """
    source = Path(config.data or DEMO_DATA)
    if config.data == DEMO_DATA and not (source / "attributes.csv").exists():
        say(f"drawing the demo set into {source}")
        make_garments(source)
    options = dataclasses.replace(DataOptions.of(config), data=str(source))
    train = read_split(options, "train")
    train.expect_photos()
    truth = train_truth = rows = None
    val = _validation(options, train, config.val_split)
    if val is None:
        rows = _divided(train, config, say) if split_file is None else split_rows(split_file, train)
        if not rows:
            raise InputError(
                f"{train.source}: no image of {split_file}, expected the data that the run was started with"
            )
        (train, train_truth), (val, truth) = parts_by(rows, train, options).values()
    if list(val.classes) != list(train.classes):
        raise InputError(f"{val.source}: other classes than {train.source}, expected the same in both splits")
    for name, part in (("train", train), ("val", val)):
        if not len(part):
            raise InputError(f"{part.source}: no images in the split {name}")
        part.expect_photos()
        for line in column_lines(part) if name == "train" else [note for note in part.notes if note not in train.notes]:
            say(line)
        say(f"{name}: {part.described()}")
    for line in images_in_both(train, val):
        say(line)
    if train.weights is not None:
        say(f"train: each epoch draws {len(train):,} images by the weight column of {train.source}, with replacement")
    if rows is None and (truth := read_truth(options, "val", val)) is not None:
        with contextlib.suppress(InputError):  # truth.csv may hold the validation split alone
            train_truth = read_truth(options, "train", train)
    return Data(train, val, truth, train_truth)


def _validation(options, train, val_split):
    """The validation split of the data; None where it is to be made, of all images that are for training now."""
    try:
        val = read_split(options, "val", train.classes, train.groups)
    except NoSplit as error:
        if val_split is None:
            raise InputError(
                f"{error}; or --val_split 0.2, which keeps that share of the images for validation"
            ) from None
        return None
    if val.source == train.source and len(val) == len(train) and val.images[0] == train.images[0]:
        if val_split is None:
            raise InputError(
                f"{train.source}: the same images for training and validation, expected a folder with both, or --val_split "
                "0.2, which keeps that share of the images for validation"
            )
        return None
    if val_split is None:
        return val
    if TEST_AS_VAL not in val.notes:
        raise InputError(
            f"--val_split changes nothing: {val.source} has a val split of {len(val):,} images; leave it out"
        )
    return None


def _divided(part, config, say):
    """{split: rows} of a split by `val_split`, whose sizes are printed."""
    groups = joined(same_photos(part.images, part.roots), np.array(part.names))  # by which split.csv tells them apart
    if copies := len(groups) - len(np.unique(groups)):
        say(f"--val_split: {copies:,} images have the bytes or the name of another, and stay on its side")
    if owned := owners(part):
        groups = joined(groups, owned[1])
        say(f"--val_split: images of one {owned[0]!r} stay on one side, {len(np.unique(groups)):,} groups")
    val = validation_rows(part.labels, groups, config.val_split, config.seed)
    train = np.setdiff1d(np.arange(len(part)), val)
    say(
        f"--val_split {config.val_split:g}: {len(train):,} images for training, {len(val):,} for validation, kept in split.csv"
    )
    without = [part.classes[c] for c in np.flatnonzero(part.labels.select(val).counts().positives == 0)]
    if without:
        say(f"--val_split: no known positive for validation in {len(without):,} classes: {few(without)}")
    return {"train": train, "val": val}


def check_fingerprints(data: Data, before: Any, folder: Path, say: Say) -> dict[str, dict]:
    """The fingerprints of both splits, {split: fingerprint}, checked against those of a resumed run.

    Args:
        data: as it was read now.
        before: the fingerprints in `config.json` of the run that is resumed, None for a new one.
        folder: of that run.
        say: prints one line, where nothing but the content of image files has changed.

    Raises:
        InputError: they are not.
    """
    prints = {"train": fingerprint(data.train), "val": fingerprint(data.val)}
    for name, part in (("train", data.train), ("val", data.val)):
        then = before.get(name) if isinstance(before, dict) else None
        changed = differences(then, prints[name]) if isinstance(then, dict) else []
        if changed == ["the sizes of image files differ"]:  # one that broke is no reason to lose a run
            say(f"{name}: image files have other sizes than when the run was started; names and labels are the same")
        elif changed:
            raise InputError(
                f"{part.source}: not the {name} data that the run in {folder} was started with: {', '.join(changed)}; "
                "expected the same to resume it"
            )
    return prints


def without_bad_images(
    data: Data, config: TrainConfig, say: Say, before: Any = None
) -> tuple[Data, dict[str, list[int]]]:
    """Check every image file before the first step: nobody should lose an epoch to one broken photo.

    A resumed run checks none again. It leaves out the rows that it left out `before`, whatever has become of them, and no
    others: the order of its samples stays what it was, and training names a file that has broken since.

    Returns:
        The data without these images, and their rows, {split: list}.

    Raises:
        InputError: an image that cannot be read under `on_bad_image` "stop", or none that can.
    """
    left_out = {}
    if before is not None:
        say("image files: checked when the run was started, and not again")
    for name, part in (("train", data.train), ("val", data.val)):
        if before is None:
            left_out[name] = _bad_rows(name, part, config.on_bad_image, say)
        else:
            left_out[name] = _rows_of(before, name, part)
        if left_out[name]:
            good = np.setdiff1d(np.arange(len(part)), left_out[name])
            if not len(good):
                raise InputError(f"{part.source}: none of the {len(part):,} {name} images can be read")
            say(f"{name}: {len(left_out[name]):,} bad images left out, {len(good):,} left")
            truth = {"train": "train_truth", "val": "truth"}[name]
            known = getattr(data, truth)
            selected = {name: part.select(good), truth: None if known is None else known.select(good)}
            data = dataclasses.replace(data, **selected)
    return data, left_out


def _rows_of(before, name, part):
    """The rows that were left out according to `config.json`."""
    rows = before.get(name) if isinstance(before, dict) else None
    if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < len(part) for row in rows):
        raise InputError(f"config.json: left_out: {name}: found {str(rows)[:80]}, expected rows of {part.source}")
    return rows


def _bad_rows(name, part, on_bad_image, say):
    """The rows of the unreadable images, which are named; each process checks its share."""
    share = range(distributed.rank(), len(part), distributed.world_size())
    bad = find_bad_images(part.images, distributed.is_main(), part.roots, share)
    bad = [image for part in distributed.gather_objects(bad) for image in part]
    bad.sort(key=lambda image: image.index)
    report_bad_images([image.reason for image in bad], len(part), name, on_bad_image, say)
    return [image.index for image in bad]


def with_simulated_labels(data: Data, config: TrainConfig, say: Say, drawn: LabelMatrix | None = None) -> Data:
    """The data with the training labels that `simulate_partial_type` keeps; prints counts per class.

    Args:
        data: with all labels.
        config: of the run.
        say: prints a line or a table.
        drawn: the labels that a resumed run began with; None draws them by the seed.

    Raises:
        InputError: an unknown scheme, a parameter out of its range, or drawn labels of another size.
    """
    if not config.simulate_partial_type:
        given = [name for name in OF_UNKNOWN if getattr(config, name) not in (None, "negative")]
        if given and not data.train.labels.counts().unannotated.any():
            say(f"train: every label is known, so that these change nothing: --{', --'.join(given)}")
        return data
    labels = drawn
    if labels is None:
        rng = generator("mask", config.seed)
        labels = simulate(data.train.labels, config.simulate_partial_type, config.simulate_partial_param, rng)
    data = dataclasses.replace(data, train=data.train.with_labels(labels))
    say(f"train, simulated {config.simulate_partial_type}: {data.train.summary()}")
    counts = labels.counts()
    table = pd.DataFrame(
        {"positive": counts.positives, "negative": counts.negatives, "unknown": counts.unannotated},
        index=pd.Index(data.train.classes, name="class"),
    )
    say(table.to_string(max_rows=100))
    return data


def check_known_labels(data: Data, config: TrainConfig, say: Say) -> None:
    """Warn of classes and splits whose known labels say one thing alone, or nothing.

    Raises:
        InputError: `prior_path` "auto" and no known negative in any class: all that stage 1 could learn is "always"; or a
            loss that learns from known labels alone, and none.
    """
    for line in [*label_warnings("train", data.train), *label_warnings("val", data.val)]:
        say(printable(line))
    counts = data.train.labels.counts()
    if counts.negatives.any():
        return
    if config.learns_from_known_alone and not counts.positives.any():
        raise InputError(
            f"{data.train.source}: no label of a training image is known, and of these alone --partial_loss_mode "
            f"{config.partial_loss_mode} learns; expected some, or another mode"
        )
    if config.prior_path == "auto" and config.labels_per_image is None:
        raise InputError(
            f"--prior_path auto: {data.train.source} has no known negative, so that the estimate would be 1 for every "
            "class; expected some, a FILE, or --labels_per_image K, counted on some photos"
        )
    if config.learns_from_known_alone:
        say(
            "warning: un-annotated labels take no part in this loss, which without any known negative learns that every class "
            "is always there"
        )
