"""The flags of train.py."""

import argparse
import inspect
from dataclasses import fields

from csl.cli import parsing
from csl.losses import PartialSelectiveLoss
from csl.runs.config import TrainConfig
from csl.training.recipes import RECIPES, recipe_line, with_recipe

DESCRIPTION = "Train a multi-label classifier on partially annotated images."
EPILOG = """without --data the drawn demo set is made and trained on, in both stages; any flag given wins.
every flag may be written with - or _. examples:
  python train.py
  python train.py --data photos/ --image_size 224 --partial_loss_mode selective --prior_path auto
  python train.py --data coco/ --simulate_partial_type rps --simulate_partial_param 0.5"""


def parser() -> argparse.ArgumentParser:
    """The parser of train.py; its names are the fields of `TrainConfig`, and the recipe that fills them."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    loss = {k: v.default for k, v in inspect.signature(PartialSelectiveLoss).parameters.items()}

    def add(group, *flags, help, **options):
        name = flags[-1].removeprefix("--") if "dest" not in options else options["dest"]
        default = defaults.get(name)
        if default is None and name in loss:
            default = loss[name]
        shown = f" ({default:g})" if type(default) in (int, float) else f" ({default})" if type(default) is str else ""
        group.add_argument(*flags, help=help + shown, **options)

    p.add_argument("--recipe", metavar="NAME", help=f"settings of a paper or tutorial: {', '.join(RECIPES)}")
    g = p.add_argument_group("data")
    add(
        g,
        "--data",
        metavar="DIR",
        help="CSV, COCO, LVIS, OpenImages, NUS-WIDE or VOC annotations; or shards-{000..127}.tar",
    )
    add(g, "--images", metavar="DIR", help="folder of the image files, where it is not beside the annotations")
    add(g, "--metadata", metavar="DIR", help="folder of train.json and val.json, where they are not in --data")
    add(g, "--debug_mode", metavar="LAYOUT", help="COCO layout on_farm or hyperml, instead of finding out")
    add(g, "--attributes", metavar="SPEC", help="sizes of attributes in a CSV: neck:7,sleeve_length:4,pattern:10")
    add(g, "--ignore_columns", metavar="A,B", type=parsing.names, help="columns of a CSV that are no attributes")
    add(g, "--keep_unlabelled_images", action="store_true", help="COCO: keep images without any annotation")
    add(g, "--classes_file", metavar="FILE", help="OpenImages: list of MIDs, instead of the trainable classes")
    add(g, "--strict_labels", action="store_true", help="OpenImages: stop at the first malformed row")
    add(g, "--follow_links", action="store_true", help="images may lie outside of the data folder, links too")
    add(g, "--num_classes", type=int, metavar="C", help="expected number of classes (taken from the data)")
    add(g, "--on_bad_image", choices=("stop", "skip"), help="what an unreadable image does")

    g = p.add_argument_group("simulated partial labels (training split only)")
    add(
        g,
        "--simulate_partial_type",
        metavar="TYPE",
        help="fpc, rps, uniform_known, single_positive, positives_only, drop_positives",
    )
    add(
        g,
        "--simulate_partial_param",
        type=float,
        metavar="X",
        help="labels kept per class (fpc: 1000), share dropped (rps: 0.5)",
    )

    g = p.add_argument_group("network")
    add(g, "--model_name", metavar="NAME", help="tresnet_m, tresnet_l, tresnet_xl, tresnet_l_v2 or a timm name")
    add(
        g,
        "--model_path",
        metavar="FILE",
        type=parsing.mode,
        help="weights to start from, all but the head (./tresnet_m.pth if it is there), or none",
    )
    add(g, "--head", metavar="HEAD", help="linear, bottleneck or ml_decoder")
    add(g, "--dropout", type=float, metavar="P", help="before the classifier of a timm model")
    add(g, "--image_size", type=parsing.size, metavar="PX", help="side, or HEIGHTxWIDTH, images are resized to")
    add(g, "--augment", metavar="NAME", help="original (cutout, RandAugment), fast (on the device), flip_affine, none")

    g = p.add_argument_group("loss")
    add(g, "--loss", metavar="NAME", help="csl or asl")
    add(g, "--partial_loss_mode", type=parsing.mode, metavar="MODE",
        help="un-annotated labels: negative, ignore, ignore_normalize_classes or selective (negative)")  # fmt: skip
    for what, kind in (("pos", "positive"), ("neg", "negative"), ("unann", "un-annotated")):
        add(g, f"--gamma_{what}", type=float, metavar="G", help=f"focusing of {kind} labels")
    for what, kind in (("pos", "positive"), ("neg", "negative"), ("unann", "un-annotated")):
        add(g, f"--alpha_{what}", type=float, metavar="A", help=f"weight of {kind} labels")
    add(g, "--clip", type=float, metavar="M", help="probability margin of negatives; with --loss asl 0.05")
    add(
        g,
        "--likelihood_topk",
        type=int,
        metavar="K",
        help="selective: most likely un-annotated labels ignored per image",
    )
    add(
        g,
        "--topk_scope",
        metavar="SCOPE",
        help="selective: K x batch over each process's batch, over all processes', or K a sample: batch, global, sample",
    )
    add(g, "--prior_path", metavar="FILE", help="selective: CSV of the class prior, or auto to estimate it first")
    add(
        g,
        "--prior_threshold",
        type=float,
        metavar="P",
        help="selective: classes with a larger prior are ignored where un-annotated",
    )
    add(g, "--prior_epochs", type=int, metavar="N", help="epochs of the run that --prior_path auto makes (--epochs)")

    g = p.add_argument_group("optimisation")
    add(g, "--epochs", type=int, metavar="N", help="epochs of the learning-rate schedule")
    add(g, "--stop_epoch", type=int, metavar="N", help="train this many of them")
    add(g, "--max_steps", type=int, metavar="N", help="stop after this many steps")
    add(g, "-b", "--batch_size", type=int, metavar="B", help="images at a time, in each process of torchrun")
    add(g, "--grad_accum", type=int, metavar="N", help="batches of each process in a step, whose gradients add up")
    add(g, "--lr", type=float, metavar="LR", help="highest learning rate; never rescaled by the number of processes")
    add(g, "--schedule", metavar="NAME", help="onecycle (up to --lr and down again) or constant")
    add(g, "--weight_decay", type=float, metavar="W", help="for matrices and filters")
    add(g, "--optimizer", metavar="NAME", help="adam (L2 weight decay) or adamw")
    add(g, "--ema_decay", type=float, metavar="D", help="decay of the moving average of the weights, 0 for none")
    add(g, "--amp", choices=("auto", "bf16", "fp16", "off"), help="low precision; auto: on a GPU")
    add(g, "--abn", metavar="NAME", help="what InPlace-ABN runs on: auto (Triton on a GPU), triton, torch, inplace-abn")
    add(g, "--sync_abn", action="store_true", help="InPlace-ABN's statistics are those of all of torchrun's processes")
    add(g, "--compile", action="store_true", help="torch.compile of the network: takes minutes before the first step")

    g = p.add_argument_group("run")
    add(g, "--path_dest", metavar="DIR", help="folder of the run; an earlier run in it is moved aside")
    add(g, "--resume", action="store_true", help="go on with the run in --path_dest")
    add(g, "--save_every", type=int, metavar="N", help="save every N steps, beside every epoch")
    add(g, "--eval_every", type=int, metavar="N", help="validate every N steps, beside every epoch")
    add(g, "--skip_nonfinite", type=int, metavar="N", help="leave out up to N steps of a loss that is not finite")
    add(g, "--deterministic", action="store_true", help="bit-equal runs; slower on a GPU")
    add(g, "--seed", type=int, metavar="S", help="of everything that is random")
    add(g, "-j", "--workers", type=int, metavar="N", help="processes that decode images (one a core, at most 8)")
    add(g, "--cache", metavar="DIR", help="keep resized photos there for the next epoch or run")
    add(g, "--device", metavar="DEV", help="cuda, cuda:1, cpu (a GPU where there is one)")
    add(
        g,
        "-p",
        "--print_freq",
        "--printfreq",
        dest="print_freq",
        type=int,
        metavar="N",
        help="steps between lines in a log",
    )
    return p


def main(flags: dict) -> None:
    """Train as the flags say, over a recipe where one is named; without either or --data, the demo."""
    from csl.machine import distributed
    from csl.machine.signals import Interrupted
    from csl.training.experiment import train  # PyTorch and friends load once the flags are known to be good

    given = {k: v for k, v in flags.items() if k != "recipe"}
    settings = given
    if "recipe" in flags:
        settings = with_recipe(flags["recipe"], given)
        distributed.by_main(print)(recipe_line(flags["recipe"], given))
    elif "data" not in flags:
        settings = with_recipe("demo", given)
    try:
        train(TrainConfig(**settings))
    except Interrupted as stop:
        distributed.by_main(print)(f"{stop}; the same command with --resume goes on")
        raise SystemExit(128 + stop.signal_number) from None
