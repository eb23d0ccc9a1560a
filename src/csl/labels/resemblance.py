"""What a path holds that no format recognises, which format it resembles most, and what to do: three lines."""

import os
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.labels.dialect import SUFFIXES, header_of
from csl.labels.layouts import has_keys
from csl.labels.matching import few, few_names
from csl.machine.files import parse_json
from csl.machine.image_formats import is_image_name

_DEPTH, _MOST = 3, 2000  # folders below the given one, and their entries, that are looked at
_TRIED = 100  # files and folders that may be what was meant
_OTHER = dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers", ".feather", ".mat", ".pkl"), "saved as CSV")
_OTHER |= dict.fromkeys((".zip", ".gz", ".tgz", ".7z", ".rar"), "unpacked")
_TABLES = {*SUFFIXES} - {".json"}
_INSPECT = "`python -m csl inspect DATA` shows what is read"


def explain(path: Path, formats: Sequence[Any]) -> tuple[str, str, str]:
    """What was found, what it resembles and lacks, and the flags that would do: three short lines.

    Args:
        path: a file or folder.
        formats: the rows of `csl.labels.read.FORMATS`.
    """
    entries = list(_entries(path)) if path.is_dir() else [(path.name, path)]
    found = f"{path}: annotations not recognised: found {_kinds(entries) if path.is_dir() else _content(path)}"
    lacks, expected = _likeness(path, formats, entries)
    return found, lacks if lacks.startswith("like ") else f"most like {lacks}", f"expected {expected}"


def _likeness(path, formats, entries):
    """What the path resembles and lacks, and what is expected instead."""
    others = [(name, file) for name, file in entries if not _is_photo(file)][:_MOST]
    scored = [(one, [_met(sign, others) for sign in one.signs]) for one in formats]
    best, met = max(scored, key=lambda pair: (sum(map(bool, pair[1])), sum(map(bool, pair[1])) / max(len(pair[1]), 1)))
    lacks = f"{best.name}: missing {_missing(best, met) or 'its usual name'}" if any(met) else None
    for _, file in others[:_TRIED]:
        with suppress(InputError):  # it is recognised, and asks something
            reader = next((one.name for one in formats if one.recognise(file)), None)
            if reader is not None and file != path and file.suffix.lower() not in _TABLES:
                images = "" if file.is_dir() else "; --images DIR names its photos"
                return (
                    lacks or f"{reader}: missing its usual place",
                    f"--data {file}, which is read as {reader}{images}",
                )
    if lacks:
        return lacks, f"{best.looks_for}, or --data FILE --images DIR; {_INSPECT}"
    for _, file in others:
        if header := header_of(file):
            column = f"a column in {file.name} that line 1 calls as one of image names: {few_names(header)}"
            return f"a table: missing {column}", f"--data {file} --filename_column NAME; {_INSPECT}"
        if (what := _OTHER.get(file.suffix.lower())) is not None:
            return (
                f"data in another form: missing {file.name} {what}",
                f"it {what}, then --data FILE or DIR; {_INSPECT}",
            )
    for name, file in others:
        if file.suffix.lower() == ".json":
            has = f" ({_content(file)})" if file != path else ""
            return (
                f"JSON of another tool: missing the keys of COCO's, Datumaro's or Label Studio's in {name}{has}",
                f"--data FILE in one of these, in YOLO's or Pascal VOC's form, or a table; {_INSPECT}",
            )
    if any(_is_photo(file) for _, file in entries):
        table = "attributes.csv with a column filename and one for each class beside them, or --data FILE --images DIR"
        return "photos without labels: missing a table that names them, or other annotations", f"{table}; {_INSPECT}"
    return (
        "like no known format: missing annotations",
        f"{', '.join(dict.fromkeys(one.name for one in formats))}: --data FILE or DIR; {_INSPECT}",
    )


def _entries(folder, depth=_DEPTH, above=""):
    """(path relative to the first folder, path) of what is in a folder, and behind that in those in it."""
    with os.scandir(folder) as scan:
        entries = sorted(scan if depth == _DEPTH else islice(scan, _MOST), key=lambda entry: entry.name)
    for entry in entries:
        yield f"{above}{entry.name}", Path(entry.path)
    for entry in entries:
        if depth > 1 and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            with suppress(OSError):
                yield from _entries(entry.path, depth - 1, f"{above}{entry.name}/")


def _is_photo(file):
    return is_image_name(file.name)


def _kinds(entries):
    """What is in a folder itself: `240 .jpg (0.jpg, ...), 1 .xlsx (labels.xlsx), folders a, b`."""
    kinds: dict[str, list[str]] = {}
    folders = []
    for name, path in entries:
        if "/" not in name and path.is_dir():
            folders.append(name[:40])
        elif "/" not in name:
            kinds.setdefault(path.suffix.lower() or "without a suffix", []).append(name[:40])
    largest = sorted(kinds, key=lambda kind: -len(kinds[kind]))
    parts = [f"{len(kinds[kind]):,} {kind} ({few(kinds[kind], 1)})" for kind in largest[:5]]
    parts += [f"{len(largest) - 5} other kinds of files"] if len(largest) > 5 else []
    parts += [f"folder{'s' if len(folders) > 1 else ''} {few(folders)}"] if folders else []
    return ", ".join(parts) or "nothing"


def _met(sign, entries):
    """The entry that meets a sign, or None."""
    pattern, _, word = sign.partition(":")
    ends = pattern.lower(), f"*/{pattern.lower()}"
    matching = (file for name, file in entries if any(fnmatch(name.lower(), end) for end in ends))
    some = islice(matching, 20)
    return next((file for file in some if not word or has_keys(word)(file) or word in header_of(file)), None)


def _missing(best, met):
    missing = []
    for sign, there in zip(best.signs, met, strict=True):
        pattern, _, word = sign.partition(":")
        files = [file.name for one, file in zip(best.signs, met, strict=True) if file and one.startswith(f"{pattern}:")]
        if there is None:
            missing.append(f"{word!r} in {files[0] if files else pattern}" if word else pattern)
    return few(missing)


def _content(file):
    """What a file is, for the message."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return f"a CSV with the columns {few_names(header_of(file)) or '(none)'}"
    if suffix != ".json":
        return f"a file of type {file.suffix or '(none)'}"
    try:
        content = parse_json(file.read_bytes(), "JSON that does not parse")
    except (OSError, InputError) as error:
        return str(error)
    if not isinstance(content, dict):
        return f"a JSON {type(content).__name__}"
    return f"JSON with the keys {few_names(list(content), 8) or '(none)'}"
