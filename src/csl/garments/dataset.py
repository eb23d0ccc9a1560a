"""Make the demo set: drawn garments with three attributes, of which about 40 % are unknown.

The set stands in for real fashion data and needs no download: an image folder, an attributes file with `#N/A` for
unknown values, and a file with all values, to check what a model predicts for the unknown ones.
"""

import csv
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from csl.errors import InputError
from csl.garments.cut import NECKS, SLEEVES
from csl.garments.fabric import PATTERNS
from csl.garments.scene import draw_garment
from csl.machine.processes import available_cores, parallel_map

ATTRIBUTES = {"neck": NECKS, "sleeve_length": SLEEVES, "pattern": PATTERNS}
_UNKNOWN = "#N/A"
_UNKNOWN_SHARE = 0.4  # of the entries of attributes.csv, whatever their value
_DRAWING = 1  # goes up when the same seed gives other pictures
_FREQUENCIES = {  # of the values of each attribute: a long tail
    "neck": (0.24, 0.18, 0.14, 0.12, 0.12, 0.1, 0.1),
    "sleeve_length": (0.2, 0.34, 0.2, 0.26),
    "pattern": (0.2, 0.14, 0.1, 0.1, 0.1, 0.07, 0.07, 0.07, 0.07, 0.08),
}


def draw_values(seed: int, index: int) -> tuple[dict[str, int], dict[str, bool], Generator]:
    """The attributes of garment `index` (from 1) of the set `seed`, and which of them are known.

    Returns:
        values: {attribute: int}; known: {attribute: bool}; rng: the generator, ready to draw the picture.
    """
    rng = np.random.default_rng([seed, index])
    values = {name: int(rng.choice(len(p), p=p)) for name, p in _FREQUENCIES.items()}
    known = {name: bool(rng.random() >= _UNKNOWN_SHARE) for name in _FREQUENCIES}
    return values, known, rng


def save_garment(index: int, folder: str | Path, size: int, seed: int) -> None:
    """Draw garment `index` (from 1) of the set `seed`, `size` pixels wide, to `{folder}/{index:05d}.jpg`."""
    values, _, rng = draw_values(seed, index)
    image = draw_garment(rng, values["neck"], values["sleeve_length"], values["pattern"], size)
    image.save(Path(folder) / f"{index:05d}.jpg", quality=90)


def make_garments(
    root: str | Path,
    num_train: int = 1500,
    num_val: int = 500,
    size: int = 160,
    seed: int = 0,
    progress: bool = True,
    workers: int | None = None,
) -> Path:
    """Draw the demo set into the folder `root`, or return at once if it is already there.

    It holds `images/00001.jpg` and so on (the training images first), `attributes.csv` with the columns filename,
    neck (0-6), sleeve_length (0-3), pattern (0-9) and split (train or val), where about 40 % of the values are
    `#N/A`; `truth.csv`, the same without unknowns; and `garments.json`, the parameters. Image i and its labels
    depend on `seed` and i alone. The folder appears whole or not at all; a set of other parameters is replaced.

    Args:
        root: the folder to make.
        num_train: number of training images, at least 1.
        num_val: number of validation images, at least 0.
        size: side of the square images in pixels, at least 32.
        seed: a non-negative integer.
        progress: whether to show a progress bar.
        workers: number of processes; None for one per available core. Fewer than 100 images are drawn in this process.

    Returns:
        `root` as a Path.

    Raises:
        InputError: a number is out of range, or `root` is a file or holds something other than a drawn set.
    """
    root = Path(root)
    parameters = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed, "drawing": _DRAWING}
    for name, least in (("num_train", 1), ("num_val", 0), ("size", 32), ("seed", 0)):
        if parameters[name] < least:
            raise InputError(f"{name}: found {parameters[name]}, expected at least {least}")
    if (root / "attributes.csv").exists() and _read_parameters(root) == parameters:
        return root
    if root.exists() and not (root.is_dir() and (not any(root.iterdir()) or (root / "garments.json").exists())):
        raise InputError(f"{root} exists and is no drawn garment set: choose a new or an empty folder")

    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        draft.chmod(0o755)
        _draw_images(draft / "images", num_train + num_val, size, seed, progress, workers)
        _write_tables(draft, num_train, num_val, seed)
        (draft / "garments.json").write_text(json.dumps(parameters, indent=2) + "\n")
        if root.exists():
            shutil.rmtree(root)
        draft.rename(root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return root


def _read_parameters(root):
    """The parameters that the set in `root` was drawn with; None where garments.json is missing or damaged."""
    try:
        return json.loads((root / "garments.json").read_text())
    except (OSError, ValueError):
        return None


def _draw_images(folder, count, size, seed, progress, workers):
    """Draw images 1 to `count` into `folder`, in several processes where that pays."""
    folder.mkdir()
    save = partial(save_garment, folder=folder, size=size, seed=seed)
    workers = 1 if count < 100 else workers or available_cores()
    saved = parallel_map(save, range(1, count + 1), workers, chunksize=16)
    for _ in tqdm(saved, total=count, desc="drawing garments", unit="image", disable=None if progress else True):
        pass


def _write_tables(folder, num_train, num_val, seed):
    """Write attributes.csv and truth.csv."""
    names = ["attributes.csv", "truth.csv"]
    with open(folder / names[0], "w", newline="") as partly, open(folder / names[1], "w", newline="") as fully:
        tables = csv.writer(partly, lineterminator="\n"), csv.writer(fully, lineterminator="\n")
        for table in tables:
            table.writerow(["filename", *ATTRIBUTES, "split"])
        for index in range(1, num_train + num_val + 1):
            values, known, _ = draw_values(seed, index)
            filename, split = f"{index:05d}.jpg", "train" if index <= num_train else "val"
            tables[0].writerow([filename, *(values[a] if known[a] else _UNKNOWN for a in ATTRIBUTES), split])
            tables[1].writerow([filename, *(values[a] for a in ATTRIBUTES), split])
