"""What a run takes from an earlier one in its folder: a resumed run goes on with it, a new one moves it aside."""

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from csl import checkpoint
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.machine import distributed
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import changed_settings, label_hash, settings_of
from csl.training import auto
from csl.training.data import Say


def as_started(asked: TrainConfig, run: RunFolder, lock: ExitStack, say: Say) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings of the run, where what the command (`asked`) leaves open is as it was; and its `config.json`, {} if new.

    `resume` is whether there is anything to go on with: then `lock` keeps the folder.
    """
    config = dataclasses.replace(asked, resume=_resumes(asked, run, lock, say))
    before = distributed.broadcast_object(run.read_config()) if config.resume else {}
    config = auto.as_started(config, before)
    if config.resume and config.val_split is None:
        config = dataclasses.replace(config, val_split=before.get("val_split"))
    epochs = before.get("epochs", config.epochs)
    if config.prior_path == "auto" and config.prior_epochs is None and epochs != config.epochs:
        # More epochs are for stage 2: stage 1 has its own already.
        config = dataclasses.replace(config, prior_epochs=before.get("prior_epochs") or epochs)
    return config, before


def _resumes(asked, run, lock, say):
    """Whether to go on with the run in the folder: `--resume` or a restart by torchrun asks for it, and it has saved."""
    restart = not asked.resume and distributed.restarts() > 0
    if not (asked.resume or restart):
        return False
    saved = False
    if distributed.is_main() and not (restart and run.read_config().get("job") != distributed.job()):
        if run.path.exists():
            lock.enter_context(run.locked())
        for folder in (run, RunFolder(run.prior)):
            folder.recover()
            saved |= folder.last.exists()
    saved = distributed.broadcast_object(saved)
    if restart:
        what = "resuming" if saved else "nothing saved, from the start"
        say(f"restart {distributed.restarts()} by torchrun: {what}")
    elif not saved:
        say(f"--resume: no last.ckpt in {run.path} yet, starting from the beginning")
    return saved


def enter(config: TrainConfig, asked: TrainConfig, run: RunFolder, lock: ExitStack, say: Say) -> bool:
    """Make room for a new run; returns whether a resumed one has saved a state of its own, and not of stage 1 alone.

    An earlier run moves aside; a killed beginning of this run does not.
    """
    if config.resume:
        return distributed.broadcast_object(run.last.exists())
    if distributed.is_main():
        lock.enter_context(run.locked())
        ours = run.config.exists() and not changed_settings(settings_of(run.read_config()), config.to_dict())
        if asked.resume and ours and not run.best.exists():
            run.rewind_log(0)
        elif aside := run.archive_previous():
            say(f"the run that was in {run.path} is now in {aside}")
    return False


def first_mask(run: RunFolder, before: Mapping[str, Any]) -> LabelMatrix | None:
    """The partial labels that a resumed run began with, which are checked by its `config.json`; None where it hides none."""
    if not before.get("simulate_partial_type"):
        return None
    expected = before.get("fingerprints")
    expected = expected.get("mask") if isinstance(expected, dict) else None
    mask = LabelMatrix.load(run.partial_labels)
    if expected is not None and label_hash(mask) != expected:
        raise InputError(
            f"{run.partial_labels}: not the labels that the run was started with, expected those of {run.config}"
        )
    return mask


def first_prior(run: RunFolder, train: Annotations) -> Tensor:
    """[C] the prior that the second stage was started with: the first, which ended before it, stays closed."""
    prior = checkpoint.read(run.last).extra.get("prior") if distributed.is_main() else None
    prior = distributed.broadcast_object(prior)
    if prior is None:  # older files do not hold it
        prior = read_prior(RunFolder(run.prior).train_prior, train.classes)
    return prior
