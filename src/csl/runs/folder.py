"""A run is one folder: where each of its files is, how it starts, and how the last one is found."""

import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.machine.files import claim, parse_json, remove_stale, replacing

LAST_RUN = Path("outputs") / "last_run.txt"


class RunFolder:
    """The files of one run.

    Args:
        path: the folder, made when first written to.
    """

    ENTRIES = (
        "config.json", "log.jsonl", "last.ckpt", "best.ckpt", "train_avg_preds.csv", "val_avg_preds.csv",
        "partial_labels.npz", "validation.csv", "validation.json", "tensorboard", "plots",
        "results", "results.json", "prior",
    )  # fmt: skip

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.log = self.path / "log.jsonl"
        self.last = self.path / "last.ckpt"
        self.best = self.path / "best.ckpt"
        self.train_prior = self.path / "train_avg_preds.csv"
        self.val_prior = self.path / "val_avg_preds.csv"
        self.partial_labels = self.path / "partial_labels.npz"
        self.tensorboard = self.path / "tensorboard"
        self.plots = self.path / "plots"
        self.prior = self.path / "prior"
        self._claim = None  # an open file, while this process works in the folder
        self._moving = self.path / ".moving"  # names the folder that an earlier run is on its way into

    def claim(self) -> None:
        """Keep others out of the folder for the life of this object: two that write the same files would ruin them.

        Raises:
            InputError: another process is at work in it.
        """
        if self._claim is None:  # once: a process loses its lock of a file when it closes it anywhere
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim = claim(self.path / ".lock")

    def start(self) -> str | None:
        """Make the folder; what an earlier run left in it moves into a folder beside, whose path is returned.

        The move is all or nothing: one that was cut short is finished by `settle`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.settle()
        old = self._entries()
        if not old:
            return None
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(p.lstat().st_mtime for p in old)))
        aside = f"earlier-{stamp}"
        number = 1
        while (self.path / aside).exists():
            number += 1
            aside = f"earlier-{stamp}-{number}"
        with replacing(self._moving) as temporary:
            temporary.write_text(aside)
        return self.settle()

    def settle(self) -> str | None:
        """Clear away what killed processes left: temporary files, and an earlier run half moved aside.

        Returns the folder of that earlier run, which is whole again then; None where there was none.
        """
        for folder in (self.path, self.plots):
            remove_stale(folder)
        if not self._moving.exists():
            return None
        name = self._moving.read_text(errors="replace")
        if not re.fullmatch(r"earlier-[0-9-]+", name):
            raise InputError(f"{self._moving}: names {name[:80]!r}, expected a folder earlier-...; remove this file")
        aside = self.path / name
        aside.mkdir(exist_ok=True)
        for entry in self._entries():
            entry.rename(aside / entry.name)
        self._moving.unlink()
        return str(aside)

    def _entries(self):
        return [self.path / name for name in self.ENTRIES if os.path.lexists(self.path / name)]

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `config.json`."""
        with replacing(self.config) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """What `config.json` says, empty where there is none.

        Raises:
            InputError: it is no JSON object.
        """
        if not self.config.exists():
            return {}
        content = parse_json(_bytes(self.config), self.config)
        if not isinstance(content, dict):
            raise InputError(f"{self.config}: holds a {type(content).__name__}, expected the settings of a run")
        return content

    def last_state(self) -> str:
        """Where the last state of training is, in words."""
        if self.last.exists():
            return f"the last good state is {self.last}"
        return "nothing was saved yet (--save_every N does oftener)"

    def append_log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl`; what is not a number (a mAP without classes) becomes null."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
        with open(self.log, "a") as file:
            file.write(json.dumps(plain) + "\n")

    def log_lines(self) -> int:
        """Lines in `log.jsonl`, 0 where there is none."""
        return _bytes(self.log).count(b"\n") if self.log.exists() else 0

    def rewind_log(self, lines: int) -> None:
        """Keep the first `lines` of `log.jsonl`: what a killed run wrote behind its checkpoint is written again."""
        if not self.log.exists():
            return
        kept = _bytes(self.log).splitlines(keepends=True)[:lines]
        with replacing(self.log) as temporary:
            temporary.write_bytes(b"".join(kept))

    def make_last(self) -> None:
        """Have `find_last` find this run, from the same working folder."""
        if LAST_RUN.parent.is_dir():
            with replacing(LAST_RUN) as temporary:
                temporary.write_text(os.path.relpath(self.path) + "\n")


def read_log(path: str | Path) -> list[dict]:
    """The entries of a `log.jsonl`.

    Raises:
        InputError: a line is no JSON object.
    """
    entries = []
    for number, line in enumerate(_bytes(Path(path)).splitlines(), start=1):
        entry = parse_json(line, f"{path}, line {number}")
        if not isinstance(entry, dict):
            raise InputError(f"{path}, line {number}: holds a {type(entry).__name__}, expected a JSON object")
        entries.append(entry)
    return entries


def find_last() -> RunFolder:
    """The run that `train.py` last finished or started here.

    Raises:
        InputError: there is none.
    """
    if LAST_RUN.exists():
        run = RunFolder(LAST_RUN.read_text(errors="replace").replace("\0", "\\0").strip())
        if run.best.exists() or run.last.exists():
            return run
        raise InputError(f"{LAST_RUN}: names {run.path}, which holds no checkpoint yet, expected a run of train.py")
    raise InputError("no run to use in ./outputs: expected --model_path, or a run of `python train.py` before")


def _bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
