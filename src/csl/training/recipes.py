"""Named sets of settings. A flag that is given wins over them.

Where a recipe is of a paper, the paper or its README says the numbers; what neither says is left to the defaults and
named in a comment.
"""

from typing import Any

from csl.errors import InputError
from csl.runs.config import TrainConfig
from csl.training.checks import OF_LOSS, PRIOR, idle_settings

DEMO_DATA = "data/garments"

_CSL_COCO = {
    "image_size": 448,
    "batch_size": 64,
    "lr": 2e-4,
    "epochs": 30,
    "model_name": "tresnet_m",
    "model_path": "timm/tresnet_m.miil_in21k",
    "loss": "csl",
    "partial_loss_mode": "selective",
    "gamma_pos": 0.0,
    "gamma_unann": 4.0,
    "likelihood_topk": 5,
    "prior_threshold": 0.5,
    "prior_path": "auto",
    "prior_loss": "focal",
}

RECIPES: dict[str, dict[str, Any]] = {
    # `python train.py`: the drawn garments, in a few minutes on two cores.
    "demo": {
        "data": DEMO_DATA,
        "image_size": 64,
        "loss": "auto",
        "epochs": 7,
        "shallow_epochs": 5,
        "batch_size": 32,
        "lr": 3e-3,
        "optimizer": "adam",
        "augment": "none",
    },
    # The same as CSL has it: a class prior first, then the selective loss.
    "demo_csl": {
        "data": DEMO_DATA,
        "image_size": 64,
        "partial_loss_mode": "selective",
        "prior_path": "auto",
        "prior_epochs": 1,
        "epochs": 5,
        "batch_size": 32,
        "lr": 3e-3,
        "optimizer": "adam",
        "augment": "none",
        "gamma_unann": 4.0,
        "likelihood_topk": 1,
        "prior_threshold": 0.2,  # between the frequent values of an attribute and the rare ones
    },
    # The original without a flag: un-annotated labels are negatives, and all else is the program's defaults.
    "csl": {"loss": "csl", "partial_loss_mode": "negative"},
    # CSL on COCO 2014, 1,000 positives and 1,000 negatives kept per class: mAP 83.44.
    "csl_coco_fpc": {
        **_CSL_COCO,
        "simulate_partial_type": "fpc",
        "simulate_partial_param": 1000.0,
        "gamma_neg": 3.0,
    },
    # CSL on COCO 2014, half of all labels dropped: mAP 85.21.
    "csl_coco_rps": {
        **_CSL_COCO,
        "simulate_partial_type": "rps",
        "simulate_partial_param": 0.5,
        "gamma_neg": 1.0,
    },
    # CSL on OpenImages V6: mAP 86.72. Schedule, batch and starting weights are not published.
    "csl_openimages": {
        "image_size": 224,
        "model_name": "tresnet_m",
        "head": "bottleneck",
        "loss": "csl",
        "partial_loss_mode": "selective",
        "gamma_pos": 1.0,
        "gamma_neg": 2.0,
        "gamma_unann": 7.0,
        "likelihood_topk": 200,
        "prior_threshold": 0.05,
        "prior_path": "auto",
        "prior_loss": "focal",
    },
    # ASL on COCO 2014 at 224 pixels, TResNet-M from ImageNet: mAP 81.8 is that of the published weights.
    "asl_coco": {
        "image_size": 224,
        "batch_size": 128,
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "epochs": 80,
        "stop_epoch": 40,
        "model_name": "tresnet_m",
        "model_path": "tresnet_m_in1k",
        "loss": "asl",
        "gamma_neg": 4.0,
        "gamma_pos": 0.0,
        "clip": 0.05,
    },
    # CSL on LVIS v1: mAP 78.57 on annotated entries. K and the prior's threshold are the loss's own.
    "lvis": {
        "image_size": 448,
        "batch_size": 64,
        "lr": 6e-4,
        "weight_decay": 3e-4,
        "model_name": "tresnet_m",
        "model_path": "timm/tresnet_m.miil_in21k",
        "loss": "csl",
        "partial_loss_mode": "selective",
        "gamma_pos": 0.0,
        "gamma_neg": 0.0,
        "gamma_unann": 1.0,
        "prior_path": "auto",
    },
    # The fashion fork's 21 classes of three attributes, from CSL's OpenImages weights. It used no prior: its threshold is
    # for one that is given. (Its simulate_partial_param, 0.5, is the default of rps, which it did not use either.)
    "flixstock": {
        "attributes": "neck:7,sleeve_length:4,pattern:10",
        "image_size": 224,
        "batch_size": 8,
        "lr": 2e-4,
        "epochs": 15,
        "augment": "none",
        "model_name": "tresnet_m",
        "model_path": "csl_opim_86.72",
        "loss": "csl",
        "partial_loss_mode": "selective",
        "gamma_pos": 0.0,
        "gamma_neg": 1.0,
        "gamma_unann": 4.0,
        "likelihood_topk": 3,
        "prior_threshold": 0.5,
        "clip": 0.0,
        "weight_decay": 1e-4,
        "print_freq": 100,
    },
    # The NUS-WIDE tutorial, on the subset of `python -m csl prepare nuswide`: macro F1 0.520, micro F1 0.666. torchvision's
    # ImageNet weights; mean and std are the network's own. Batches are drop-last in every run here. Binary cross-entropy is
    # the loss without focusing; there it is a mean over batch and classes and here a sum, a factor of 32 x 27 that Adam
    # divides out again (but for its eps of 1e-8, which weighs that much less).
    "nuswide_tutorial": {
        "image_size": 256,
        "batch_size": 32,
        "lr": 1e-4,
        "schedule": "constant",
        "weight_decay": 0.0,
        "optimizer": "adam",
        "epochs": 36,
        "eval_every": 200,
        "ema_decay": 0.0,
        "amp": "off",
        "augment": "flip_affine",
        "model_name": "resnext50_32x4d",
        "model_path": "timm/resnext50_32x4d.tv_in1k",
        "dropout": 0.2,
        "loss": "csl",
        "partial_loss_mode": "negative",
        "gamma_pos": 0.0,
        "gamma_neg": 0.0,
        "gamma_unann": 0.0,
    },
}


def with_recipe(name: str, flags: dict[str, Any]) -> dict[str, Any]:
    """The settings of the recipe `name` under the flags that were given, but for those that change nothing beside these.

    Raises:
        InputError: an unknown recipe, or one without data of its own and no `data` given.
    """
    if name not in RECIPES:
        raise InputError(f"--recipe {name}: unknown, expected one of {', '.join(RECIPES)}")
    settings = {**RECIPES[name], **flags}
    if "data" not in settings:
        raise InputError(f"--recipe {name}: needs data, expected --data DIR")
    idle = _idle(name, flags)
    return {setting: value for setting, value in settings.items() if setting not in idle}


def recipe_line(name: str, flags: dict[str, Any]) -> str:
    """One line: the recipe's settings as flags, and which of them were overridden by given flags."""
    gone = {**flags, **_idle(name, flags)}
    kept = " ".join(
        f"--{k} {v:g}" if isinstance(v, float) else f"--{k} {v}" for k, v in RECIPES[name].items() if k not in gone
    )
    gave_way = ", ".join(f"--{k}" for k in RECIPES[name] if k in flags)
    return f"recipe {name}: {kept or 'nothing'}" + (f" (given: {gave_way})" if gave_way else "")


def idle_line(name: str, flags: dict[str, Any]) -> str | None:
    """One line: the recipe's settings that are left out and why; None where all of them have an effect."""
    idle = ", ".join(f"--{setting} ({why})" for setting, why in _idle(name, flags).items())
    return f"recipe {name}: left out, as they change nothing: {idle}" if idle else None


def _idle(name, flags):
    """The recipe's settings that change nothing beside the others and the given flags, and why."""
    settings, idle = {**RECIPES[name], **flags}, {}
    if settings.get("loss") == "auto" and "loss" not in flags and (of_loss := flags.keys() & {*OF_LOSS, *PRIOR}):
        idle = {"loss": f"with --{min(of_loss)}"}
        settings.pop("loss")
    idle |= idle_settings(TrainConfig(**settings))
    return {setting: why for setting, why in idle.items() if setting not in flags}
