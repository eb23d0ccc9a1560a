"""Parameter groups, the learning-rate schedule and the moving average of the weights."""

import copy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from csl.errors import InputError

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("onecycle", "constant")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: weight decay for matrices and filters, none for biases and one-dimensional parameters."""
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.dim() <= 1 or name.endswith(".bias") else decay).append(parameter)
    return [{"params": plain, "weight_decay": 0.0}, {"params": decay, "weight_decay": weight_decay}]


def create_optimizer(model: nn.Module, name: str, lr: float, weight_decay: float) -> Optimizer:
    """Adam (weight decay as an L2 term, as the original) or AdamW (decoupled), in PyTorch's fused form.

    Raises:
        InputError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"--optimizer {name}: unknown, expected one of {', '.join(OPTIMIZERS)}")
    optimizer = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return optimizer(parameter_groups(model, weight_decay), lr=lr, weight_decay=weight_decay, fused=True)


def create_schedule(optimizer: Optimizer, lr: float, total_steps: int, name: str) -> LRScheduler:
    """The learning rate over the steps of a run, as a scheduler with an attribute `total_steps`.

    Args:
        optimizer: whose learning rate is set.
        lr: the highest one.
        total_steps: of the run; its scheduler may be stepped as often.
        name: "onecycle": up to `lr` over the first fifth and down again, Adam's beta1 cycling against it (OneCycleLR's
            default); "constant": `lr` throughout, and beta1 as it is.

    Raises:
        InputError: an unknown name.
    """
    if name not in SCHEDULES:
        raise InputError(f"--schedule {name}: unknown, expected one of {', '.join(SCHEDULES)}")
    if name == "constant":
        schedule = ConstantLR(optimizer, factor=1.0)
        schedule.total_steps = total_steps  # what a resumed run is checked against
        return schedule
    if total_steps == 5:
        total_steps = 6  # a rise of exactly one step makes OneCycleLR divide 0 by 0
    return OneCycleLR(optimizer, max_lr=lr, total_steps=max(total_steps, 1), pct_start=0.2)


def contiguous_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in the default memory format, so that a file does not depend on the format of training."""
    return {k: v.contiguous() for k, v in model.state_dict().items()}


class ModelEma:
    """Exponential moving average of a model's whole state, in a copy of the model.

    The decay warms up as min(decay, (1 + t) / (10 + t)) after t updates, so that a short run does not keep its initial
    weights. Integer buffers are copied.

    Args:
        model: whose state is averaged; its values are the start.
        decay: weight of the past, in (0, 1).

    Attributes:
        module: the model with the averaged state, in eval mode.

    Raises:
        InputError: another decay.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise InputError(f"--ema_decay {decay:g}: expected more than 0 and less than 1, or 0 for no moving average")
        self.decay, self.updates = decay, 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self._model: nn.Module | None = None
        self._tensors: list[list[Tensor]] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's current state, whose tensors it looks up once."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if model is not self._model:
            state = model.state_dict()
            pairs = [(value, state[key]) for key, value in self.module.state_dict().items()]
            floats = [pair for pair in pairs if pair[0].is_floating_point()]
            whole = [pair for pair in pairs if not pair[0].is_floating_point()]
            self._model = model
            self._tensors = [[pair[i] for pair in part] for part in (floats, whole) for i in (0, 1)]
        averaged, present, counters, counted = self._tensors
        torch._foreach_lerp_(averaged, present, 1 - decay)
        if counters:
            torch._foreach_copy_(counters, counted)

    def state_dict(self) -> dict:
        """The averaged state, in the default memory format, and the number of updates."""
        return {"state": contiguous_state(self.module), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`."""
        self.module.load_state_dict(state["state"])
        self.updates = state["updates"]
