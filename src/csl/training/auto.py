"""`--loss auto`: the loss that the labels ask for, by what is known of them."""

import dataclasses

from csl.labels import Annotations
from csl.losses.groups import outside
from csl.models.exclusive import exclusive_groups
from csl.runs.config import TrainConfig
from csl.training.checks import OF_LOSS, PRIOR

FEW_NEGATIVES = 0.5
"""Share of classes with a known negative under which there is no frequency to be estimated."""


def chosen(config: TrainConfig, train: Annotations, before: dict) -> tuple[TrainConfig, list[str]]:
    """The settings that "auto" stands for on this training split, and two lines: what was found, and what is taken.

    Args:
        config: with `loss` "auto".
        train: the training split, as it is learned from.
        before: the settings that a resumed run was started with, which it keeps; {} for a new one.
    """
    names = [name for name in (*OF_LOSS, *PRIOR) if name in before]
    if names:
        config = dataclasses.replace(config, **{name: before[name] for name in names})
        return config, [f"loss auto: as the run was started, {_flags(config)}"]
    counts, groups = train.labels.counts(), exclusive_groups(train.groups)
    rest = outside(groups, len(train.classes))
    found, taken = [], {"loss": "csl"}
    if groups:
        found.append(f"{len(groups)} attributes of several values")
        taken["group_loss"] = "softmax"
    if rest:
        unknown = counts.unannotated[rest].sum() / max(len(train) * len(rest), 1)
        with_negatives = int((counts.negatives[rest] > 0).sum())
        found.append(
            f"{len(rest):,} classes of their own with {100 * unknown:.3g} % of labels unknown, {with_negatives:,} of them with "
            "known negatives"
        )
        if not unknown:
            taken |= {"partial_loss_mode": "ignore", "gamma_neg": 0.0}
        elif with_negatives < FEW_NEGATIVES * len(rest):
            taken |= {"partial_loss_mode": "selective"}
        else:
            taken |= {"loss": "annotation", "prior_path": "auto"}
    config = dataclasses.replace(config, **taken)
    return config, [f"loss auto: {train.source} has {' and '.join(found)}", f"loss auto: so {_why(config, rest)}"]


def _flags(config):
    """The settings of the loss as flags."""
    given = {name: getattr(config, name) for name in (*OF_LOSS, *PRIOR)}
    return " ".join(f"--{name} {value:g}" if isinstance(value, float) else f"--{name} {value}"
                    for name, value in given.items() if value != getattr(TrainConfig, name) or name == "loss")  # fmt: skip


def _why(config, rest):
    reasons = []
    if config.group_loss == "softmax":
        reasons.append("the values of an attribute exclude each other, and unknown attributes are left out")
    if config.loss == "annotation":
        reasons.append("an unknown label counts as the share of its class that is annotated tells, from a class prior")
    elif config.partial_loss_mode == "selective":
        reasons.append("an unknown label is a negative but for the most likely ones, as too few negatives are known")
    elif rest:
        reasons.append("cross-entropy, as all labels are known")
    return f"{'; '.join(reasons)} ({_flags(config)})"
