"""Prepare photos with an attribute CSV for training: split them and balance the training split.

The command is `python -m csl prepare attributes`.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from csl.data.images import load_rgb
from csl.data.loader import default_workers
from csl.errors import InputError, MachineError
from csl.labels import Annotations, read_attributes
from csl.labels.columns import title
from csl.labels.paths import SPLITS, contents, existing
from csl.labels.schema import split_words
from csl.labels.table import FILENAME, SPLIT, WEIGHT, Table
from csl.labels.trust import escape_table, require_inside
from csl.machine.files import write_json
from csl.machine.invocation import command
from csl.machine.processes import parallel_map
from csl.plots import plot_distribution, tried, value_counts
from csl.preparation.augmentation import augmented, copy_generator
from csl.preparation.balance import original_copies, sampling_weights, value_indices
from csl.preparation.split import SEED, grouped_split, kept_together

BALANCES = ("sampler", "original", "none")

SOURCES = (("attributes_cleaned.csv", "images_cleaned/images"), ("attributes.csv", "images"))
"""The CSV and its image folder, in the fashion fork's layout and in ours."""

RECORD = "preparation.json"
"""The file that marks the outputs beside it as written by this tool, so that they may be replaced."""

_OUTPUTS = (*(f"attributes_{split}.csv" for split in SPLITS), "images_split", "images_augmented", "distribution.png")
_COPIES_FOLDER = "images_augmented/train/images"
_DRAFT = ".preparation"
_JPEG_QUALITY = 95
_ALONE = 64  # up to this many images one process is done before others have started


@dataclass(frozen=True)
class _Photos:
    """The annotations of the images, and their CSV."""

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

    The tool reads `attributes_cleaned.csv` with `images_cleaned/images` (the fork's layout), or else `attributes.csv`
    with `images`. It writes into `out`: `images_split/{train,val,test}/images` (hard links, or copies where the file
    system has none), `attributes_{train,val,test}.csv`, `distribution.png` and `preparation.json`. With "original" it
    also writes `images_augmented/train/images`, the training photos and their copies `{stem}_aug_{j}.jpg`, j from 1,
    which are then the rows of `attributes_train.csv`. Everything is made in a draft folder inside `out`, on the same
    file system, and replaces an earlier preparation at the end; an interrupted run changes nothing.

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
        InputError: there is nothing to prepare, an image cannot be read (with "stop"), names of copies collide, or
            `out` holds files of these names that this tool did not write.
        MachineError: `out` cannot be written.
    """
    if balance not in BALANCES:
        raise InputError(f"--balance {balance}: unknown, expected one of {', '.join(BALANCES)}")
    if on_bad_image not in ("stop", "skip"):
        raise InputError(f"--on_bad_image {on_bad_image}: expected stop or skip")
    data = existing(data)
    out = Path(out) if out is not None else data
    _check_outputs(out)
    photos = _read(data, attributes, ignore_columns)
    workers = default_workers() if workers is None else workers
    workers = workers if len(photos.names) > _ALONE else 0
    photos, groups = _readable(photos, on_bad_image, workers, say)
    splits = _split(photos, groups, seed, say)
    rows = np.flatnonzero(splits == "train")
    train = photos.annotations.select(rows)
    values = value_indices(train)  # [N, A]
    numbers = original_copies(values) if balance == "original" else np.zeros(len(rows), dtype=np.int64)  # [N]
    seen = sampling_weights(values) if balance == "sampler" else 1.0 + numbers  # [N], how often an epoch has each
    copies = {row: number for row, number in zip(rows.tolist(), numbers.tolist(), strict=True) if number}
    _check_names(photos.names, copies)
    with _draft(out) as draft:
        linked = _link(photos, splits, draft, balance == "original" and bool(copies))
        sizes = ", ".join(f"{split} {(splits == split).sum():,}" for split in SPLITS)
        say(f"{linked}; {sizes} images")
        _write_copies(photos, copies, draft / _COPIES_FOLDER, seed, workers)
        _write_tables(photos, splits, numbers, seen if balance == "sampler" else None, draft)
        counts = value_counts(train, seen)
        caption = (
            f"{len(rows):,} training images"
            + {
                "sampler": ", and as they are drawn by weight",
                "original": f", {int(seen.sum()):,} with augmented copies",
                "none": "",
            }[balance]
        )
        with tried(out / "distribution.png"):
            plot_distribution(counts, train.groups, draft / "distribution.png", caption)
        say(counts.to_string(index=False, max_rows=100))
        facts = {"source": photos.annotations.source, "balance": balance, "seed": seed, "images": len(splits)}
        _replace_outputs(draft, out, facts)
    unknown = (values < 0).mean(axis=1)  # [N]
    shares = f"{100 * unknown.mean():.1f} % before, {100 * np.average(unknown, weights=seen):.1f} % after"
    if balance == "original":
        say(
            f"{numbers.sum():,} augmented copies of {len(copies):,} images beside the {len(rows):,}; "
            f"unknown attributes: {shares}"
        )
    elif balance == "sampler":
        say(
            f"train.py draws by the column {WEIGHT!r}, from {seen.min():.2f} to {seen.max():.2f}; "
            f"unknown attributes: {shares}"
        )
    say(f"{out}: {', '.join(name for name in _OUTPUTS if (out / name).exists())}")
    say(f"next: {command('train', '--data', out, *_sizes(train))}")
    return out


def _sizes(train):
    """The flag with the sizes of integer attributes whose highest value occurs in no training photo."""
    unseen = train.labels.counts().positives == 0
    sizes = [
        f"{name}:{group.stop - group.start}"
        for name, group in train.groups.items()
        if unseen[group.stop - 1] and train.classes[group.stop - 1] == f"{title(name)} {group.stop - group.start - 1}"
    ]
    return ["--attributes", ",".join(sizes)] if sizes else []


def _check_outputs(out):
    """Refuse to replace files that this tool did not write."""
    present = [name for name in _OUTPUTS if (out / name).exists()]
    if present and not (out / RECORD).is_file():
        raise InputError(
            f"{out / present[0]} already exists and was not written by this tool: move it away or choose another --out"
        )


def _read(data, attributes, ignore_columns):
    """The photos of a folder in one of the two layouts."""
    if not data.is_dir():
        raise InputError(f"{data}: a file, expected the folder that it is in")
    found = next(((data / csv, data / images) for csv, images in SOURCES if (data / csv).is_file()), None)
    if found is None:
        layouts = " or ".join(f"{csv} with {images}" for csv, images in SOURCES)
        raise InputError(f"{data}: found {contents(data)}, expected {layouts}")
    csv, images = found
    if not images.is_dir():
        raise InputError(f"{images}: no such folder, expected the images of {csv.name}")
    options = {"images": images, "attributes": attributes, "ignore_columns": ignore_columns}
    annotations = read_attributes(csv, **options)
    annotations.expect_photos()
    folders = (annotations.folder, *annotations.folders)
    roots = require_inside(annotations.images, folders, data, annotations.source)
    annotations = replace(annotations, roots=roots)
    table = Table.read(csv)
    if FILENAME not in table.columns or len(table) > len(annotations):
        raise InputError(f"{csv}: expected a column {FILENAME!r} and one row for each image")
    for name in annotations.table[FILENAME].str.strip():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{csv}: found the image {name!r}, expected a path relative to {images}")
    return _Photos(annotations, table)


def _readable(photos, on_bad_image, workers, say):
    """The photos that can be read, and int64 [N] with equal numbers for images of identical pixels."""
    annotations = photos.annotations
    digests = parallel_map(partial(_digest, roots=annotations.roots), annotations.images, workers, chunksize=8)
    found = list(_bar(digests, len(annotations), "comparing images"))
    bad = [reason for digest, reason in found if digest is None]
    for reason in bad[:10]:
        say(f"bad image: {reason}")
    if len(bad) > 10:
        say(f"... and {len(bad) - 10:,} more")
    if bad and on_bad_image == "stop":
        raise InputError(
            f"{len(bad):,} of the {len(found):,} images cannot be read, the first is {bad[0]}; repair them, or run "
            "with --on_bad_image skip to leave them out"
        )
    good = np.array([row for row, (digest, _) in enumerate(found) if digest is not None], dtype=np.int64)
    if not len(good):
        raise InputError(f"{annotations.source}: none of the {len(found):,} images can be read")
    _, groups = np.unique([found[row][0] for row in good], return_inverse=True)
    return _Photos(annotations.select(good), photos.table.select(good)), groups


def _digest(path, roots):
    """A digest of an image's pixels and None, or None and why it cannot be read."""
    try:
        image = load_rgb(path, roots)
    except InputError as error:
        return None, str(error)
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest(), None


def _split(photos, groups, seed, say):
    copies = len(groups) - len(np.unique(groups))
    if copies:
        say(f"{copies:,} of the {len(groups):,} images have the pixels of another, and stay on its side of the split")
    given = split_words(photos.table, SPLIT) if SPLIT in photos.table.columns else None
    if given is None:
        return grouped_split(photos.names, groups, seed)
    splits, moved = kept_together(given, groups)
    say(f"the split is that of the column {SPLIT!r}" + (f", but for {moved:,} such images" if moved else ""))
    for split in ("train", "val"):
        if not (splits == split).any():
            raise InputError(f"{photos.table.path}: no images of the {split} split in the column {SPLIT!r}")
    return splits


def _copy_names(name, number):
    """The file names of the augmented copies 1 to `number` of an image."""
    path = PurePosixPath(name)
    return [str(path.with_name(f"{path.stem}_aug_{j}.jpg")) for j in range(1, number + 1)]


def _check_names(names, copies):
    """Refuse equal names: copies of a.jpg and a.png would have them, and a photo may be called like a copy."""
    owners = {name: name for name in names}
    for row, number in copies.items():
        for copy in _copy_names(names[row], number):
            other = owners.setdefault(copy, names[row])
            if other != names[row]:
                raise InputError(f"images {other!r} and {names[row]!r}: a copy of one has the other's name, rename one")


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """An empty folder in `out` to write into, which is removed at the end, however the block ends."""
    draft = out / _DRAFT
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        draft.mkdir(parents=True)
        yield draft
    except OSError as error:  # a full disk, a folder that cannot be written
        raise MachineError(f"{error.filename or out}: {error.strerror or error}; {out} was not prepared") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _link(photos, splits, draft, with_copies):
    """Link the images into the folders of their splits; returns what was done, in words."""
    places = [(row, draft / "images_split" / split / "images") for row, split in enumerate(splits)]
    if with_copies:
        places += [(row, draft / _COPIES_FOLDER) for row in np.flatnonzero(splits == "train")]
    linked, names = 0, photos.names
    for row, folder in _bar(places, len(places), "linking images"):
        target = folder / names[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        source = os.path.realpath(photos.annotations.images[row])  # of a symbolic link the file, not the link
        try:
            os.link(source, target)
            linked += 1
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)
    copied = len(places) - linked
    return f"{linked:,} hard links" + (f", {copied:,} copies where the file system has none" if copied else "")


def _write_copies(photos, copies, folder, seed, workers):
    """Write the augmented copies, {row: number}, into `folder`."""
    save = partial(_save_copies, folder=folder, seed=seed, roots=photos.annotations.roots)
    tasks = [(photos.annotations.images[row], photos.names[row], number) for row, number in copies.items()]
    with _bar(None, sum(copies.values()), "augmenting") as bar:
        for number in parallel_map(save, tasks, workers):
            bar.update(number)


def _save_copies(task, folder, seed, roots):
    path, name, number = task
    image = load_rgb(path, roots)
    for j, copy in enumerate(_copy_names(name, number), start=1):
        augmented(image, copy_generator(seed, name, j)).save(folder / copy, quality=_JPEG_QUALITY)
    return number


def _write_tables(photos, splits, numbers, weights, folder):
    """Write the CSV of each split that has images; that of train with the rows of its copies, or its weights."""
    frame = photos.table.frame.drop(columns=[SPLIT], errors="ignore")
    for split in SPLITS:
        table = frame.iloc[np.flatnonzero(splits == split)]
        if split == "train" and weights is not None:
            table = table.assign(**{WEIGHT: [f"{weight:.6f}" for weight in weights]})
        elif split == "train" and numbers.any():
            pairs = zip(table[FILENAME].str.strip(), numbers, strict=True)
            table = table.loc[table.index.repeat(1 + numbers)]
            table = table.assign(
                **{FILENAME: [n for name, number in pairs for n in (name, *_copy_names(name, number))]}
            )
        if len(table):
            escape_table(table).to_csv(folder / f"attributes_{split}.csv", index=False)


def _replace_outputs(draft, out, facts):
    """Replace the old outputs by the draft's. The CSVs go first and come last, so that no reader finds half of it."""
    write_json(out / RECORD, facts)
    old = draft / "old"
    old.mkdir()
    for name in _OUTPUTS:
        if (out / name).exists():
            (out / name).rename(old / name)
    for name in reversed(_OUTPUTS):
        if (draft / name).exists():
            (draft / name).rename(out / name)


def _bar(items, total, label):
    return tqdm(items, total=total, desc=label, unit="image", disable=None, leave=False)
