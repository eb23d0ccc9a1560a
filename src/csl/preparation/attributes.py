"""Prepare photos with an attribute CSV for training: split them and balance the training split.

The command is `python -m csl prepare attributes`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from csl.data.images import colour_of, load_rgb
from csl.data.loader import default_workers
from csl.errors import InputError, MachineError, NoSplit
from csl.labels import POSITIVE, read_attributes
from csl.labels.columns import title
from csl.labels.division import joined, owners, validation_rows
from csl.labels.paths import SPLITS, existing
from csl.labels.split_column import split_words
from csl.labels.table import WEIGHT
from csl.labels.table_options import RECORD, SIDE_FILE, TableOptions
from csl.labels.trust import escape_table
from csl.machine.files import write_json
from csl.machine.invocation import command
from csl.machine.processes import parallel_map
from csl.plots import draw_distribution, tried, value_counts
from csl.preparation.augmentation import augmented, copy_generator
from csl.preparation.balance import original_copies, sampling_weights, value_indices
from csl.preparation.photos import Images, find_source, progress, read_photos, readable
from csl.preparation.split import SEED, grouped_split, kept_together
from csl.ranges import check_ranges

BALANCES = ("sampler", "original", "none")

_OUTPUTS = (*(f"attributes_{split}.csv" for split in SPLITS), "images_split", "images_augmented", "distribution.png")
_COPIES_FOLDER = "images_augmented/train/images"
_DRAFT = ".preparation"
_JPEG_QUALITY = 95
_ALONE = 64  # up to this many images one process is done before others have started


def prepare_attributes(
    data: str | Path,
    out: str | Path | None = None,
    balance: str = "sampler",
    seed: int = SEED,
    val_split: float | None = None,
    images: Images = None,
    follow_links: bool = False,
    on_bad_image: str = "stop",
    workers: int | None = None,
    background: str = "none",
    say: Callable[[str], None] = tqdm.write,
    **options: Any,
) -> Path:
    """Split the photos of a folder and balance the training split, as the fashion fork did or better.

    The tool reads `attributes_cleaned.csv` with `images_cleaned/images` (the fork's layout), or else `attributes.csv`
    with `images`, or a table for each split, or the only table of the folder. It writes into `out`:
    `images_split/{train,val,test}/images` (hard links, or copies where the file system has none),
    `attributes_{train,val,test}.csv`, `distribution.png` and `preparation.json`, which keeps the options, so that the tables
    are read without. With "original" it also writes `images_augmented/train/images`, the training photos and their copies
    `{stem}_aug_{j}.jpg`, j from 1, which are then the rows of `attributes_train.csv`. Everything is made in a draft folder
    inside `out`, on the same file system, and replaces an earlier preparation at the end; an interrupted run changes nothing.

    The split is that of the table's column; else, or with `val_split` in its place, it is drawn. Images with the same
    pixels are on the same side, and words that only one image has are for training. Before anything is replaced, the
    result is read as `train.py` reads it.

    Args:
        data: the folder, or the table.
        out: where to write; None for `data`, or the folder of that table.
        balance: of the training split. "sampler": a column `weight` (`sampling_weights`), by which `train.py` draws;
            "original": the fork's augmented copies (`original_copies`); "none".
        seed: of the split and of the augmentation.
        val_split: the share for validation, with no test split (`validation_rows`); None for 0.8 / 0.1 / 0.1
            (`grouped_split`).
        images, follow_links: as for `read_annotations`.
        on_bad_image: "stop" or "skip".
        workers: processes that decode and augment; None for one a core.
        background: the colour that transparent images are laid over, to compare and to copy them as train.py sees them.
        say: prints one line.
        **options: how the table is read, as for `read_attributes`.

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
    check_ranges({"val_split": val_split})
    colour_of(background)  # raises InputError
    data = existing(data)
    csv, images, files = find_source(data, images)
    out = Path(out) if out is not None else data if data.is_dir() else csv.parent
    side_file = csv.parent / SIDE_FILE
    side_files = [SIDE_FILE] if side_file.is_file() else []
    moved = side_files if out.resolve() != csv.parent.resolve() else []
    _check_outputs(out, [*_OUTPUTS, *moved])
    photos = read_photos(csv, images, options, follow_links, files)
    _check_weight(photos, balance)
    workers = default_workers() if workers is None else workers
    workers = workers if len(photos.names) > _ALONE else 0
    photos, groups = readable(photos, on_bad_image, workers, background, say)
    splits = _split(photos, groups, val_split, seed, say)
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
        _write_copies(photos, copies, draft / _COPIES_FOLDER, seed, workers, background)
        said = TableOptions(**{name: value for name, value in options.items() if value}).over_file(csv)
        _write_tables(photos, splits, numbers, seen if balance == "sampler" else None, draft, said.roles, say)
        for name in side_files:
            shutil.copyfile(side_file, draft / name)
        folders = dict.fromkeys((photos.annotations.folder, *photos.annotations.folders))
        facts = {
            "source": photos.annotations.source,
            "balance": balance,
            "seed": seed,
            "images": len(splits),
            "photos": [os.path.relpath(folder, out) for folder in folders],
            "options": said.given()
            | {"attributes": {**said.attributes, **_sizes(train)}, "roles": _roles(photos, said)},
        }
        write_json(draft / RECORD, facts)
        _check_result(draft)
        counts = value_counts(train, seen)
        how = {"sampler": ", and as they are drawn by weight", "original": f", {seen.sum():,.0f} with augmented copies"}
        caption = f"{len(rows):,} training images{how.get(balance, '')}"
        with tried(out / "distribution.png"):
            draw_distribution(counts, train.groups, caption).save(draft / "distribution.png")
        say(counts.to_string(index=False, max_rows=100))
        _replace_outputs(draft, out, facts)
        for name in moved:
            (draft / name).replace(out / name)
    done = {
        "original": f"{numbers.sum():,} augmented copies of {len(copies):,} images beside the {len(rows):,}",
        "sampler": f"train.py draws by the column {WEIGHT!r}, from {seen.min():.2f} to {seen.max():.2f}",
    }
    if balance in done:
        unknown = (values < 0).mean(axis=1)  # [N]
        shares = f"{100 * unknown.mean():.1f} % before, {100 * np.average(unknown, weights=seen):.1f} % after"
        say(f"{done[balance]}; unknown attributes: {shares}")
    say(f"{out}: {', '.join(name for name in _OUTPUTS if (out / name).exists())}")
    trained = [] if background == "none" else ["--background", background]
    say(f"next: {command('train', '--data', out, *trained)}")
    return out


def _sizes(train):
    """{column: size} of integer attributes whose highest value occurs in no training photo."""
    unseen = train.labels.counts().positives == 0
    return {
        name: group.stop - group.start
        for name, group in train.groups.items()
        if unseen[group.stop - 1] and train.classes[group.stop - 1] == f"{title(name)} {group.stop - group.start - 1}"
    }


def _roles(photos, said):
    """{column: role} as the whole table has them, as a part of it may look otherwise; where rows are labels, they tell so."""
    columns = photos.annotations.columns
    if any(one.role == "list" and one.why.startswith("one label a row") for one in columns):
        return dict(said.roles)
    return {one.name: one.role for one in columns if one.role not in ("split", "weight")} | dict(said.roles)


def _check_weight(photos, balance):
    if balance == "sampler" and WEIGHT in photos.table.columns and photos.column("weight") is None:
        raise InputError(
            f"--balance sampler: the column {WEIGHT!r} of {photos.table.path} is none of weights; expected --balance none, or "
            "another name for it"
        )


def _check_result(folder):
    """Read what was written as train.py reads it."""
    train = read_attributes(folder, split="train")
    for split in SPLITS[1:]:
        with suppress(NoSplit):
            read_attributes(folder, split=split, classes=train.classes, groups=train.groups)


def _check_outputs(out, names):
    """Refuse to replace files that this tool did not write."""
    present = [name for name in names if (out / name).exists()]
    if present and not (out / RECORD).is_file():
        raise InputError(
            f"{out / present[0]} already exists and was not written by this tool: move it away or choose another --out"
        )


def _split(photos, groups, val_split, seed, say):
    copies = len(groups) - len(np.unique(groups))
    if copies:
        say(f"{copies:,} of the {len(groups):,} images have the pixels of another, and stay on its side of the split")
    column = photos.column("split")
    if column is None or val_split is not None:
        if owned := owners(photos.annotations):
            groups = joined(groups, owned[1])
            say(f"images of one {owned[0]!r} stay on one side of the split, {len(np.unique(groups)):,} groups")
        if column is not None:
            say(f"--val_split: the split is drawn anew, and not that of the column {column!r}")
        if val_split is None:
            splits = grouped_split(photos.names, groups, seed)
        else:
            splits = np.full(len(groups), "train", dtype=object)
            splits[validation_rows(photos.annotations.labels, groups, val_split, seed)] = "val"
        return _with_all_words(splits, groups, photos.annotations)
    _, first = np.unique(photos.image_of_row, return_index=True)
    splits, moved = kept_together(split_words(photos.table, column)[first], groups)
    say(f"the split is that of the column {column!r}" + (f", but for {moved:,} such images" if moved else ""))
    for split, some in (("train", ("train",)), ("val", ("val", "test"))):
        if not np.isin(splits, some).any():
            raise InputError(f"{photos.table.path}: no images of the {split} split in the column {column!r}")
    return splits


def _with_all_words(splits, groups, annotations):
    """The split with a photo of each word in training, which it learns the words from, where a photo can be spared."""
    splits = splits.copy()
    of_words = [
        c
        for name, group in annotations.groups.items()
        if annotations.classes[group.stop - 1] != f"{title(name)} {group.stop - group.start - 1}"
        for c in range(group.start, group.stop)
    ]
    has = annotations.labels.to_dense()[:, of_words] == POSITIVE
    for word in np.flatnonzero(has.any(axis=0) & ~has[splits == "train"].any(axis=0)):
        if has[splits == "train", word].any():  # it came with another word
            continue
        for row in np.flatnonzero(has[:, word]):
            rest = (splits == splits[row]) & (groups != groups[row])
            if rest.any():
                splits[groups == groups[row]] = "train"
                break
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
    for row, folder in progress(places, len(places), "linking images"):
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


def _write_copies(photos, copies, folder, seed, workers, background):
    """Write the augmented copies, {row: number}, into `folder`."""
    save = partial(_save_copies, folder=folder, seed=seed, roots=photos.annotations.roots, background=background)
    tasks = [(photos.annotations.images[row], photos.names[row], number) for row, number in copies.items()]
    with progress(None, sum(copies.values()), "augmenting") as bar:
        for number in parallel_map(save, tasks, workers):
            bar.update(number)


def _save_copies(task, folder, seed, roots, background):
    path, name, number = task
    image = load_rgb(path, roots, background)
    for j, copy in enumerate(_copy_names(name, number), start=1):
        augmented(image, copy_generator(seed, name, j)).save(folder / copy, quality=_JPEG_QUALITY)
    return number


def _write_tables(photos, splits, numbers, weights, folder, roles, say):
    """Write the CSV of each split that has images; that of train with the rows of its copies, or its weights."""
    of_row = splits[photos.image_of_row]
    frame, image = photos.table.frame, photos.column("image")
    place = np.cumsum(splits == "train") - 1  # of an image among those for training
    if (column := photos.column("split")) is not None and column in roles:
        word = dict(zip(split_words(photos.table, column), photos.table.text(column), strict=True))
        frame = frame.assign(**{column: [word.get(split, split) for split in of_row]})
    elif column is not None:
        frame = frame.drop(columns=[column])
    frame = _without_strangers(photos, frame, of_row, say)
    for split in SPLITS:
        rows = np.flatnonzero(of_row == split)
        table, images = frame.iloc[rows], photos.image_of_row[rows]
        if split == "train" and weights is not None:
            cells = [f"{weight:.6f}" for weight in weights[place[images]]]
            table = table.assign(**{photos.column("weight") or WEIGHT: cells})
        elif split == "train" and numbers.any():
            number, names = numbers[place[images]], photos.names
            cells = [
                cell
                for name, row, count in zip(table[image].str.strip(), images, number, strict=True)
                for cell in (name, *_copy_names(names[row], count))
            ]
            table = table.loc[table.index.repeat(1 + number)].assign(**{image: cells})
        if len(table):
            escape_table(table).to_csv(folder / f"attributes_{split}.csv", index=False)


def _without_strangers(photos, frame, of_row, say):
    """The table, with words that no training photo has written as unknown: train.py would refuse them."""
    for one in photos.annotations.columns:
        group = photos.annotations.groups.get(one.name)
        if one.role != "attribute" or not photos.annotations.classes[group.start].startswith(f"{one.name}:"):
            continue
        known = photos.table.known(one.name)[0] >= 0
        words = frame[one.name].str.strip().str.casefold()
        strange = known & ~words.isin(set(words[of_row == "train"])).to_numpy()
        if strange.any():
            frame = frame.assign(**{one.name: frame[one.name].mask(strange, "#N/A")})
            say(
                f"{one.name}: {strange.sum():,} cells say a word that no training photo has, and are written as unknown"
            )
    return frame


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
