"""The folder of a run: its files, its lock, the move of an earlier run, and which run is the latest."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csl.errors import InputError
from csl.machine.files import earlier_folder, locked, parse_json, remove_stale, replacing, strict_json, write_json
from csl.runs.config import TrainConfig

LATEST = Path("outputs") / "last_run.txt"
ENGINES = "engines"
"""The folder beside a checkpoint for what other programs than PyTorch run of it (`csl.engines.kept`)."""

_PATH = {"encoding": "utf-8", "errors": "surrogateescape"}  # a path of any bytes


class RunFolder:
    """The files of one run.

    Args:
        path: the folder, made when first written to.
    """

    ENTRIES = (
        "config.json", "log.jsonl", "last.ckpt", "best.ckpt", "train_avg_preds.csv", "val_avg_preds.csv",
        "estimated_prior.csv", "annotation_model.csv", "probe.csv",
        "partial_labels.npz", "split.csv", "validation.csv", "validation.json", "tensorboard", "plots",
        "results", "results.json", "prior", "report.html", "validation_scores.npz",
        "audit.csv", "audit.npz", "audit.json", ENGINES,
    )  # fmt: skip

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.log = self.path / "log.jsonl"
        self.last = self.path / "last.ckpt"
        self.best = self.path / "best.ckpt"
        self.train_prior = self.path / "train_avg_preds.csv"
        self.val_prior = self.path / "val_avg_preds.csv"
        self.estimated_prior = self.path / "estimated_prior.csv"
        self.annotation_model = self.path / "annotation_model.csv"
        self.probe = self.path / "probe.csv"
        self.features = self.path / "features"  # stays where another run begins: it is of the network and the images
        self.partial_labels = self.path / "partial_labels.npz"
        self.split = self.path / "split.csv"
        self.report = self.path / "report.html"
        self.validation_scores = self.path / "validation_scores.npz"
        self.tensorboard = self.path / "tensorboard"
        self.plots = self.path / "plots"
        self.prior = self.path / "prior"
        self._is_locked = False
        self._moving = self.path / ".moving"  # names the folder that an earlier run is being moved into

    def prior_file(self, config: TrainConfig) -> Path | None:
        """The file of the class prior of a run with these settings, None without one."""
        if config.probe or config.labels_per_image is not None:
            return self.estimated_prior
        if config.prior_path != "auto":
            return None if config.prior_path is None else Path(config.prior_path)
        stage = RunFolder(self.prior)
        return stage.estimated_prior if config.prior_by_em else stage.train_prior

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder for the block. Where this object holds the lock already, it stays held.

        Raises:
            InputError: another process is at work in the folder.
        """
        if self._is_locked:  # a process loses its lock on a file when it closes that file anywhere
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock"):
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    def archive_previous(self) -> str | None:
        """Make the folder; move an earlier run in it into a folder beside, and return the path of that folder.

        The move is all or nothing: `recover` finishes one that was cut short.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.recover()
        old = self._entries()
        if not old:
            return None
        with replacing(self._moving) as temporary:
            temporary.write_text(earlier_folder(old).name)
        return self.recover()

    def recover(self) -> str | None:
        """Clear away what a killed process left: temporary files, and an earlier run that was half moved.

        Returns the folder that the earlier run is in now, None where there was none.
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
        write_json(self.config, config)

    def read_config(self) -> dict[str, Any]:
        """The content of `config.json`, {} without one.

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
        """One clause that says where the last saved state of training is."""
        if self.last.exists():
            return f"the last good state is {self.last}"
        return "nothing was saved yet (--save_every N does oftener)"

    @property
    def network(self) -> Path | None:
        """The file of its network: the best checkpoint, else the last saved state; None where it has neither."""
        return next((file for file in (self.best, self.last) if file.is_file()), None)

    def append_log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl`. A float that is not finite (a mAP without classes) becomes null."""
        with open(self.log, "a") as file:
            file.write(strict_json(entry) + "\n")

    def log_lines(self) -> int:
        """Lines in `log.jsonl`, 0 where there is none."""
        return _bytes(self.log).count(b"\n") if self.log.exists() else 0

    def rewind_log(self, lines: int) -> None:
        """Keep the first `lines` of `log.jsonl`: a resumed run repeats the steps after its checkpoint and logs them again."""
        if not self.log.exists():
            return
        kept = _bytes(self.log).splitlines(keepends=True)[:lines]
        with replacing(self.log) as temporary:
            temporary.write_bytes(b"".join(kept))

    def set_latest(self) -> bool:
        """Make this the run of `latest_network` in the same working folder, if that has a folder `outputs`."""
        if LATEST.parent.is_dir():
            with replacing(LATEST) as temporary:
                temporary.write_text(os.path.relpath(self.path) + "\n", **_PATH)
        return LATEST.parent.is_dir()


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


def latest_network() -> Path:
    """The network of the run that `train.py` last started or finished in this working folder.

    Raises:
        InputError: there is none.
    """
    if LATEST.exists():
        run = RunFolder(LATEST.read_text(**_PATH).replace("\0", "\\0").removesuffix("\n"))
        if run.network is not None:
            return run.network
        raise InputError(f"{LATEST}: names {run.path}, which holds no checkpoint yet, expected a run of train.py")
    raise InputError("no run to use in ./outputs: expected --model_path, or a run of `python train.py` before")


def _bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
