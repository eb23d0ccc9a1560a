"""A folder of photos with an attribute CSV, split and balanced for training: `python -m csl prepare attributes`."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from signal import SIG_IGN, SIGINT, signal

import numpy as np
import torch
from tqdm import tqdm

from csl.data.images import load_rgb
from csl.data.loader import default_workers
from csl.errors import InputError, MachineError
from csl.labels import Annotations, read_attributes
from csl.labels.paths import SPLITS, contents, existing
from csl.labels.table import FILENAME, SPLIT, WEIGHT, Table
from csl.labels.trust import escape_table, require_inside
from csl.machine.files import replacing
from csl.plots import plot_distribution, value_counts
from csl.preparation.augmentation import augmented, copy_generator
from csl.preparation.balance import attribute_values, original_copies, sampling_weights
from csl.preparation.split import SEED, grouped_split, kept_together

BALANCES = ("sampler", "original", "none")

SOURCES = (("attributes_cleaned.csv", "images_cleaned/images"), ("attributes.csv", "images"))
"""The CSV and the folder of its images: the fashion fork's, and our own."""

RECORD = "preparation.json"
"""What says that the entries beside it are ours, and may be replaced."""

_DRAFT = ".preparation"
_JPEG_QUALITY = 95
_ALONE = 64  # images that one process reads sooner than others start


@dataclass(frozen=True)
class _Photos:
    """What there is to prepare: the annotations of all rows, and their CSV."""

    annotations: Annotations
    table: Table

    @property
    def names(self):
        return list(self.table.text(FILENAME))


def prepare_attributes(
    data: str | Path,
    out: str | Path | None = None,
    balance: str = "sampler",
    seed: int = SEED,
    attributes: dict[str, int] | None = None,
    ignore_columns: tuple[str, ...] = (),
    on_bad_image: str = "stop",
    workers: int | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> Path:
    """Split the photos of a folder and balance the training split, as the fashion fork did or better.

    Read are `attributes_cleaned.csv` with `images_cleaned/images` (the fork's layout), else `attributes.csv` with
    `images`. Written into `out` are `images_split/{train,val,test}/images` (hard links, or copies where the file system
    has none), `attributes_{train,val,test}.csv`, `distribution.png` and `preparation.json`; with "original" also
    `images_augmented/train/images`, the training photos and their copies `{stem}_aug_{j}.jpg`, j from 1, which are then
    the rows of `attributes_train.csv`. All of it is made in a draft folder first, and takes the place of what an
    earlier preparation made; when it is interrupted nothing has changed.

    The split is 0.8 / 0.1 / 0.1 (`grouped_split`), or that of a `split` column. Images with the same pixels are on the
    same side.

    Args:
        data: the folder.
        out: where to write; None for `data`.
        balance: of the training split. "sampler": a column `weight` (`sampling_weights`), by which `train.py` draws;
            "original": the fork's augmented copies (`original_copies`); "none".
        seed: of the split and of the augmentation.
        attributes, ignore_columns: as for `read_attributes`.
        on_bad_image: "stop" or "skip".
        workers: processes that decode and augment; None for one a core.
        say: prints one line.

    Returns:
        `out`.

    Raises:
        InputError: nothing to prepare, an image that cannot be read (with "stop"), names that collide, or files in
            the place of those to be written that are not ours.
    """
    if balance not in BALANCES:
        raise InputError(f"--balance {balance}: unknown, expected one of {', '.join(BALANCES)}")
    if on_bad_image not in ("stop", "skip"):
        raise InputError(f"--on_bad_image {on_bad_image}: expected stop or skip")
    data = existing(data)
    out = Path(out) if out is not None else data
    entries = _check_destination(out)
    photos = _read(data, attributes, ignore_columns)
    workers = default_workers() if workers is None else workers
    with _processes(workers if len(photos.names) > _ALONE else 0) as run:
        photos, groups = _without_bad(photos, on_bad_image, run, say)
        splits = _split(photos, groups, seed, say)
        train = photos.annotations.select(np.flatnonzero(splits == "train"))
        seen, tables, copies = _balanced(photos, splits, train, balance)
        _check_names(photos.names, copies)
        with _draft(out) as draft:
            linked = _place(photos, splits, copies, draft)
            say(f"{linked}; train {_of(splits, 'train')}, val {_of(splits, 'val')}, test {_of(splits, 'test')} images")
            if copies:
                _augment(photos, copies, draft / "images_augmented" / "train" / "images", seed, run)
            for split, table in tables.items():
                escape_table(table).to_csv(draft / f"attributes_{split}.csv", index=False)
            counts = value_counts(train, seen)
            plot_distribution(counts, train.groups, draft / "distribution.png", _title(balance, train, seen))
            say(counts.to_string(index=False, max_rows=100))
            facts = {"source": photos.annotations.source, "balance": balance, "seed": seed, "images": len(splits)}
            _swap(draft, out, entries, facts)
    _say_what_is_there(out, balance, train, seen, say)
    return out


def _read(data, attributes, ignore_columns):
    """The photos of a folder in one of the two layouts."""
    if not data.is_dir():
        raise InputError(f"{data}: a file, expected the folder that it is in")
    found = next(((data / csv, data / images) for csv, images in SOURCES if (data / csv).is_file()), None)
    if found is None:
        raise InputError(
            f"{data}: found {contents(data)}, expected "
            + " or ".join(f"{csv} with {images}" for csv, images in SOURCES)
        )
    csv, images = found
    if not images.is_dir():
        raise InputError(f"{images}: no such folder, expected the images of {csv.name}")
    options = {"images": images, "attributes": attributes, "ignore_columns": ignore_columns}
    annotations = read_attributes(csv, **options)
    roots = require_inside(annotations.images, annotations.folder, data, annotations.source)
    annotations = replace(annotations, roots=roots)
    for name in annotations.table[FILENAME].str.strip():
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{csv}: the image {name!r} is not named by its place in {images}, expected it to be")
    return _Photos(annotations, Table.read(csv))


# --------------------------------------------------------------------------------------------------------- what is there


def _without_bad(photos, on_bad_image, run, say):
    """The photos that can be read, and a number for each that identical images share, int64 [N]."""
    annotations = photos.annotations
    digest = partial(_digest, roots=annotations.roots)
    found = list(run(digest, annotations.images, "comparing images", chunksize=8))
    bad = [reason for key, reason in found if key is None]
    for reason in bad[:10]:
        say(f"bad image: {reason}")
    if len(bad) > 10:
        say(f"... and {len(bad) - 10:,} more")
    if bad and on_bad_image == "stop":
        raise InputError(
            f"{len(bad):,} of the {len(found):,} images cannot be read, the first is {bad[0]}; expected all of them, or "
            "--on_bad_image skip to leave these out"
        )
    good = np.array([row for row, (key, _) in enumerate(found) if key is not None], dtype=np.int64)
    if not len(good):
        raise InputError(f"{annotations.source}: none of the {len(found):,} images can be read")
    _, groups = np.unique([found[row][0] for row in good], return_inverse=True)
    return _Photos(annotations.select(good), photos.table.select(good)), groups


def _digest(path, roots):
    """A key that images of the same pixels share, or None and the reason why it cannot be read."""
    try:
        image = load_rgb(path, roots)
    except InputError as error:
        return None, str(error)
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest(), None


def _split(photos, groups, seed, say):
    copies = len(groups) - len(np.unique(groups))
    if copies:
        say(f"{copies:,} of the {len(groups):,} images have the pixels of another, and stay on its side of the split")
    given = photos.table.splits()
    if given is None:
        return grouped_split(photos.names, groups, seed)
    splits, moved = kept_together(given, groups)
    say(f"the split is that of the column {SPLIT!r}" + (f", but for {moved:,} such images" if moved else ""))
    for split in ("train", "val"):
        if not (splits == split).any():
            raise InputError(f"{photos.table.path}: no images of the {split} split in the column {SPLIT!r}")
    return splits


def _of(splits, split):
    return f"{(splits == split).sum():,}"


# --------------------------------------------------------------------------------------------------------------- balance


def _balanced(photos, splits, train, balance):
    """How often each training image is seen [N], the CSV of each split, and {row: copies} of all rows."""
    frame = photos.table.frame.drop(columns=[SPLIT], errors="ignore")
    rows = np.flatnonzero(splits == "train")
    tables = {split: frame.iloc[np.flatnonzero(splits == split)] for split in SPLITS if (splits == split).any()}
    seen, copies = np.ones(len(rows)), {}
    if balance == "sampler":
        seen = sampling_weights(attribute_values(train))
        tables["train"] = tables["train"].assign(**{WEIGHT: [f"{weight:.6f}" for weight in seen]})
    elif balance == "original":
        numbers = original_copies(attribute_values(train))
        seen = 1.0 + numbers
        copies = {int(row): int(number) for row, number in zip(rows, numbers, strict=True) if number}
        tables["train"] = _with_copies(tables["train"], numbers)
    return seen, tables, copies


def _with_copies(table, numbers):
    """Every row, followed by those of its copies."""
    names = table[FILENAME].str.strip()
    repeated = table.loc[table.index.repeat(1 + numbers)].copy()
    repeated[FILENAME] = [
        name for original, number in zip(names, numbers, strict=True) for name in (original, *_names(original, number))
    ]
    return repeated


def _names(name, number):
    """Of the copies of an image."""
    path = PurePosixPath(name)
    return [str(path.with_name(f"{path.stem}_aug_{j}.jpg")) for j in range(1, number + 1)]


def _check_names(names, copies):
    """Copies of a.jpg and a.png would have the same names, and a photo may be called as a copy is."""
    taken = {}
    originals = set(names)
    for row, number in copies.items():
        for copy in _names(names[row], number):
            other = taken.setdefault(copy, names[row])
            if other != names[row] or copy in originals:
                other = copy if copy in originals else other
                raise InputError(f"images {other!r} and {names[row]!r}: a copy of one has the other's name, rename one")


# ----------------------------------------------------------------------------------------------------------------- files


def _place(photos, splits, copies, draft):
    """Link the images into their folders; returns what was done, in words."""
    linked, images, names = 0, photos.annotations.images, photos.names
    places = [(row, draft / "images_split" / split / "images") for row, split in enumerate(splits)]
    if copies:
        places += [(row, draft / "images_augmented" / "train" / "images") for row in np.flatnonzero(splits == "train")]
    for row, folder in tqdm(places, desc="linking images", unit="image", disable=None, leave=False):
        target = folder / names[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        source = os.path.realpath(images[row])  # of a symbolic link the file, not the link
        try:
            os.link(source, target)
            linked += 1
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)
    copied = len(places) - linked
    return f"{linked:,} hard links" + (f", {copied:,} copies where the file system has none" if copied else "")


def _augment(photos, copies, folder, seed, run):
    """Write the augmented copies into `folder`."""
    save = partial(_save_copies, folder=folder, seed=seed, roots=photos.annotations.roots)
    tasks = [(photos.annotations.images[row], photos.names[row], number) for row, number in copies.items()]
    with tqdm(total=sum(copies.values()), desc="augmenting", unit="image", disable=None, leave=False) as bar:
        for number in run(save, tasks, None):
            bar.update(number)


def _save_copies(task, folder, seed, roots):
    path, name, number = task
    image = load_rgb(path, roots)
    for j, copy in enumerate(_names(name, number), start=1):
        augmented(image, copy_generator(seed, name, j)).save(folder / copy, quality=_JPEG_QUALITY)
    return number


@contextmanager
def _processes(workers: int) -> Iterator[Callable]:
    """run(function, items, label) -> results in order, from several processes, or from this one where `workers` is 0."""

    def bar(results, items, label):
        hidden = None if label else True
        return tqdm(results, total=len(items), desc=label, unit="image", disable=hidden, leave=False)

    if workers == 0:
        yield lambda function, items, label, chunksize=1: bar(map(function, items), items, label)
        return
    with ProcessPoolExecutor(workers, initializer=_as_worker) as pool:
        try:
            yield lambda function, items, label, chunksize=1: bar(
                pool.map(function, items, chunksize=chunksize), items, label
            )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _as_worker():
    """Ctrl-C reaches the whole process group: the parent alone deals with it. Processes, not threads, share the cores."""
    signal(SIGINT, SIG_IGN)
    torch.set_num_threads(1)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """An empty folder in `out` to make everything in, which is gone afterwards, however this ends."""
    draft = out / _DRAFT
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        draft.mkdir(parents=True)
        yield draft
    except OSError as error:  # a full disk, a folder that cannot be written
        raise MachineError(f"{error.filename or out}: {error.strerror or error}; {out} was not prepared") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


_ENTRIES = (*(f"attributes_{split}.csv" for split in SPLITS), "images_split", "images_augmented", "distribution.png")


def _check_destination(out):
    """What an earlier preparation left; InputError where somebody else's files are in the way."""
    there = [name for name in _ENTRIES if (out / name).exists()]
    if there and not (out / RECORD).is_file():
        raise InputError(
            f"{out / there[0]}: is there and was not made by this tool, expected another folder (--out) or to have it "
            "moved away"
        )
    return there


def _swap(draft, out, there, facts):
    """Replace the old entries by those of the draft. The CSVs go first and come last: no reader finds half of it."""
    with replacing(out / RECORD) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    old = draft / "old"
    old.mkdir()
    for name in there:
        (out / name).rename(old / name)
    for name in reversed(_ENTRIES):
        if (draft / name).exists():
            (draft / name).rename(out / name)


# ------------------------------------------------------------------------------------------------------------ what is said


def _title(balance, train, seen):
    if balance == "none":
        return f"{len(train):,} training images"
    if balance == "original":
        return f"{len(train):,} training images, {int(seen.sum()):,} with augmented copies"
    return f"{len(train):,} training images, and as they are drawn by weight"


def _unknown_share(train, seen):
    unknown = (attribute_values(train) < 0).mean(axis=1)
    return 100 * unknown.mean(), 100 * np.average(unknown, weights=seen)


def _say_what_is_there(out, balance, train, seen, say):
    before, after = _unknown_share(train, seen)
    if balance == "original":
        say(
            f"{int(seen.sum() - len(seen)):,} augmented copies of {(seen > 1).sum():,} images beside the {len(seen):,}; "
            f"unknown attributes: {before:.1f} % before, {after:.1f} % after"
        )
    elif balance == "sampler":
        say(
            f"train.py draws by the column {WEIGHT!r}, from {seen.min():.2f} to {seen.max():.2f}; unknown attributes: "
            f"{before:.1f} % before, {after:.1f} % after"
        )
    say(f"{out}: attributes_train.csv and its like, images_split, distribution.png")
    say(f"next: python train.py --data {out}")
