"""A run is one folder: where each of its files is, how it starts, and how the last one is found."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.files import replacing

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

    def start(self) -> str | None:
        """Make the folder; what an earlier run left in it moves into a folder beside, whose path is returned."""
        self.path.mkdir(parents=True, exist_ok=True)
        old = [self.path / name for name in self.ENTRIES if (self.path / name).exists()]
        if not old:
            return None
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(p.stat().st_mtime for p in old)))
        aside = self.path / f"earlier-{stamp}"
        number = 1
        while aside.exists():
            number += 1
            aside = self.path / f"earlier-{stamp}-{number}"
        aside.mkdir()
        for entry in old:
            entry.rename(aside / entry.name)
        return str(aside)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `config.json`."""
        with replacing(self.config) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")

    def append_log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl`; what is not a number (a mAP without classes) becomes null."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
        with open(self.log, "a") as file:
            file.write(json.dumps(plain) + "\n")

    def rewind_log(self, step: int) -> None:
        """Drop the lines that lie behind `step`: a resumed run writes them again."""
        if not self.log.exists():
            return
        kept = [line for line in self.log.read_text().splitlines() if json.loads(line).get("step", 0) <= step]
        with replacing(self.log) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept))

    def make_last(self) -> None:
        """Have `find_last` find this run, from the same working folder."""
        if LAST_RUN.parent.is_dir():
            with replacing(LAST_RUN) as temporary:
                temporary.write_text(os.path.relpath(self.path) + "\n")


def find_last() -> RunFolder:
    """The run that `train.py` last finished or started here.

    Raises:
        InputError: there is none.
    """
    if LAST_RUN.exists():
        run = RunFolder(LAST_RUN.read_text().strip())
        if run.best.exists() or run.last.exists():
            return run
        raise InputError(f"{LAST_RUN}: names {run.path}, which holds no checkpoint yet, expected a run of train.py")
    raise InputError("no run to use in ./outputs: expected --model_path, or a run of `python train.py` before")
