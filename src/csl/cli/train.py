"""The flags of train.py."""

import argparse

from csl.cli import flags, parsing
from csl.losses import LOSSES
from csl.losses.options import settings_of
from csl.runs.config import TrainConfig
from csl.training.recipes import RECIPES, idle_line, recipe_line, with_recipe

DESCRIPTION = "Train a multi-label classifier on partially annotated images."
EPILOG = """where neither a loss nor a recipe is given, loss, start and settings are chosen by the labels and the number
of images, which is said; any flag given wins. without --data the drawn demo set is made and trained on.
every flag may be written with - or _. examples:
  python train.py
  python train.py --data photos/ --image_size 224
  python train.py --data coco/ --simulate_partial_type rps --simulate_partial_param 0.5"""


def parser() -> argparse.ArgumentParser:
    """The parser of train.py; its names are the fields of `TrainConfig`, and the recipe that fills them."""
    p, group = flags.parser_of(TrainConfig, DESCRIPTION, EPILOG)
    p.add_argument("--recipe", metavar="NAME", help=f"settings of a paper or tutorial: {', '.join(RECIPES)}")
    _add_data(group("data"))
    _add_simulation(group("simulated partial labels (training split only)"))
    _add_network(group("network"))
    _add_loss(group("loss"))
    _add_optimisation(group("optimisation"))
    _add_run(group("run"))
    return p


def _add_data(g):
    g.add(
        "--data",
        metavar="DIR",
        help="CSV, COCO, LVIS, OpenImages, NUS-WIDE or VOC annotations; or shards-{000..127}.tar",
    )
    g.shared(*flags.DATA)
    g.add("--num_classes", type=int, metavar="C", help="expected number of classes (the data's)")
    g.add(
        "--val_split", type=float, metavar="SHARE", help="of data without a val split: keep this share for validation"
    )
    g.shared("on_bad_image")


def _add_simulation(g):
    g.add(
        "--simulate_partial_type",
        type=parsing.mode,
        metavar="TYPE",
        help="fpc, rps, uniform_known, single_positive, positives_only, drop_positives",
    )
    g.add(
        "--simulate_partial_param",
        type=float,
        metavar="X",
        help="labels kept per class (fpc: 1000), share dropped (rps: 0.5)",
    )


def _add_network(g):
    g.add("--model_name", metavar="NAME", help="tresnet_m, tresnet_l, tresnet_xl, tresnet_l_v2 or a timm name")
    g.add(
        "--model_path",
        metavar="FILE",
        type=parsing.mode,
        help="weights to start from, their head for classes of the same names; auto: published ones, if to be had; or none",
    )
    g.shared("weights_key")
    g.add("--head", metavar="HEAD", help="linear, bottleneck, hidden, ml_decoder or boostlu (docs/losses.md)")
    g.add("--dropout", type=float, metavar="P", help="before the classifier of a timm model")
    g.add("--image_size", type=parsing.size, metavar="PX", help="images are resized to this side, or HEIGHTxWIDTH")
    g.add("--progressive_size", type=parsing.size, metavar="PX",
          help="train at this size at first, rising to --image_size (docs/speed.md)")  # fmt: skip
    g.shared("background")
    g.add("--augment", metavar="NAME", help="original (cutout, RandAugment), fast (on device), flip_affine, none",
          default="auto: fast")  # fmt: skip
    g.add("--mix", metavar="NAME", help="logic (LogicMix): half of the photos laid over others, labels too")
    g.add(
        "--probe",
        action="store_true",
        help="freeze the network: choose loss and prior, train a head on its features (minutes)",
    )

    g.add(
        "--refit_head",
        action="store_true",
        help="after training, fit a class's last-layer row to its known labels (docs/losses.md)",
    )


def _add_loss(g):
    g.add(
        "--loss",
        metavar="NAME",
        help=f"auto (by what is known of the labels), or one of docs/losses.md: {', '.join(LOSSES)}",
        default="auto; csl with flags of a loss",
    )
    g.add(
        "--loss_options",
        metavar="A=X,...",
        help="options of this loss that have no flag here, such as tau=0.6,margin=1",
    )
    g.add(
        "--group_loss",
        metavar="NAME",
        help="of an attribute's values: sigmoid, or softmax as they exclude each other",
    )
    _add_setting(g, "partial_loss_mode", parsing.mode, "MODE",
              "un-annotated labels: negative, ignore, ignore_normalize_classes or selective")  # fmt: skip
    for what, kind in (("pos", "positive"), ("neg", "negative"), ("unann", "un-annotated")):
        _add_setting(g, f"gamma_{what}", float, "G", f"focusing exponent of {kind} labels")
    for what, kind in (("pos", "positive"), ("neg", "negative"), ("unann", "un-annotated")):
        _add_setting(g, f"alpha_{what}", float, "A", f"weight of {kind} labels")
    _add_setting(g, "clip", float, "M", "probability margin of negatives")
    _add_setting(g, "likelihood_topk", int, "K", "selective: most likely un-annotated labels ignored per image")
    _add_setting(g, "topk_scope", str, "SCOPE", "selective: batch ignores the K x B most likely of it; sample: K each")
    g.add(
        "--prior_path",
        type=parsing.mode,
        metavar="FILE",
        help="selective, annotation: CSV of the class prior, or auto to estimate it first",
    )
    g.add(
        "--labels_per_image",
        type=float,
        metavar="K",
        help="that prior where no negative is known: labels of an image on average, by a count",
    )
    _add_setting(g, "prior_threshold", float, "P",
              "selective: un-annotated labels of classes with a higher prior are ignored")  # fmt: skip
    g.add("--prior_epochs", type=int, metavar="N", help="epochs of the run that --prior_path auto makes (--epochs)")
    g.add("--prior_loss", metavar="NAME", help="of that run: bce (plain cross-entropy) or focal (exponents as here)")
    g.add(
        "--prior_estimator",
        metavar="NAME",
        help="mean (its mean prediction, as published), em (on images it is not trained on; of --loss annotation), or probe "
        "(no such run: by heads on the frozen start)",
    )


def _add_optimisation(g):
    g.add("--epochs", type=int, metavar="N", help="epochs of the learning-rate schedule",
          default="30; auto: by the images")  # fmt: skip
    g.add("--stop_epoch", type=int, metavar="N", help="train this many of them")
    g.add("--max_steps", type=int, metavar="N", help="stop after this many steps")
    g.add("--frozen_epochs", type=int, metavar="N", help="train the head alone for this many epochs at first")
    g.add(
        "--shallow_epochs", type=int, metavar="N", help="of a TResNet from scratch, the first block of each stage alone"
    )
    g.add("-b", "--batch_size", type=int, metavar="B", help="images at a time, in each process of torchrun")
    g.add("--grad_accum", type=int, metavar="N", help="batches per step in each process, whose gradients add up")
    g.add("--lr", type=float, metavar="LR", help="highest learning rate, never rescaled by the processes",
          default="2e-4")  # fmt: skip
    g.add("--schedule", metavar="NAME", help="onecycle (up to --lr and down again) or constant")
    g.add("--weight_decay", type=float, metavar="W", help="for matrices and filters")
    g.add("--optimizer", metavar="NAME", help="adam (L2 weight decay) or adamw")
    g.add("--ema_decay", type=float, metavar="D", help="decay of the moving average of the weights, 0 for none")
    g.shared("amp")
    g.add("--abn", metavar="NAME", help="what runs InPlace-ABN: auto (Triton on a GPU), triton, torch, inplace-abn")
    g.add("--sync_abn", action="store_true", help="InPlace-ABN's statistics are taken over all of torchrun's processes")
    g.add("--memory", metavar="NAME", help="InPlace-ABN on a CPU: save, fast (keeps more) or auto (docs/speed.md)")
    g.shared("compile")
    g.add("--cuda_graph", action="store_true", help="launch a step as a whole: for small batches on one GPU")


def _add_run(g):
    g.add("--path_dest", metavar="DIR", help="folder of the run; an earlier run in it is moved aside")
    g.add(
        "--resume",
        action="store_true",
        help="go on with the run in --path_dest; with --schedule constant also for more epochs",
    )
    g.add("--save_every", type=int, metavar="N", help="save every N steps, beside every epoch")
    g.add("--eval_every", type=int, metavar="N", help="validate every N steps, beside every epoch")
    g.add("--select_by", metavar="NAME", help="best.ckpt by annotated, estimated, auto",
          default="annotated; auto with --loss annotation")  # fmt: skip
    g.add("--skip_nonfinite", type=int, metavar="N", help="skip up to N steps whose loss is not finite")
    g.add("--deterministic", action="store_true", help="bit-equal runs; slower on a GPU")
    g.add("--seed", type=int, metavar="S", help="random seed")
    g.shared("workers", "cache", "device", "print_freq")


def _add_setting(group, name, kind, metavar, help):
    """Add a flag of the losses, with the default of each loss that takes it."""
    defaults = {loss: settings_of(loss)[name] for loss in LOSSES if name in settings_of(loss)}
    words = {loss: f"{value:g}" if isinstance(value, float) else str(value) for loss, value in defaults.items()}
    same = len(set(words.values())) == 1
    default = next(iter(words.values())) if same else ", ".join(f"{loss} {word}" for loss, word in words.items())
    group.add(f"--{name}", type=kind, metavar=metavar, help=help, default=default)


def main(given: dict) -> None:
    """Train as the flags say, over a recipe where one is named; else what they leave open is chosen."""
    from csl.machine import distributed
    from csl.machine.signals import Interrupted
    from csl.training import auto
    from csl.training.experiment import train  # PyTorch and friends load once the flags are known to be good

    named = given.pop("recipe", None)
    recipe = "demo" if named is None and "data" not in given else named
    settings = auto.left_open(given)
    if recipe is not None:
        settings = with_recipe(recipe, given)
        for line in (recipe_line(recipe, given) if named else None, idle_line(recipe, given)):
            if line is not None:
                distributed.on_rank0(print)(line)
    try:
        train(TrainConfig(**settings))
    except Interrupted as stop:
        distributed.on_rank0(print)(f"{stop}; the same command with --resume goes on")
        raise SystemExit(128 + stop.signal_number) from None
