"""The command that repeats a run, and what has changed since."""

import os
from pathlib import Path
from typing import NamedTuple

from csl.errors import InputError, printable
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import command, differences, fingerprint, label_hash, revision, settings_of, versions
from csl.training.data import load_data, with_simulated_labels, without_bad_images


class Reproduction(NamedTuple):
    """The command that repeats a run, for a shell, and one line for each thing that has changed since."""

    command: str
    notes: list[str]


def reproduce(path: str | Path, look_at_data: bool = True) -> Reproduction:
    """The command that made the run in a folder, and what has changed since: versions, revision, data, mask.

    Args:
        path: the folder of a run.
        look_at_data: whether its annotations are read, to compare fingerprints.

    Raises:
        InputError: no such run, or a `config.json` that is not one.
    """
    run = RunFolder(path)
    kept = run.read_config()
    settings = settings_of(kept)
    if not settings.get("data") or "epochs" not in settings:
        raise InputError(f"{run.config}: not there or without settings, expected the folder of a run of train.py")
    launch = kept.get("launch") if isinstance(kept.get("launch"), dict) else {}
    line = printable(command(settings, launch))
    notes = _in_another_place(launch)
    for start in [kept, *(kept["resumed"] if isinstance(kept.get("resumed"), list) else [])]:
        notes += _other_versions(start, "then" if start is kept else "when it was resumed")
    if kept.get("revision") != (now := revision()):
        notes.append(f"code of revision {kept.get('revision') or 'unknown'} then, {now or 'unknown'} now")
    elif now and now.endswith("-dirty"):
        notes.append(f"code of revision {now}: changes that no commit holds, then and now")
    if look_at_data:
        notes += _changes_of_data(settings, kept)
    return Reproduction(line, [printable(note) for note in notes])


def _in_another_place(launch):
    notes, folder = [], launch.get("folder")
    if isinstance(folder, str) and folder != os.getcwd():
        notes.append(f"started in {folder}: relative paths are from there")
    if isinstance(nodes := launch.get("processes"), int) and nodes != launch.get("processes_per_node"):
        notes.append(f"{nodes} processes on several machines: torchrun's --rdzv flags have to be added")
    return notes


def _other_versions(start, when):
    then = start.get("versions") if isinstance(start, dict) else None
    then = then if isinstance(then, dict) else {}
    notes = [
        f"{name} {then.get(name) or 'unknown'} {when}, {found} now"
        for name, found in versions().items()
        if then.get(name) != found
    ]
    if when != "then" and isinstance(start, dict):
        notes.append(f"code of revision {start.get('revision') or 'unknown'} {when}")
    return notes


def _changes_of_data(settings, kept):
    prints = kept.get("fingerprints") if isinstance(kept.get("fingerprints"), dict) else {}
    try:
        config = TrainConfig(**settings)
        data = load_data(config, lambda _: None)
        now = {"train": fingerprint(data.train), "val": fingerprint(data.val)}
        notes = []
        for name in now:
            then = prints.get(name)
            changed = differences(then, now[name]) if isinstance(then, dict) else ["unknown then"]
            notes += [f"{name} data: {what}" for what in changed]
        if not notes and config.simulate_partial_type:
            data, _ = without_bad_images(data, config, lambda _: None, kept.get("left_out"))
            mask = label_hash(with_simulated_labels(data, config, lambda _: None).train.labels)
            notes += [] if mask == prints.get("mask") else ["the mask of partial labels differs"]
        return notes
    except (InputError, TypeError) as error:
        return [f"the data cannot be compared: {error}"]
