"""What is understood of annotations before anything is trained: columns and their roles, counts, the first rows."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from csl.errors import InputError, NoSplit, printable
from csl.labels.annotations import Annotations
from csl.labels.division import owners
from csl.labels.matching import few, few_names, with_classes
from csl.labels.options import DataOptions
from csl.labels.paths import SPLITS, TEST_AS_VAL, split_of
from csl.labels.read import read_split
from csl.labels.table import UNKNOWN
from csl.machine.invocation import command

_COLUMNS = 20  # shown of each role
_ROWS = 3  # shown of the labels
_NAMES = 8  # shown of the classes of a row
_LOOKED_FOR = 2000  # photos, spread over the set
_MOST_COMPARED = 1_000_000  # images of the training split
_WIDEST = 34  # characters of a cell of the printed table


def column_lines(annotations: Annotations) -> list[str]:
    """The columns of a table, the first of each role, as an aligned table, and its notes; [] where there is nothing to say."""
    rows = [("column", "role", "classes", "known 1", "known 0", "unknown", "examples", "")]
    of_role: Counter[str] = Counter()
    for one in annotations.columns:
        of_role[one.role] += 1
        if of_role[one.role] > _COLUMNS:
            continue
        known = (one.positive, one.negative, one.unknown)
        shares = ["" if share is None else f"{100 * share:.1f} %" for share in known]
        rows.append((one.name, one.role, str(one.classes or ""), *shares, ", ".join(one.examples), one.why))
    cells = [[_short(cell) if k < 7 else printable(cell) for k, cell in enumerate(row)] for row in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(7)]
    lines = ["  ".join([*(row[k].ljust(widths[k]) for k in range(7)), row[7]]).rstrip() for row in cells]
    if more := {role: count - _COLUMNS for role, count in of_role.items() if count > _COLUMNS}:
        words = ", ".join(f"{count:,} more columns of role {role}" for role, count in more.items())
        lines.append(f"... and {words}; {command('inspect', annotations.source, '--json')} prints all")
    return [*(lines if annotations.columns else []), *map(printable, annotations.notes)]


def label_warnings(split: str, annotations: Annotations) -> list[str]:
    """What the known labels of a split cannot tell, why, and where to look; [] where each class has both kinds."""
    counts, classes = annotations.labels.counts(), annotations.classes
    none = {"positive": counts.positives == 0, "negative": counts.negatives == 0}
    either = none["positive"] | none["negative"]
    training = split == "train"
    no_map = "" if training else ", so that mAP on annotated entries is undefined (nan)"
    look = "`python -m csl inspect DATA` shows how cells are read"
    if (none["positive"] & none["negative"]).all():
        return [f"warning: {split}: no label is known{no_map}: {look}, and which are taken for unknown"]
    flags = {"positive": "--roles or --vote_threshold", "negative": "--unlisted or --minus_one"}
    lines = [
        f"warning: {split}: no known {kind} in any class{no_map}: {look}; for a table {flags[kind]} may say more"
        for kind, missing in none.items()
        if missing.all()
    ]
    if either.all() and not lines and not training:
        lines.append(f"warning: {split}: no class has both a known positive and a known negative{no_map}: {look}")
    if some := [f"no known {kind} in {missing.sum():,}" for kind, missing in none.items() if missing.any()]:
        learns = "what learns from annotated labels alone takes such a class for never or always there"
        why = learns if training else "such a class counts in no mAP on annotated entries"
        names = few([classes[c] for c in np.flatnonzero(either)])
        lines.append(f"warning: {split}: {' and '.join(some)} of {len(classes):,} classes ({names}); {why}")
    return lines


def _short(text):
    text = printable(text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def inspect(options: DataOptions) -> tuple[dict[str, Any], list[str]]:
    """Look at annotations without training on them.

    Args:
        options: what to read, and how.

    Returns:
        What `csl inspect --json` prints: `splits` (name -> images, classes, groups, and the counts of positive, negative and
        unknown entries; "all" where no split is stated), `columns` and `notes`; and lines of text that say the same.

    Raises:
        InputError: the annotations cannot be read.
    """
    parts: dict[str, Annotations] = {}
    refusals: list[InputError] = []
    for split in SPLITS:
        try:
            parts[split] = read_split(options, split)
        except InputError as error:
            if split == SPLITS[0] and not isinstance(error, NoSplit):
                raise
            refusals.append(error)
    if not parts:
        raise refusals[0]
    if "train" not in parts and "test" in parts and TEST_AS_VAL in parts["val"].notes:
        del parts["val"]
    first = next(iter(parts.values()))
    if "train" in parts and len({(part.source, len(part), *part.images[:1]) for part in parts.values()}) == 1:
        if not first.columns:  # a file that is read as any split
            data = Path(options.data)
            parts = {split_of(Path(first.source), data if data.is_dir() else data.parent) or "all": first}
        elif len(first) == len(read_split(options, None)):
            parts = {"all": first}
    notes = [note for part in parts.values() for note in with_classes(part, first.classes).notes]
    report = {
        "source": first.source,
        "splits": {name: _counts(part) for name, part in parts.items()},
        "columns": [one._asdict() for one in first.columns],
        "notes": list(dict.fromkeys(notes)),
    }
    if first is not parts.get("val") and "val" in parts:
        report["notes"] += images_in_both(first, parts["val"])
    lines = [*column_lines(first), *(note for note in map(printable, report["notes"]) if note not in first.notes), ""]
    for name, part in parts.items():
        lines += [f"{name}: {printable(part.described())}; {_found(part)}"]
        lines += map(printable, label_warnings(name, part))
    return report, [*lines, "", *(line for row in range(min(_ROWS, len(first))) for line in _row(first, row))]


def images_in_both(train: Annotations, val: Annotations) -> list[str]:
    """One line each, for messages: images that are in both splits, those of one name and size in both, and patients (`owners`).

    Sets of over a million images are not looked through.
    """
    if len(train) > _MOST_COMPARED:
        return []
    of_val = set(val.images)
    by_name = {os.path.basename(image): image for image in val.images}
    both = [image for image in train.images if image in of_val]
    named = ((image, by_name.get(os.path.basename(image))) for image in train.images if image not in of_val)
    alike = [image for image, other in named if other and 0 < _size(image) == _size(other)]
    return [
        printable(f"{len(found):,} images {what}: {few_names([os.path.basename(image) for image in found], 3)}")
        for found, what in (
            (both, "are in train and in val, which flatters the results"),
            (alike, "of train have the name and the size of one of val, perhaps the same photo"),
            *_owned_in_both(train, val),
        )
        if found
    ]


def _owned_in_both(train, val):
    """The images of train whose patient has one in val, too, and what to say of them."""
    owner, _ = owners(train) or ("", None)
    if not owner or val.table is None or owner not in val.table:
        return []
    whose = train.table[owner].str.strip()
    shared = whose.isin(val.table[owner].str.strip()) & ~whose.str.lower().isin(UNKNOWN)
    images = [train.images[int(row)] for row in np.flatnonzero(shared)]
    return [(images, f"of train have the {owner!r} of one of val, which flatters the results")]


def _size(image):
    return os.path.getsize(image) if os.path.isfile(image) else 0


def _counts(part):
    counts = part.labels.counts()
    return {
        "images": len(part),
        "classes": list(part.classes),
        "groups": {name: group.stop - group.start for name, group in (part.groups or {}).items()} or None,
        "positives": int(counts.positives.sum()),
        "negatives": int(counts.negatives.sum()),
        "unknown": int(counts.unannotated.sum()),
    }


def _found(part):
    """How many of the photos are there, of a sample."""
    rows = np.unique(np.linspace(0, len(part) - 1, min(len(part), _LOOKED_FOR)).astype(int)) if len(part) else []
    there = sum(os.path.isfile(part.images[int(row)]) for row in rows)
    return f"{there:,} of {len(rows):,} photos" + (" looked for" if len(rows) < len(part) else "") + " are there"


def _row(part, row):
    labels = part.labels[[row]][0]
    lines = [printable(str(part.images[row]))]
    for value, word in ((1, "positive"), (0, "negative"), (-1, "unknown")):
        names = [part.classes[c] for c in np.flatnonzero(labels == value)]
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        lines.append(f"    {word}: {printable(', '.join(names[:_NAMES]))}{more}" if names else f"    {word}: none")
    return lines
