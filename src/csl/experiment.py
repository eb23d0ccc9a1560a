"""One run of `train.py` from its settings to its results: labels, mask, prior, network, training, summary."""

import dataclasses
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from csl import checkpoint
from csl.config import TrainConfig
from csl.data.checking import find_bad_images
from csl.data.dataset import ImageDataset
from csl.data.garments import make_garments
from csl.data.loader import create_loader, default_workers
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix, simulate
from csl.losses import create_loss
from csl.metrics import mean_average_precision
from csl.models import check_image_size, create_model
from csl.predict import Predictor
from csl.prior import read_prior
from csl.recipes import DEMO_DATA
from csl.run import RunFolder
from csl.scoring import choose_device
from csl.sources import read_split, read_truth
from csl.trainer import Trainer, TrainerOptions

Say = Callable[[str], None]

DEFAULT_BACKBONE = "./tresnet_m.pth"
"""Weights that are taken where no others are named, if the file is there: the original's default."""


@dataclass(frozen=True)
class Data:
    """What a run trains and validates on; `truth` holds all labels of `val` where they are known to us."""

    train: Annotations
    val: Annotations
    truth: LabelMatrix | None = None


def train(config: TrainConfig, say: Say = tqdm.write) -> dict:
    """Run the training that `config` describes; returns the results of its best epoch.

    With `prior_path` "auto" a run in "ignore" mode comes first, in `{path_dest}/prior`, and estimates the class prior.

    Raises:
        InputError: bad input of any kind, before anything is overwritten.
        csl.trainer.Interrupted: stopped by a signal, resumable.
    """
    _check(config)
    started = time.perf_counter()
    run = RunFolder(config.path_dest)
    if config.resume and not (run.last.exists() or RunFolder(run.prior).last.exists()):
        raise InputError(f"--resume: no last.ckpt in {run.path}, expected the folder of a run that was stopped")
    data = load_data(config, say)
    if config.num_classes is not None and config.num_classes != len(data.train.classes):
        raise InputError(
            f"--num_classes {config.num_classes}: {data.train.source} has {len(data.train.classes)} classes"
        )
    data = _without_bad_images(data, config, say)
    full_labels = data.train.labels
    data = _with_simulated_labels(data, config, say)
    model, line = _create_network(config, len(data.train.classes))  # before anything moves: a wrong file loses nothing
    say(line)
    prior = read_prior(config.prior_path, data.train.classes) if config.prior_path not in (None, "auto") else None

    if not config.resume and (aside := run.start()):
        say(f"the run that was in {run.path} is now in {aside}")
    run.make_last()
    run.write_config({**config.to_dict(), "versions": _versions()})
    if config.simulate_partial_type:
        data.train.labels.save(run.partial_labels)

    if config.prior_path == "auto":
        prior = _estimate_prior(config, data, run, say)
        # The stage drew random numbers: begin again, so that the start is that of a run with a prior from a file.
        model, _ = _create_network(config, len(data.train.classes))
    resumed = dataclasses.replace(config, resume=config.resume and run.last.exists())
    best = _fit(model, resumed, data, run, prior, say)
    _summarise(config, data, full_labels, run, best, time.perf_counter() - started, say)
    return best


def load_data(config: TrainConfig, say: Say = tqdm.write) -> Data:
    """Read the annotations of both splits; the demo set is drawn first where it is what is asked for."""
    source = Path(config.data or DEMO_DATA)
    if config.data == DEMO_DATA and not (source / "attributes.csv").exists():
        say(f"drawing the demo set into {source}")
        make_garments(source)
    settings = config.to_dict()
    train = read_split(source, "train", settings)
    val = read_split(source, "val", settings, train.classes, train.groups)
    if val.source == train.source and len(val) == len(train) and val.images[0] == train.images[0]:
        raise InputError(f"{train.source}: the same images for training and validation, expected a folder with both")
    if list(val.classes) != list(train.classes):
        raise InputError(f"{val.source}: other classes than {train.source}, expected the same in both splits")
    for name, part in (("train", train), ("val", val)):
        if not len(part):
            raise InputError(f"{part.source}: no images in the split {name}")
        skipped = f" ({part.skipped:,} images without annotations left out)" if part.skipped else ""
        say(f"{name}: {part.source}: {part.summary()}{skipped}")
    return Data(train, val, read_truth(source, "val", settings, val))


def _check(config):
    check_image_size(config.model_name, config.image_size)
    TrainTransform(config.image_size, config.augment)
    if config.on_bad_image not in ("stop", "skip"):
        raise InputError(f"--on_bad_image {config.on_bad_image}: expected stop or skip")
    for name in ("epochs", "batch_size", "stop_epoch", "max_steps", "prior_epochs", "print_freq"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected 1 or more")
    if config.prior_path is not None and config.loss != "csl":
        raise InputError(f"--prior_path: the loss {config.loss} takes no prior, expected --loss csl")
    _create_loss(config, None)


def _without_bad_images(data, config, say):
    """Look at every file before the first step: nobody should lose an epoch to one broken photo."""
    parts = []
    for name, part in (("train", data.train), ("val", data.val)):
        bad = find_bad_images(part.images)
        for image in bad[:10]:
            say(f"bad image ({name}): {image.reason}")
        if len(bad) > 10:
            say(f"... and {len(bad) - 10:,} more")
        if bad and config.on_bad_image == "stop":
            raise InputError(
                f"{len(bad):,} of the {len(part):,} {name} images cannot be read, the first is {bad[0].reason}; "
                "expected all of them, or --on_bad_image skip to train without these"
            )
        if bad:
            good = np.setdiff1d(np.arange(len(part)), [image.index for image in bad])
            if not len(good):
                raise InputError(f"{part.source}: none of the {len(part):,} {name} images can be read")
            say(f"{name}: {len(bad):,} bad images left out, {len(good):,} left")
            part = part.select(good)
            if name == "val" and data.truth is not None:
                data = dataclasses.replace(data, truth=data.truth.select(good))
        parts.append(part)
    return Data(*parts, truth=data.truth)


def _with_simulated_labels(data, config, say):
    if not config.simulate_partial_type:
        if config.simulate_partial_param is not None:
            raise InputError("--simulate_partial_param: given without --simulate_partial_type, expected fpc or rps")
        return data
    labels = simulate(
        data.train.labels,
        config.simulate_partial_type,
        config.simulate_partial_param,
        np.random.default_rng(config.seed),
    )
    data = dataclasses.replace(data, train=data.train.with_labels(labels))
    say(f"train, simulated {config.simulate_partial_type}: {data.train.summary()}")
    counts = labels.counts()
    table = pd.DataFrame(
        {"positive": counts.positives, "negative": counts.negatives, "unknown": counts.unannotated},
        index=pd.Index(data.train.classes, name="class"),
    )
    say(table.to_string(max_rows=100))
    return data


def _create_network(config, num_classes):
    """The network with its starting weights, and one line that says where these are from."""
    torch.manual_seed(config.seed)
    model = create_model(config.model_name, num_classes, head=config.head, dropout=config.dropout)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    line = f"network: {config.model_name}, {num_classes} classes, {millions:.1f} M parameters"
    path = config.model_path
    if path is None and not Path(DEFAULT_BACKBONE).exists():
        return model, f"{line}, from scratch (no {DEFAULT_BACKBONE}; --model_path names weights to start from)"
    if path is None and config.model_name != "tresnet_m":
        return model, f"{line}, from scratch ({DEFAULT_BACKBONE} is of another network)"
    path = path or DEFAULT_BACKBONE
    return model, f"{line}; {checkpoint.load_backbone(model, checkpoint.read(path))}"


def _create_loss(config, prior):
    options = config.loss_options()
    if config.loss == "csl":
        options |= {"mode": config.partial_loss_mode, "prior": prior} if config.partial_loss_mode else {"prior": prior}
    else:
        options = {k: v for k, v in options.items() if k in ("clip", "gamma_pos", "gamma_neg")}
    return create_loss(config.loss, **options)


def _estimate_prior(config, data, run, say):
    """The first stage: a temporary model in "ignore" mode, whose mean prediction over its last epoch is the prior."""
    stage = dataclasses.replace(
        config,
        partial_loss_mode="ignore",
        prior_path=None,
        prior_threshold=None,
        epochs=config.prior_epochs or config.epochs,
        prior_epochs=None,
        path_dest=str(run.prior),
        resume=config.resume and RunFolder(run.prior).last.exists(),
    )
    folder = RunFolder(run.prior)
    say(f"stage 1 of 2: the class prior, from {stage.epochs} epochs in ignore mode, in {folder.path}")
    if not stage.resume:
        folder.start()
        folder.write_config({**stage.to_dict(), "versions": _versions()})
    model, _ = _create_network(stage, len(data.train.classes))
    _fit(model, stage, data, folder, None, say)
    prior = read_prior(folder.train_prior, data.train.classes)
    say(f"stage 2 of 2: {config.partial_loss_mode or 'negative'} mode with the prior of {folder.train_prior}")
    return prior


def _fit(model: nn.Module, config, data, run, prior, say):
    device = choose_device(config.device)
    workers = default_workers() if config.workers is None else config.workers
    train_set = ImageDataset(data.train, TrainTransform(config.image_size, config.augment), seed=config.seed)
    val_set = ImageDataset(data.val, EvalTransform(config.image_size))
    names = {f.name for f in dataclasses.fields(TrainerOptions)} - {"describe"}
    trainer = Trainer(
        model,
        _create_loss(config, prior),
        create_loader(train_set, config.batch_size, workers, shuffle_seed=config.seed, drop_last=True),
        create_loader(val_set, config.batch_size, workers),
        data.val,
        run,
        device,
        TrainerOptions(
            **{k: v for k, v in config.to_dict().items() if k in names},
            describe={"model_name": config.model_name, "head": config.head, "config": config.to_dict()},
        ),
        say,
    )
    precision = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}[trainer.amp_dtype]
    say(
        f"training on {device}, {precision}, {config.epochs} epochs of {trainer.steps_per_epoch} steps, batch "
        f"{config.batch_size}, image size {config.image_size}, {workers} workers, seed {config.seed}"
    )
    if config.resume:
        trainer.resume()
        say(f"resumed {run.last} at epoch {trainer.epoch + 1}, step {trainer.step}")
    return trainer.fit()


def _summarise(config, data, full_labels, run, best, seconds, say):
    """Where the results are, what they are, and what to run next."""
    results = {"best": best, "seconds": round(seconds, 1)}
    if data.truth is not None:
        results["mAP_all_labels"] = _map_with_truth(config, data, run)
    with open(run.path / "results.json", "w") as file:
        json.dump(results, file, indent=2)
    from csl.plots import plot_training  # matplotlib is imported when a picture is wanted

    plots = plot_training(run, data.train, full_labels if config.simulate_partial_type else None)
    say("")
    weights = "EMA weights" if best["weights"] == "ema" else "regular weights"
    say(f"mAP on annotated entries {best['mAP']:.2f} (epoch {best['epoch']}, {weights})")
    say(f"mAP with un-annotated as negative {best['mAP_negative']:.2f}")
    if "mAP_all_labels" in results:
        say(f"mAP with all labels known {results['mAP_all_labels']:.2f}")
    say(f"took {seconds:.0f} s; results in {run.path}: best.ckpt, log.jsonl, {', '.join(p.name for p in plots)}")
    say("next: python validate.py    python infer.py    tensorboard --logdir " + str(run.path))


def _map_with_truth(config, data, run):
    predictor = Predictor.load(run.best, device=config.device, amp=config.amp)
    scores = predictor.score(data.val.images, config.batch_size, workers=0)
    return mean_average_precision(scores.probabilities[0], data.truth[scores.indices])


def _versions():
    found = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "numpy", "Pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
