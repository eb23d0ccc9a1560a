"""What `train.py` does where neither a loss nor a recipe is given: the loss that the labels ask for, the start, the settings.

Rules, each with its reason; a flag that is given wins over them.

- weights: published ones of the network where they can be had, since a few thousand photos teach a network less than they do.
- epochs: 30, as published for the 82,000 photos of COCO, and for more photos as many as present 2.5 million of them, but 3 at
  least; twice that from scratch, where all has to be learned.
- learning rate: 2e-4 of Adam under one cycle, as published for a start from ImageNet; 1e-3 from scratch, with which the small
  networks of docs/results.md were trained.
- augmentation: "fast", as it costs no mAP against the original's (docs/results.md) and takes less of a processor.
- moving average: that of the default, which in a short run looks back over a tenth of the steps.
"""

import dataclasses
from typing import Any

from csl.errors import InputError, printable
from csl.labels import Annotations
from csl.losses.groups import outside
from csl.models.exclusive import exclusive_groups
from csl.runs.config import TrainConfig
from csl.training import probe_run
from csl.training.checks import OF_LOSS, PRIOR, check_used
from csl.training.data import Say
from csl.training.probe import Probed
from csl.training.start import starting_weights, with_start

FEW_NEGATIVES = 0.5
"""Share of classes with a known negative under which there is no frequency to be estimated."""

EPOCHS, LEAST_EPOCHS, PRESENTED = 30, 3, 2_500_000
RATE, RATE_FROM_SCRATCH = 2e-4, 1e-3

OPEN = ("epochs", "lr", "augment")
"""Settings that are None where they are left to `settled`."""


def left_open(given: dict[str, Any]) -> dict[str, Any]:
    """The given flags, over what is left to the program where they describe neither a loss nor partial labels.

    With `probe` that is the start alone: it has no epochs, and chooses its own loss.
    """
    about_labels = {*OF_LOSS, *PRIOR, "simulate_partial_type", "simulate_partial_param"} - {"loss"}
    if given.keys() & about_labels or given.get("loss", "auto") != "auto":
        return given
    left = {} if given.get("probe") else {"loss": "auto", **dict.fromkeys(OPEN)}
    return {"model_path": "auto", **left, **given}


def as_started(config: TrainConfig, before: dict) -> TrainConfig:
    """The settings of a resumed run, in which what is left open is as it was `before`; {} for a new run."""
    names = [name for name in OPEN if getattr(config, name) is None]
    names += ["model_path"] if config.model_path == "auto" else []
    names += [*OF_LOSS, *PRIOR, *(["select_by"] if config.select_by is None else [])] if config.loss == "auto" else []
    return dataclasses.replace(config, **{name: before[name] for name in names if name in before})


def with_defaults(config: TrainConfig) -> TrainConfig:
    """The settings with the program's defaults for what is left open, to check the others by."""
    names = [name for name in OPEN if getattr(config, name) is None]
    return dataclasses.replace(config, **{name: getattr(TrainConfig, name) for name in names})


def settled(config: TrainConfig, images: int, pretrained: bool) -> tuple[TrainConfig, str | None]:
    """The settings with values for those that are left open (the rules at the head of this file), and a line that says them.

    Args:
        config: with `OPEN` settings, or without.
        images: of the training split.
        pretrained: whether the network starts from weights.
    """
    if not (names := [name for name in OPEN if getattr(config, name) is None]):
        return config, None
    epochs = min(EPOCHS, max(LEAST_EPOCHS, round(PRESENTED / max(images, 1)))) * (1 if pretrained else 2)
    values = {"epochs": epochs, "lr": RATE if pretrained else RATE_FROM_SCRATCH, "augment": "fast"}
    config = dataclasses.replace(config, **{name: values[name] for name in names})
    start = "pretrained weights" if pretrained else "a network from scratch"
    words = " ".join(f"--{name} {_text(getattr(config, name))}" for name in names)
    return config, f"settings for {images:,} images and {start}: {words}"


def chosen(config: TrainConfig, train: Annotations, probes: bool) -> tuple[TrainConfig, list[str]]:
    """The settings that "auto" stands for on this training split, and what was found and is taken, in lines.

    Args:
        config: with `loss` "auto".
        train: the training split, as it is learned from.
        probes: whether a probe can choose between losses that the labels leave open; the settings are those of
            `csl.training.probe_run.look` then, before `of_probe`.
    """
    counts, groups = train.labels.counts(), exclusive_groups(train.groups)
    rest = outside(groups, len(train.classes))
    found, taken = [], {"loss": "csl", "select_by": config.select_by or "auto"}
    several, by_count = bool(groups) and counts.unannotated.any(), False  # losses that may be right
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
        several = False
        if not unknown:
            taken |= {"partial_loss_mode": "ignore", "gamma_neg": 0.0}
        elif with_negatives < FEW_NEGATIVES * len(rest):
            several = by_count = config.labels_per_image is not None
            taken |= {"loss": "annotation"} if by_count else {"partial_loss_mode": "selective"}
        else:
            several = True
            taken |= {"loss": "annotation", "prior_path": "auto"}
    if config.labels_per_image is not None and not by_count:
        raise InputError(
            f"--labels_per_image {config.labels_per_image:g} changes nothing: {train.source} has known negatives, by which the "
            "prior is estimated; leave it out"
        )
    line = f"loss auto: {train.source} has {' and '.join(found)}"
    if several and probes:
        taken |= {"prior_path": "auto", "prior_estimator": "probe"}
        return dataclasses.replace(config, **taken), [f"{line}; a probe of the network compares the losses for them"]
    config = dataclasses.replace(config, **taken)
    return config, [line, line_of(config, train)]


def of_probe(config: TrainConfig, train: Annotations, found: Probed) -> TrainConfig:
    """The settings with the loss that a probe found the best. On attributes alone it is that of unknown ones."""
    settings = found.best.settings
    if not outside(exclusive_groups(train.groups), len(train.classes)):
        settings = {"loss": settings["loss"]}
    return dataclasses.replace(config, **settings)


def with_choices(config: TrainConfig, asked: TrainConfig, train: Annotations, say: Say) -> TrainConfig:
    """The settings with all that the command (`asked`) leaves to the program, which is said; a resumed run has it already."""
    if asked.loss == "auto" and config.loss != "auto":
        say(f"loss auto: as the run was started, {flags_of_loss(config)}")
    config, of_start = with_start(config)
    starts, lines = starting_weights(config) is not None, []
    if config.frozen_epochs and not starts:
        raise InputError(
            f"--frozen_epochs {config.frozen_epochs}: the network starts from scratch, and has learned nothing to be kept; "
            "expected weights to start from (--model_path), or 0"
        )
    if config.shallow_epochs and starts:
        raise InputError(
            f"--shallow_epochs {config.shallow_epochs}: the network starts from weights that all of its blocks were trained "
            "with; expected none (--model_path), or 0"
        )
    if config.loss == "auto":
        config, lines = chosen(config, train, probe_run.can_look(config, starts, len(train.classes)))
    if config.probe and exclusive_groups(train.groups) and not config.refit_head:  # which fits rows one by one
        config = dataclasses.replace(config, group_loss="softmax")
    config, of_settings = settled(config, len(train), starts)
    for line in (of_start, *lines, of_settings):
        if line is not None:
            say(printable(line))
    check_used(config)
    return config


def flags_of_loss(config: TrainConfig) -> str:
    """The settings of the loss as flags."""
    given = {name: getattr(config, name) for name in (*OF_LOSS, *PRIOR, "labels_per_image")}
    return " ".join(f"--{name} {_text(value)}"
                    for name, value in given.items() if value != getattr(TrainConfig, name) or name == "loss")  # fmt: skip


def line_of(config: TrainConfig, train: Annotations) -> str:
    """What is taken, and why, in a line."""
    reasons, others = [], outside(exclusive_groups(train.groups), len(train.classes))
    if config.group_loss == "softmax":
        left_out = "" if config.loss == "annotation" else ", and unknown attributes are left out"
        reasons.append(f"the values of an attribute exclude each other{left_out}")
    if config.loss == "annotation":
        reasons.append("an unknown label counts as the share of its class that is annotated tells, from a class prior")
    elif config.partial_loss_mode == "selective":
        reasons.append("an unknown label is a negative but for the most likely ones")
        if not config.prior_estimator:
            reasons[-1] += ", as too few negatives are known (--labels_per_image K, counted on some photos, tells more)"
    elif config.prior_estimator and others:
        what = "left out" if config.partial_loss_mode == "ignore" else "a negative"
        reasons.append(f"an unknown label is {what}")
    elif others:
        reasons.append("cross-entropy, as all labels are known")
    why = ", by the highest estimated mAP of heads on the frozen network" if config.prior_estimator else ""
    return f"loss auto: so {'; '.join(reasons)}{why} ({flags_of_loss(config)})"


def _text(value):
    return f"{value:g}" if isinstance(value, float) else str(value)
