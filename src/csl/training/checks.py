"""Settings that change nothing beside the others: refused where they were given, left out where they are a recipe's."""

import math
from dataclasses import fields

from csl.errors import InputError
from csl.labels import Annotations
from csl.labels.simulation import WITHOUT_PARAM
from csl.losses.groups import outside
from csl.losses.options import LossOptions, settings_of
from csl.models import CONFIGS, architecture
from csl.models.exclusive import exclusive_groups
from csl.runs.config import TrainConfig, TrainOptions
from csl.training.sizes import is_smaller

STAGE_1 = ("prior_epochs", "prior_loss", "prior_estimator")
PRIOR = ("prior_path", "prior_threshold", *STAGE_1)
SELECTIVE = ("likelihood_topk", "topk_scope", *PRIOR)

OF_EPOCHS = tuple(field.name for field in fields(TrainOptions) if field.name not in ("amp", "on_bad_image"))
OF_LOSS = tuple(field.name for field in fields(LossOptions))
NOT_OF_A_PROBE = (
    *OF_EPOCHS,
    *(name for name in OF_LOSS if name != "group_loss"),  # which is that of the attributes
    *PRIOR,
    "augment",
    "mix",
    "dropout",
    "sync_abn",
    "memory",
    "resume",
)


def check_used(config: TrainConfig) -> None:
    """Raise InputError, one line, where settings change nothing beside the others, or nothing has a weight in the loss."""
    counted = ["pos", "neg"] + ["unann"] * (not config.learns_from_known_alone)
    if all(getattr(config, f"alpha_{kind}") == 0 for kind in counted):
        flags = " ".join(f"--alpha_{kind} 0" for kind in counted)
        raise InputError(f"{flags}: no label has a weight, so that nothing is learned; expected one of them above 0")
    if config.mix != "none" and (config.group_loss == "softmax" or "shape" in settings_of(config.loss)):
        other = "--group_loss softmax" if config.group_loss == "softmax" else f"--loss {config.loss}"
        why = "asks for one value an image" if config.group_loss == "softmax" else "remembers single images"
        raise InputError(f"--mix {config.mix}: {other} {why}, and a mixture is of several; expected --mix none")
    if idle := idle_settings(config):
        raise InputError("; ".join(f"--{name} changes nothing {why}" for name, why in idle.items()) + ": leave it out")


def check_groups(config: TrainConfig, train: Annotations) -> None:
    """Raise InputError, one line, where `group_loss` changes nothing on this data, or other settings beside it."""
    if config.group_loss != "softmax":
        return
    if not (groups := exclusive_groups(train.groups)):
        raise InputError(
            f"--group_loss softmax changes nothing: {train.source} has no attribute of several values; leave it out"
        )
    if outside(groups, len(train.classes)):
        return
    of_probe = ("prior_path", "prior_estimator") if config.prior_estimator == "probe" else ()  # which select by it
    of_loss = [name for name in OF_LOSS if name not in ("group_loss", "loss")]
    names = of_loss if config.loss == "annotation" else ["loss", *of_loss, *PRIOR]
    for name in names:
        if name not in of_probe and getattr(config, name) != getattr(TrainConfig, name):
            raise InputError(
                f"--{name} changes nothing with --group_loss softmax, as every class of {train.source} is a value of an "
                "attribute: leave it out"
            )


def idle_settings(config: TrainConfig) -> dict[str, str]:
    """The settings that differ from their defaults and change nothing beside the others, {name: "without --prior_path"}.

    A limit that may not be reached (max_steps, skip_nonfinite) and a permission (follow_links) are kept to: not idle.
    """
    idle: dict[str, str] = {}

    def needs(met: bool, why: str, *names: str) -> None:
        for name in names:
            if not met and getattr(config, name) != getattr(TrainConfig, name):
                idle.setdefault(name, why)

    takes, mode, threshold = settings_of(config.loss), config.partial_loss_mode, config.prior_threshold
    needs(config.loss != "auto", "with --loss auto, which chooses", *OF_LOSS[1:], *PRIOR)
    known = takes or config.loss == "auto"
    needs(not known or not config.probe, "with --probe", *NOT_OF_A_PROBE)
    tresnet, network = architecture(config.model_name) in CONFIGS, f"with --model_name {config.model_name}"
    needs(not tresnet, network, "dropout")
    needs(config.head == "linear", f"with --head {config.head}", "dropout")
    needs(tresnet, network, "abn", "sync_abn", "memory", "shallow_epochs")
    smaller = config.progressive_size is not None and is_smaller(config.progressive_size, config.image_size)
    needs(smaller, "with an --image_size that is not larger", "progressive_size")
    from_scratch = config.model_path in (None, "auto")  # which weights there are is not known yet
    needs(from_scratch, "with --model_path, whose weights are of all blocks", "shallow_epochs")
    needs(config.shallow_epochs < (config.epochs or math.inf), f"with --epochs {config.epochs}", "shallow_epochs")
    if not takes:  # an unknown loss, which is refused as such
        return idle
    of_this_loss = f"with --loss {config.loss}"
    for field in fields(LossOptions):
        needs(field.name in {"loss", "loss_options", "group_loss", *takes}, of_this_loss, field.name)
    needs("prior" in takes, of_this_loss, *PRIOR, "labels_per_image")
    needs(mode != "selective" or "likelihood_topk" in takes, of_this_loss, "partial_loss_mode")
    # The estimated mAP of a run that is probed goes by its prior, whatever the loss makes of it.
    of_prior = ["prior_path", "prior_estimator", "labels_per_image"] if config.prior_estimator == "probe" else []
    selective = [name for name in (*SELECTIVE, "labels_per_image") if name not in of_prior]
    needs(mode == "selective" or "known" in takes, "without --partial_loss_mode selective", *selective)
    needs(mode not in ("ignore", "ignore_normalize_classes"), f"with --partial_loss_mode {mode}",
          "gamma_unann", "alpha_unann")  # fmt: skip
    for kind in ("pos", "neg", "unann"):
        needs(getattr(config, f"alpha_{kind}") != 0, f"with --alpha_{kind} 0", f"gamma_{kind}")
    if mode == "selective":
        needs(config.alpha_unann != 0, "with --alpha_unann 0", "partial_loss_mode", *SELECTIVE)
    needs(config.likelihood_topk != 0, "with --likelihood_topk 0", "topk_scope")
    has_prior = config.prior_path is not None or config.labels_per_image is not None
    if mode == "selective" and config.likelihood_topk == 0:
        used = has_prior and threshold not in (0, 1)
        needs(used, "with --likelihood_topk 0 and no prior", "partial_loss_mode")
    of_negatives = config.alpha_neg == 0 and config.learns_from_known_alone
    needs(not of_negatives, "without weights of negatives (--alpha_neg, --alpha_unann)", "clip")
    needs(has_prior or threshold in (0, 1), "without --prior_path", "prior_threshold")
    needs(config.prior_path is None or of_prior, f"with --prior_path {config.prior_path}", "labels_per_image")
    needs(threshold is None or (threshold < 1 and threshold != 0), f"with --prior_threshold {threshold or 0:g}",
          "prior_path", "labels_per_image", *STAGE_1)  # fmt: skip
    needs(config.prior_path == "auto", "without --prior_path auto", *STAGE_1)
    needs(not of_prior, "with --prior_estimator probe", "prior_epochs", "prior_loss")
    needs(config.changes_prior_loss, "without exponents, weights or margin", "prior_loss")

    needs(config.model_path is not None, "without --model_path", "weights_key")
    scheme = config.simulate_partial_type
    needs(scheme is not None, "without --simulate_partial_type", "simulate_partial_param")
    needs(scheme not in WITHOUT_PARAM, f"with --simulate_partial_type {scheme}", "simulate_partial_param")

    needs((config.stop_epoch or 0) <= config.epochs, f"with --epochs {config.epochs}", "stop_epoch")
    return idle
