"""What a checkpoint of training holds beside the weights, and how a later process goes on from it as if none had stopped."""

from typing import Any

import torch
from torch import Tensor, nn

from csl.checkpoint import Checkpoint
from csl.errors import InputError
from csl.machine import distributed
from csl.runs.record import changed_settings


def state_of(trainer: Any) -> dict[str, Any] | None:
    """All that a resumed run of this `Trainer` needs, on rank 0; None on the others. All processes call it."""
    parts = distributed.gather_objects_to_main(_part_of(trainer))
    if not distributed.is_main():
        return None
    ema = trainer.ema
    return {
        "model": contiguous_state(trainer.model),
        "ema": ema and {**ema.state_dict(), "state": contiguous_state(ema.module)},
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "epoch": trainer.epoch,
        "step": trainer.step,
        "global_batch": trainer.global_batch,
        **parts[0],
        "other_processes": parts[1:],
        "best": trainer.best,
        "best_weights": trainer.best.get("weights", "model"),
        "bad_images": list(trainer.bad_images),
        "skipped": trainer.finite.skipped,
        "evaluated": trainer.evaluated,
        "log_lines": trainer.run.log_lines(),
        **trainer.description(),
    }


def restore(trainer: Any, state: Checkpoint) -> None:
    """Put the trainer where `state_of` was called, with any number of processes that makes the same global batch.

    Raises:
        InputError: the state is of another network, data set, schedule or other settings.
    """
    try:
        _check(trainer, state)
        _check_counts(trainer, state)
        _take(trainer, state.extra, state.state_dict)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{state.path}: not the state of this run ({reason})") from error


def contiguous_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in the usual memory format, so that a file does not depend on how the network was trained."""
    return {k: v.contiguous() for k, v in model.state_dict().items()}


def _check(trainer, state):
    path, extra, classes = state.path, state.extra, trainer.val.classes
    if "optimizer" not in extra:
        raise InputError(f"{path}: weights alone, expected the state of a run of train.py")
    if state.classes != list(classes):
        raise InputError(f"{path}: {len(state.classes or [])} other classes than the data has, cannot resume")
    if extra.get("global_batch", trainer.global_batch) != trainer.global_batch:
        raise InputError(
            f"{path}: {extra['global_batch']} images a step, this command has {trainer.global_batch} "
            f"({trainer.processes} processes x --batch_size x --grad_accum); expected the same"
        )
    total = extra["scheduler"]["total_steps"]
    if total != trainer.schedule.total_steps:
        raise InputError(
            f"{path}: a schedule of {total} steps, this command has {trainer.schedule.total_steps}; resume "
            "with the data, --epochs and --batch_size it was started with"
        )
    if extra["scheduler"].keys() != trainer.schedule.state_dict().keys():
        raise InputError(f"{path}: made with another schedule than --schedule {trainer.options.schedule}")
    if (extra["ema"] is None) != (trainer.ema is None):
        found = "no moving average" if extra["ema"] is None else "a moving average"
        raise InputError(
            f"{path}: holds {found} of the weights, this command has --ema_decay "
            f"{trainer.options.ema_decay:g}; resume with the one it was started with"
        )
    if changed := changed_settings(extra.get("config") or {}, trainer.options.describe.get("config") or {}):
        raise InputError(f"{path}: the run was started with other settings, expected the same: {', '.join(changed)}")


def _check_counts(trainer, state):
    """What is counted and compared with. Tensors are checked by who loads them; counts PyTorch takes as they are."""
    extra, per_epoch = state.extra, trainer.steps_per_epoch
    epoch = _whole(state, extra["epoch"], "epoch", 0, trainer.schedule.total_steps // per_epoch)
    step = _whole(state, extra["step"], "step", epoch * per_epoch, (epoch + 1) * per_epoch)
    _whole(state, extra.get("evaluated", step), "evaluated", -1, step)
    _whole(state, extra.get("skipped", 0), "skipped", 0, step)
    _whole(state, extra["log_lines"], "log_lines", 0)
    for name in ("last_epoch", "_step_count"):
        _whole(state, extra["scheduler"].get(name, 0), f"scheduler/{name}", 0)
    if extra["ema"] is not None:
        _whole(state, extra["ema"]["updates"], "ema/updates", 0)
    for part in (extra, *extra["other_processes"]):
        _whole(state, part["loss_samples"], "loss_samples", 0)
        _whole(state, part["prior_sum"]["samples"], "prior_sum/samples", 0)
    best = extra["best"]
    kinds = {"epoch": int, "step": int, "weights": str, "mAP": float, "mAP_negative": float}
    if best != {} and not (
        isinstance(best, dict) and best.keys() == kinds.keys() and all(type(best[k]) is kinds[k] for k in kinds)
    ):
        raise InputError(f"{state.path}: best: expected the results of an epoch ({', '.join(kinds)})")


def _whole(state, value, name, low, high=None):
    if type(value) is not int or value < low or (high is not None and value > high):
        found = value if type(value) is int else f"a {type(value).__name__}"
        wanted = f"of {low} or more" if high is None else f"between {low} and {high}"
        raise InputError(f"{state.path}: {name}: found {found}, expected a whole number {wanted}")
    return value


def _take(trainer, extra, weights):
    trainer.model.load_state_dict(extra.get("model", weights))
    if trainer.ema is not None:
        trainer.ema.load_state_dict(extra["ema"])
    trainer.optimizer.load_state_dict(extra["optimizer"])
    trainer.schedule.load_state_dict(extra["scheduler"])
    trainer.scaler.load_state_dict(extra["scaler"])
    _take_part(trainer, [extra, *extra["other_processes"]])
    trainer.epoch, trainer.step, trainer.best = extra["epoch"], extra["step"], extra["best"]
    trainer.bad_images = dict.fromkeys(extra["bad_images"])
    trainer.finite.skipped, trainer.evaluated = extra.get("skipped", 0), extra.get("evaluated", trainer.step)
    if distributed.is_main():
        trainer.run.rewind_log(extra["log_lines"])


def _part_of(trainer):
    """What each process has of its own: its generator, and its part of the epoch's sums."""
    cuda = torch.cuda.get_rng_state(trainer.device) if trainer.device.type == "cuda" else None
    return {
        "rng": {"torch": torch.get_rng_state(), "cuda": cuda},
        "prior_sum": trainer.prior.state_dict(),
        "loss_sum": trainer.loss_sum.item(),
        "loss_samples": trainer.loss_samples,
    }


def _take_part(trainer, parts):
    """Go on from the parts of as many processes, or of another number: then rank 0 has all the sums."""
    mine, rank = parts, distributed.rank()
    if len(parts) == trainer.processes:
        mine = parts[rank : rank + 1]
    elif rank > 0:
        mine = []
    nothing = torch.zeros_like(trainer.prior.total, device="cpu")
    trainer.prior.load_state_dict(
        {
            "total": sum((p["prior_sum"]["total"] for p in mine), nothing),
            "samples": sum(p["prior_sum"]["samples"] for p in mine),
        }
    )
    trainer.loss_sum.fill_(sum(p["loss_sum"] for p in mine))
    trainer.loss_samples = sum(p["loss_samples"] for p in mine)
    if rank < len(parts):
        torch.set_rng_state(parts[rank]["rng"]["torch"])
        cuda = parts[rank]["rng"]["cuda"]
        if trainer.device.type == "cuda" and cuda is not None:
            torch.cuda.set_rng_state(cuda, trainer.device)
