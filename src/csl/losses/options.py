"""Which loss, and its settings: the flags under "loss" of `train.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from csl.errors import InputError
from csl.losses import LOSSES, create_loss, no_such_option, options_of
from csl.losses.annotation import annotated_shares
from csl.losses.groups import GroupLoss, outside

OF_THE_RUN = ("prior", "known", "shape")
"""Arguments of losses that a run finds out: `LossOptions.create_loss`."""


@dataclass(kw_only=True)
class LossOptions:
    """A loss and its settings. None leaves a setting at the default of the loss itself.

    Attributes:
        loss: a name in `LOSSES`.
        loss_options: options of this loss that have no flag of their own, as `parse_options` takes them.
        group_loss: of the values of an attribute, which exclude each other: "sigmoid", each a class like any other, or
            "softmax" (`csl.losses.groups`).
        partial_loss_mode: what un-annotated labels count as; the `mode` of `PartialSelectiveLoss`.

    The other attributes are keyword arguments of the losses, which explain them.
    """

    loss: str = "csl"
    loss_options: str | None = None
    group_loss: str = "sigmoid"
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
        mode = self.partial_loss_mode or ""
        return mode.startswith("ignore") or self.alpha_unann == 0 or self.loss in ("partial_bce", "spa")

    def create_loss(
        self,
        prior: Tensor | None = None,
        known: Tensor | None = None,
        shape: tuple[int, int] | None = None,
        groups: Sequence[slice] = (),
    ) -> nn.Module:
        """The loss of these settings.

        Args:
            prior: [C] the class prior, for a loss that takes one.
            known: [2, C] the shares of images in which a class is known to be there, and known not to be, likewise.
            shape: N images and C classes of the training set, likewise.
            groups: the classes of each attribute for `group_loss` "softmax", with `shape`.

        Raises:
            InputError: an unknown loss, a setting or prior that it does not take, or a value out of range.
        """
        if groups:
            return self._of_groups(list(groups), prior, known, shape)
        given = {f.name: getattr(self, f.name) for f in fields(LossOptions) if getattr(self, f.name) is not None}
        del given["group_loss"]
        own = parse_options(given.pop("loss_options", None), given.pop("loss"))
        takes = settings_of(self.loss)
        if prior is not None:
            given |= {"prior": prior} | ({"known": known} if "known" in takes else {})
        if shape is not None and "shape" in takes:
            given["shape"] = shape
        for name in given:
            if name not in takes:
                raise InputError(f"--{no_such_option(name, self.loss, [n for n in takes if n not in OF_THE_RUN])}")
        if "partial_loss_mode" in given:
            given["mode"] = given.pop("partial_loss_mode")
        return create_loss(self.loss, **given, **own)

    def _of_groups(self, groups, prior, known, shape):
        """The loss of attributes, and that of these settings for the other classes."""
        images, classes = shape
        other, rest = None, outside(groups, classes)
        if rest:
            of_rest = [None if values is None else values[..., rest] for values in (prior, known)]
            other = self.create_loss(*of_rest, (images, len(rest)))
        asks = prior is not None and "known" in settings_of(self.loss)
        annotated = annotated_shares(prior, known)[0] if asks else None
        return GroupLoss(groups, classes, other, prior, annotated)


def settings_of(loss: str) -> dict[str, Any]:
    """The settings that a loss takes, by the names of their flags, with its defaults; {} for an unknown name."""
    takes = options_of(loss) if loss in LOSSES else {}
    return {"partial_loss_mode" if name == "mode" else name: default for name, default in takes.items()}


def own_options(loss: str) -> dict[str, Any]:
    """The options of a loss that have no flag of their own, with its defaults; {} for an unknown name."""
    elsewhere = {*OF_THE_RUN, *(f.name for f in fields(LossOptions))}
    return {name: default for name, default in settings_of(loss).items() if name not in elsewhere}


def parse_options(text: str | None, loss: str) -> dict[str, Any]:
    """The options in "tau=0.6,change_epoch=1", each of the type of its default.

    Raises:
        InputError: an unknown loss, an option that it does not have or that has a flag, or a value of another type.
    """
    options_of(loss)
    takes, found = own_options(loss), {}
    for part in text.split(",") if text is not None else ():
        name, _, value = (word.strip() for word in part.partition("="))
        if name in settings_of(loss).keys() - {*takes, *OF_THE_RUN}:
            raise InputError(f"--loss_options {name}: a setting with a flag of its own, expected --{name}")
        if name not in takes:
            raise InputError(f"--loss_options {no_such_option(name, loss, takes)}")
        kind = type(takes[name])
        try:
            found[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            words = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise InputError(f"--loss_options {name}: found {value!r}, expected {words}") from None
    return found
