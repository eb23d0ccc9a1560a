"""Which loss, and its settings: the flags under "loss" of `train.py`."""

import inspect
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from csl.errors import InputError
from csl.losses import LOSSES, create_loss


@dataclass(kw_only=True)
class LossOptions:
    """A loss and its settings. None leaves a setting at the default of the loss itself.

    Attributes:
        loss: a name in `LOSSES`.
        partial_loss_mode: what un-annotated labels count as; the `mode` of `PartialSelectiveLoss`.

    The other attributes are keyword arguments of the losses, which explain them.
    """

    loss: str = "csl"
    partial_loss_mode: str | None = None
    clip: float | None = None
    gamma_pos: float | None = None
    gamma_neg: float | None = None
    gamma_unann: float | None = None
    alpha_pos: float | None = None
    alpha_neg: float | None = None
    alpha_unann: float | None = None
    likelihood_topk: int | None = None
    topk_scope: str | None = None
    prior_threshold: float | None = None

    @property
    def learns_from_known_alone(self) -> bool:
        """Whether un-annotated labels take no part in the loss."""
        return (self.partial_loss_mode or "").startswith("ignore")

    def create_loss(self, prior: Tensor | None = None, known: Tensor | None = None) -> nn.Module:
        """The loss of these settings.

        Args:
            prior: [C] the class prior, for a loss that takes one.
            known: [2, C] the shares of images in which a class is known to be there, and known not to be, likewise.

        Raises:
            InputError: an unknown loss, a setting or prior that it does not take, or a value out of range.
        """
        given = {f.name: getattr(self, f.name) for f in fields(LossOptions) if getattr(self, f.name) is not None}
        takes = settings_of(given.pop("loss"))
        if prior is not None:
            given["prior"] = prior
            if "known" in takes:
                given["known"] = known
        for name in given:
            if name not in takes:
                others = [f"--loss {loss}" for loss in LOSSES if name in settings_of(loss)]
                raise InputError(
                    f"--{name}: --loss {self.loss} does not take it; leave it out or use {', '.join(others)}"
                )
        if "partial_loss_mode" in given:
            given["mode"] = given.pop("partial_loss_mode")
        return create_loss(self.loss, **given)


def settings_of(loss: str) -> dict[str, Any]:
    """The settings that a loss takes, by the names of their flags, with its defaults; {} for an unknown name."""
    parameters = inspect.signature(LOSSES[loss]).parameters if loss in LOSSES else {}
    return {"partial_loss_mode" if name == "mode" else name: p.default for name, p in parameters.items()}
