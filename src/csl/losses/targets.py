"""The checks that every loss makes: a wrong label or option must not train on, silently."""

import math

import torch
from torch import Tensor

from csl.errors import InputError


def check_targets(logits: Tensor, targets: Tensor) -> None:
    """Raise InputError unless targets has the shape [B, C] of logits and holds 1, 0 and -1 only.

    The values are looked at on the CPU alone, and not inside `torch.compile`: on a GPU the look would wait for the device
    at every step, and the labels that get there come from a `LabelMatrix`, which has checked them.
    """
    if logits.shape != targets.shape or logits.dim() != 2:
        raise InputError(
            f"loss: logits {tuple(logits.shape)} and targets {tuple(targets.shape)}, expected the same shape [B, C]"
        )
    if torch.compiler.is_compiling() or targets.device.type != "cpu" or targets.numel() == 0:
        return
    low, high = (bound.item() for bound in torch.aminmax(targets))
    whole = not targets.is_floating_point() or torch.equal(targets.round(), targets)  # NaN is not
    if not (whole and low >= -1 and high <= 1):
        wrong = next(value for value in torch.unique(targets).tolist() if value not in (-1, 0, 1))
        raise InputError(f"loss: a target of {wrong:g}, expected one of -1, 0, 1")


def check_option(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise InputError unless an option of a loss is a finite number from `low` to `high`."""
    if not (low <= value <= high and math.isfinite(value)):
        words = f"a finite number, {low:g} or more" if high == math.inf else f"a number from {low:g} to {high:g}"
        raise InputError(f"--loss_options {name}={value:g}: expected {words}")
