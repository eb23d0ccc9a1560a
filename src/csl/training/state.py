"""The state of training, as parts with `state_dict()`: what a resumed run needs to go on as if it had not stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from csl.checkpoint import Checkpoint
from csl.errors import InputError
from csl.labels import Annotations
from csl.machine import distributed
from csl.metrics.estimated import ESTIMATES
from csl.models import TimmWithHead
from csl.prior import ClassPrior
from csl.runs.record import FREE, check_same_settings
from csl.training.optim import contiguous_state


class Stateful(Protocol):
    """A part of the state, the same on every process."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go on from `state_dict()`."""


class OwnState(Protocol):
    """A part of the state that each process has of its own."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_parts` needs of this process."""

    def load_parts(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Go on from the `state_dict()` of each process of the earlier job, in the order of their ranks."""


@dataclass
class Counts:
    """How far training has come.

    Attributes:
        epoch: the epoch under way, from 0.
        step: steps done, over all epochs.
        evaluated: the step of the last evaluation that ended an epoch or training, -1 before the first.
    """

    epoch: int = 0
    step: int = 0
    evaluated: int = -1

    def place(self, later: int = 0) -> str:
        """The steps done, or with `later` 1 the step under way, in words."""
        return f"epoch {self.epoch + 1} {'at' if later else 'after'} step {self.step + later}"

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`. Older files do not hold `evaluated`: they were saved after an evaluation."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.evaluated = state.get("evaluated", self.step)


class EpochSums:
    """This process's sums over the epoch under way: the loss, and the class prior.

    Attributes:
        prior: the mean probability of each class over the images so far.
        images: that the loss was summed over.
    """

    def __init__(self, num_classes: int, device: torch.device):
        self.num_classes, self.device = num_classes, device
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self.prior = ClassPrior(self.num_classes, self.device)
        self.loss, self.images = torch.zeros((), device=self.device), 0

    def update(self, logits: Tensor, loss: Tensor, alone: Tensor | None = None) -> None:
        """Add a batch: its logits [B, C], the sum of its losses, and which images count for the prior, bool [B] (all)."""
        self.loss += loss
        self.images += len(logits)
        if alone is not None:  # by their numbers: the host would read a mask on a GPU
            logits = logits[alone.nonzero().squeeze(1).to(logits.device, non_blocking=True)]
        self.prior.update(logits)

    def own_mean_loss(self) -> float:
        """The loss per image of this process."""
        return (self.loss / max(self.images, 1)).item()

    def mean_loss(self) -> float:
        """The loss per image over all processes, which all call this."""
        total = torch.tensor([self.loss.item(), self.images], dtype=torch.float64)
        loss, images = distributed.all_reduce_sum(total).tolist()
        return loss / max(images, 1)

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process."""
        return {"prior_sum": self.prior.state_dict(), "loss_sum": self.loss.item(), "loss_samples": self.images}

    def load_parts(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Take this process's part; where the number of processes changed, rank 0 takes the sum of all parts."""
        rank = distributed.rank()
        if len(parts) == distributed.world_size():
            parts = parts[rank : rank + 1]
        elif rank > 0:
            parts = []
        nothing = torch.zeros_like(self.prior.total, device="cpu")
        self.prior.load_state_dict(
            {
                "total": sum((p["prior_sum"]["total"] for p in parts), nothing),
                "samples": sum(p["prior_sum"]["samples"] for p in parts),
            }
        )
        self.loss.fill_(sum(p["loss_sum"] for p in parts))
        self.images = sum(p["loss_samples"] for p in parts)


class Generators:
    """PyTorch's random generators, which dropout draws from.

    Args:
        device: whose generator is saved beside the CPU's.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def state_dict(self) -> dict[str, Any]:
        """The states of the generators."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {"rng": {"torch": torch.get_rng_state(), "cuda": cuda}}

    def load_parts(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Take this process's states; a process that an earlier job did not have keeps its own."""
        if distributed.rank() >= len(parts):
            return
        states = parts[distributed.rank()]["rng"]
        torch.set_rng_state(states["torch"])
        if self.device.type == "cuda" and states["cuda"] is not None:
            torch.cuda.set_rng_state(states["cuda"], self.device)


class TrainingState:
    """All parts of the state of training.

    Args:
        model: whose weights are saved under "model".
        parts: saved under their names.
        plain: parts whose entries are saved beside the names.
        own: parts that each process has of its own.
    """

    def __init__(
        self, model: nn.Module, parts: Mapping[str, Stateful], plain: Sequence[Stateful], own: Sequence[OwnState]
    ):
        self.model, self.parts, self.plain, self.own = model, parts, plain, own

    def state_dict(self) -> dict[str, Any] | None:
        """The whole state on rank 0, None on the other processes; all of them call this."""
        own = distributed.gather_objects_on_rank0(_merged(self.own))
        if own is None:
            return None
        return {
            "model": contiguous_state(self.model),
            "ema": None,  # where there is a moving average, it is a part
            **{name: part.state_dict() for name, part in self.parts.items()},
            **_merged(self.plain),
            **own[0],
            "other_processes": own[1:],
        }

    def resume(self, state: Checkpoint, now: Mapping[str, Any], steps_per_epoch: int) -> None:
        """Go on from a file with `state_dict()`; `now` is what a file of this run says: classes, global_batch, config, prior.

        Raises:
            InputError: the state is of another network, data set, schedule or other settings.
        """
        if isinstance(self.model, TimmWithHead) and self.model.has_norm and not state.with_norm:
            raise InputError(
                f"{state.path}: of an older version, which left out the network's final norm; expected a new run, which may "
                f"start from it: --model_path {state.path}"
            )
        then, schedule = state.extra, self.parts["scheduler"]
        total_steps = schedule.total_steps
        now = {**now, "scheduler": schedule.state_dict(), "ema": self.parts.get("ema")}
        try:
            _check_resumable(state, now, total_steps, steps_per_epoch)
            self.model.load_state_dict(then.get("model", state.state_dict))
            for name, part in self.parts.items():
                part.load_state_dict(then[name])
            for part in self.plain:
                part.load_state_dict(then)
            for part in self.own:
                part.load_parts([then, *then["other_processes"]])
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(f"{state.path}: not the state of this run ({reason})") from error
        schedule.total_steps = total_steps  # those of a longer run than the state was saved by


def _check_resumable(state, now, total_steps, steps_per_epoch):
    """Check that a saved state is one of this run, before anything of it is taken."""
    path, then = state.path, state.extra
    if "optimizer" not in then:
        raise InputError(f"{path}: weights alone, expected the state of a run of train.py")
    if state.classes != now["classes"]:
        raise InputError(f"{path}: {len(state.classes or [])} other classes than the data has, cannot resume")
    if then.get("global_batch", now["global_batch"]) != now["global_batch"]:
        raise InputError(
            f"{path}: {then['global_batch']} images a step, this command has {now['global_batch']} "
            f"({distributed.world_size()} processes x --batch_size x --grad_accum); expected the same"
        )
    config = now.get("config") or {}
    longer = _check_length(state, config, total_steps, steps_per_epoch)
    if then["scheduler"].keys() != now["scheduler"].keys():
        raise InputError(f"{path}: made with another schedule than --schedule {config.get('schedule')}")
    if (then["ema"] is None) != (now["ema"] is None):
        found = "no moving average" if then["ema"] is None else "a moving average"
        raise InputError(
            f"{path}: holds {found} of the weights, this command has --ema_decay {config.get('ema_decay', 0):g}; resume "
            "with the one it was started with"
        )
    check_same_settings(path, then.get("config") or {}, config, FREE | {"epochs"} if longer else FREE)
    if "prior" in then and not _equal(then["prior"], now["prior"]):  # older files do not hold it
        raise InputError(
            f"{path}: the run was started with a class prior of other values, expected the same "
            f"(--prior_path {config.get('prior_path')})"
        )
    _check_counts(state, total_steps, steps_per_epoch)


def _check_length(state, config, total_steps, per_epoch):
    """Check that the run may go on for the epochs of this command; returns whether these are others than it was started with.

    A constant learning rate is that of any number of epochs, where the curve of another schedule is made for its own.
    """
    then, planned = state.extra["scheduler"]["total_steps"], (state.extra.get("config") or {}).get("epochs")
    epochs, schedule, done = config.get("epochs"), config.get("schedule"), -(-state.extra["step"] // per_epoch)
    if planned == epochs or type(planned) is not int or planned < 1:
        if then != total_steps:
            raise InputError(
                f"{state.path}: a schedule of {then} steps, this command has {total_steps}; resume with the data, --epochs and "
                "--batch_size it was started with"
            )
        return False
    if epochs < done:
        expected = f"{done} or more" if schedule == "constant" else planned
        raise InputError(f"--epochs {epochs}: {state.path} has come to epoch {done} of {planned}, expected {expected}")
    if schedule != "constant":
        raise InputError(
            f"--epochs {epochs}: the learning rate of --schedule {schedule} follows a curve over the {planned} epochs that "
            f"{state.path} was started with; resume with --epochs {planned}, or start a new run from its weights, --model_path "
            f"{state.path} and another --path_dest (--schedule constant has no such curve)"
        )
    if config.get("progressive_size") is not None:
        raise InputError(
            f"--epochs {epochs}: the image sizes of --progressive_size are those of the {planned} epochs that {state.path} was "
            f"started with; resume with --epochs {planned}"
        )
    if then != planned * per_epoch:
        raise InputError(
            f"{state.path}: {then // planned} steps an epoch, this command has {per_epoch}; expected the same"
        )
    return True


def _check_counts(state, total_steps, per_epoch):
    """Check the numbers that are counted and compared; the parts check their own tensors when they load them."""
    content = state.extra
    epoch = _whole(state, content["epoch"], "epoch", 0, total_steps // per_epoch)
    step = _whole(state, content["step"], "step", epoch * per_epoch, (epoch + 1) * per_epoch)
    _whole(state, content.get("evaluated", step), "evaluated", -1, step)
    _whole(state, content.get("skipped", 0), "skipped", 0, step)
    _whole(state, content["log_lines"], "log_lines", 0)
    for name in ("last_epoch", "_step_count"):
        _whole(state, content["scheduler"].get(name, 0), f"scheduler/{name}", 0)
    if content["ema"] is not None:
        _whole(state, content["ema"]["updates"], "ema/updates", 0)
    for part in (content, *content["other_processes"]):
        _whole(state, part["loss_samples"], "loss_samples", 0)
        _whole(state, part["prior_sum"]["samples"], "prior_sum/samples", 0)
    best = content["best"]
    kinds = {"epoch": int, "step": int, "weights": str, "mAP": float, "mAP_negative": float}
    names = set(kinds)
    kinds |= dict.fromkeys(("cross_entropy", *ESTIMATES), float)  # which are there in some runs
    if best != {} and not (
        isinstance(best, dict) and names <= best.keys() <= kinds.keys() and all(type(best[k]) is kinds[k] for k in best)
    ):
        raise InputError(f"{state.path}: best: expected the results of an epoch ({', '.join(kinds)})")


def _whole(state, value, name, low, high=None):
    if type(value) is not int or value < low or (high is not None and value > high):
        found = value if type(value) is int else f"a {type(value).__name__}"
        wanted = f"of {low} or more" if high is None else f"between {low} and {high}"
        raise InputError(f"{state.path}: {name}: found {found}, expected a whole number {wanted}")
    return value


def _equal(then, now):
    return torch.equal(then, now) if isinstance(then, Tensor) and isinstance(now, Tensor) else then is now


def _merged(parts):
    return {name: value for part in parts for name, value in part.state_dict().items()}


def facts_of_classes(annotations: Annotations) -> dict[str, Any]:
    """What every checkpoint says of the classes of its network."""
    return {
        "num_classes": len(annotations.classes),
        "classes": list(annotations.classes),
        "idx_to_class": dict(enumerate(annotations.keys)),
        "groups": {name: [part.start, part.stop] for name, part in (annotations.groups or {}).items()} or None,
    }
