"""Losses for multi-label classification with partial labels, by name."""

from typing import Any

from torch import nn

from csl.errors import InputError
from csl.losses.annotation import AnnotationLoss
from csl.losses.asymmetric import ASLSingleLabel, AsymmetricLoss, AsymmetricLossOptimized
from csl.losses.selective import PartialSelectiveLoss

LOSSES: dict[str, type[nn.Module]] = {
    "csl": PartialSelectiveLoss,
    "annotation": AnnotationLoss,
    "asl": AsymmetricLoss,  # as the papers train with it: no gradient through the focusing weight
    "asl_optimized": AsymmetricLossOptimized,
}


def create_loss(name: str, **options: Any) -> nn.Module:
    """Create the loss of that name in `LOSSES` with its constructor's options.

    Raises:
        InputError: an unknown name.
    """
    if name not in LOSSES:
        raise InputError(f"--loss {name}: unknown, expected one of {', '.join(sorted(LOSSES))}")
    return LOSSES[name](**options)


__all__ = [
    "LOSSES",
    "ASLSingleLabel",
    "AnnotationLoss",
    "AsymmetricLoss",
    "AsymmetricLossOptimized",
    "PartialSelectiveLoss",
    "create_loss",
]
