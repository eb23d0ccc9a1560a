"""Losses for multi-label classification with partial labels, by name."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from csl.errors import InputError
from csl.losses.annotation import AnnotationLoss
from csl.losses.asymmetric import ASLSingleLabel, AsymmetricLoss, AsymmetricLossOptimized
from csl.losses.crisp import ClassPriorRisk
from csl.losses.entropy import EntropyMaximisation, PseudoNegatives
from csl.losses.generalized_robust import GeneralizedRobustLoss
from csl.losses.hill import HillLoss, SelfPacedLossCorrection
from csl.losses.large_loss import LargeLossRejection, PermanentCorrection, TemporaryCorrection
from csl.losses.partial_bce import PartialBCE
from csl.losses.selective import PartialSelectiveLoss
from csl.losses.single_positive import ExpectedPositives, LabelSmoothing, OnlineLabelEstimation, WeakNegatives
from csl.losses.strictly_proper import StrictlyProperLoss

LOSSES: dict[str, type[nn.Module]] = {
    "csl": PartialSelectiveLoss,
    "annotation": AnnotationLoss,
    "asl": AsymmetricLoss,  # as the papers train with it: no gradient through the focusing weight
    "asl_optimized": AsymmetricLossOptimized,
    "label_smoothing": LabelSmoothing,
    "wan": WeakNegatives,
    "partial_bce": PartialBCE,
    "epr": ExpectedPositives,
    "hill": HillLoss,
    "splc": SelfPacedLossCorrection,
    "em": EntropyMaximisation,
    "em_apl": PseudoNegatives,
    "gr": GeneralizedRobustLoss,
    "ll_r": LargeLossRejection,
    "ll_ct": TemporaryCorrection,
    "ll_cp": PermanentCorrection,
    "role": OnlineLabelEstimation,
    "crisp": ClassPriorRisk,
    "spa": StrictlyProperLoss,
}


def create_loss(name: str, **options: Any) -> nn.Module:
    """Create the loss of that name in `LOSSES` with its constructor's options.

    Raises:
        InputError: an unknown name, an option that the loss does not have, or a value out of range.
    """
    takes = options_of(name)
    for option in options:
        if option not in takes:
            raise no_such_option(option, name, takes)
    return LOSSES[name](**options)


def options_of(name: str) -> dict[str, Any]:
    """The options of the loss of that name, with their defaults: the arguments of its class.

    Raises:
        InputError: an unknown name.
    """
    if name not in LOSSES:
        raise InputError(f"--loss {name}: unknown, expected one of {', '.join(sorted(LOSSES))}")
    return {option: p.default for option, p in inspect.signature(LOSSES[name]).parameters.items()}


def no_such_option(option: str, loss: str, takes: Iterable[str]) -> InputError:
    """The error that names what a loss `takes` in place of an option that it does not have, the nearest first."""
    near = difflib.get_close_matches(option, takes, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return InputError(f"{option}: no option of --loss {loss}; {meant}expected one of {', '.join(takes) or 'none'}")


__all__ = [
    "LOSSES",
    "ASLSingleLabel",
    "AnnotationLoss",
    "AsymmetricLoss",
    "AsymmetricLossOptimized",
    "PartialSelectiveLoss",
    "create_loss",
    "no_such_option",
    "options_of",
]
