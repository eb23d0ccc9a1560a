"""One run of `train.py` from its settings to its results: labels, mask, prior, network, training, summary."""

import dataclasses
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError
from csl.losses import create_loss
from csl.machine import distributed
from csl.models import check_image_size, create_model
from csl.models.abn import describe_abn, synchronise_abn
from csl.models.compiling import check_compiler
from csl.ops import set_abn_backend
from csl.predict.scoring import choose_device
from csl.prior import read_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import changed_settings, config_of, deterministic, label_hash, settings_of
from csl.training.data import (
    Say,
    check_fingerprints,
    load_data,
    training_truth,
    with_simulated_labels,
    without_bad_images,
)
from csl.training.optim import SCHEDULES
from csl.training.summary import summarise
from csl.training.trainer import Trainer, TrainerOptions

DEFAULT_BACKBONE = "./tresnet_m.pth"
"""Weights that are taken where no others are named, if the file is there: the original's default."""


def train(config: TrainConfig, say: Say = tqdm.write) -> dict:
    """Run the training that `config` describes; returns the results of its best epoch.

    The processes of a job (`csl.machine.distributed`) do this together: rank 0 alone prints and writes. Those that torchrun has
    started anew resume what they had saved.

    With `prior_path` "auto" a run in "ignore" mode comes first, in `{path_dest}/prior`, and estimates the class prior.

    Raises:
        InputError: bad input of any kind, before anything is overwritten.
        csl.machine.signals.Interrupted: stopped by a signal, resumable.
    """
    with deterministic() if config.deterministic else nullcontext():
        return _train(config, distributed.by_main(say))


def _train(config, say):
    _check(config)
    started = time.perf_counter()
    run = RunFolder(config.path_dest)
    config = _resumed_after_restart(config, run, say)
    asked_to_resume = config.resume
    if config.resume and run.path.exists() and distributed.is_main():
        run.claim()
    config = _if_resumable(config, run, say)
    kept = distributed.object_from_main(run.read_config()) if config.resume else {}
    with distributed.main_first():  # it may have to draw the demo set, and writes the caches
        data = load_data(config, say)
    if config.num_classes is not None and config.num_classes != len(data.train.classes):
        raise InputError(
            f"--num_classes {config.num_classes}: {data.train.source} has {len(data.train.classes)} classes"
        )
    prints = check_fingerprints(data, kept.get("fingerprints"), run.path, say)
    data, left_out = without_bad_images(data, config, say, kept.get("left_out"))
    full_labels = data.train.labels
    data = with_simulated_labels(data, config, say)
    model, line = _create_network(config, len(data.train.classes))  # before anything moves: a wrong file loses nothing
    say(line)
    _check_backends(model, config, say)
    prior = read_prior(config.prior_path, data.train.classes) if config.prior_path not in (None, "auto") else None

    if config.partial_loss_mode == "selective" and config.prior_path is None:
        say("selective mode without a prior (--prior_path auto estimates one): by likelihood alone")

    def record():
        if distributed.is_main():
            mask = label_hash(data.train.labels)
            run.write_config(config_of(config, kept, {**prints, "mask": mask}, left_out))
            if config.simulate_partial_type:
                data.train.labels.save(run.partial_labels)
            run.make_last()

    if not config.resume:  # a resumed run is left as it is until its state has been accepted
        if distributed.is_main():
            run.claim()
            _begin(run, config, asked_to_resume, say)
        record()
    if config.prior_path == "auto":
        prior = _estimate_prior(config, data, full_labels, run, say)
        # The stage drew random numbers: begin again, so that the start is that of a run with a prior from a file.
        model, _ = _create_network(config, len(data.train.classes))
    resumed = dataclasses.replace(config, resume=config.resume and distributed.object_from_main(run.last.exists()))
    best = _fit(model, resumed, data, run, prior, say, accepted=record if config.resume else None)
    if distributed.is_main():
        summarise(config, data, full_labels, run, best, time.perf_counter() - started, say)
    return best


def _resumed_after_restart(config, run, say):
    """The settings with `resume`, where torchrun has started this job anew and it had saved something before."""
    if config.resume or not distributed.restarts():
        return config
    ours = run.config.exists() and run.read_config().get("job") == distributed.job()
    saved = ours and (run.last.exists() or RunFolder(run.prior).last.exists())
    saved = distributed.object_from_main(saved)
    say(f"restart {distributed.restarts()} by torchrun: " + ("resuming" if saved else "nothing saved, from the start"))
    return dataclasses.replace(config, resume=saved)


def _if_resumable(config, run, say):
    """The settings without `resume` where there is nothing to go on with yet: a killed run may not have come that far."""
    if not config.resume:
        return config
    found = None
    if distributed.is_main():
        run.settle()
        RunFolder(run.prior).settle()
        found = run.last.exists() or RunFolder(run.prior).last.exists()
    if not distributed.object_from_main(found):
        say(f"--resume: no last.ckpt in {run.path} yet, starting from the beginning")
        return dataclasses.replace(config, resume=False)
    return config


def _begin(run, config, asked_to_resume, say):
    """Make room for a run from the beginning: an earlier one moves aside, but the beginnings of this one do not."""
    ours = not changed_settings(settings_of(run.read_config()), config.to_dict()) if run.config.exists() else False
    if asked_to_resume and ours and not run.best.exists():
        run.rewind_log(0)
    elif aside := run.start():
        say(f"the run that was in {run.path} is now in {aside}")


def _check(config):
    check_image_size(config.model_name, config.image_size)
    TrainTransform(config.image_size, config.augment)
    if config.on_bad_image not in ("stop", "skip"):
        raise InputError(f"--on_bad_image {config.on_bad_image}: expected stop or skip")
    steps = ("max_steps", "save_every", "eval_every", "print_freq")
    for name in ("epochs", "batch_size", "grad_accum", "stop_epoch", "prior_epochs", *steps):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected 1 or more")
    if not 0 <= config.ema_decay < 1:
        raise InputError(f"--ema_decay {config.ema_decay:g}: expected 0 for no moving average, or more and less than 1")
    if config.schedule not in SCHEDULES:
        raise InputError(f"--schedule {config.schedule}: unknown, expected one of {', '.join(SCHEDULES)}")
    if config.prior_path is not None and config.loss != "csl":
        raise InputError(f"--prior_path: the loss {config.loss} takes no prior, expected --loss csl")
    _create_loss(config, None)
    set_abn_backend(config.abn)


def _create_network(config, num_classes):
    """The network with its starting weights, and one line that says where these are from."""
    torch.manual_seed(config.seed)
    model = create_model(config.model_name, num_classes, head=config.head, dropout=config.dropout)
    synchronise_abn(model, config.sync_abn and distributed.world_size() > 1)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    line = f"network: {config.model_name}, {num_classes} classes, {millions:.1f} M parameters"
    path = config.model_path
    if path is None and not Path(DEFAULT_BACKBONE).exists():
        return model, f"{line}, from scratch (no {DEFAULT_BACKBONE}; --model_path names weights to start from)"
    if path is None and config.model_name != "tresnet_m":
        return model, f"{line}, from scratch ({DEFAULT_BACKBONE} is of another network)"
    path = path or DEFAULT_BACKBONE
    return model, f"{line}; {checkpoint.load_backbone(model, checkpoint.read(path))}"


def _check_backends(model, config, say):
    """Say what InPlace-ABN runs on; InputError where that, its synchronisation or a compiler is not to be had."""
    device = choose_device(config.device)
    line = describe_abn(model, device)
    if line is not None:
        say(line)
    if config.sync_abn and distributed.world_size() == 1:
        say("--sync_abn: one process, whose batch statistics are its own in any case")
    elif config.sync_abn and (line is None or config.abn == "inplace-abn"):
        raise InputError(
            f"--sync_abn: {config.model_name} with --abn {config.abn}, expected a TResNet with auto, triton or torch"
        )
    if config.compile:
        check_compiler(device)


def _create_loss(config, prior):
    options = config.loss_options()
    if config.loss == "csl":
        options |= {"mode": config.partial_loss_mode, "prior": prior} if config.partial_loss_mode else {"prior": prior}
    else:
        options = {k: v for k, v in options.items() if k in ("clip", "gamma_pos", "gamma_neg")}
    return create_loss(config.loss, **options)


def _estimate_prior(config, data, full_labels, run, say):
    """The first stage: a temporary model in "ignore" mode, whose mean prediction over its last epoch is the prior."""
    stage = dataclasses.replace(
        config,
        partial_loss_mode="ignore",
        prior_path=None,
        prior_threshold=None,
        epochs=config.prior_epochs or config.epochs,
        prior_epochs=None,
        path_dest=str(run.prior),
        resume=config.resume and distributed.object_from_main(RunFolder(run.prior).last.exists()),
    )
    folder = RunFolder(run.prior)
    say(f"stage 1 of 2: the class prior, from {stage.epochs} epochs in ignore mode, in {folder.path}")
    if not stage.resume and distributed.is_main():
        folder.start()
        folder.write_config(config_of(stage, {}, {}, None))
    model, _ = _create_network(stage, len(data.train.classes))
    # Weights change how often a class is seen, and the prior is how often it is there: each image once.
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, weights=None))
    _fit(model, stage, data, folder, None, say)
    with distributed.main_first():  # which is the one that writes it
        prior = read_prior(folder.train_prior, data.train.classes)
    if distributed.is_main():
        from csl.plots import plot_run_prior

        plot_run_prior(folder, data.train, training_truth(config, data.train, full_labels))
    say(f"stage 2 of 2: {config.partial_loss_mode or 'negative'} mode with the prior of {folder.train_prior}")
    return prior


def _fit(model: nn.Module, config, data, run, prior, say, accepted=None):
    """Train; `accepted` is called once a state to go on from, if there is one, turned out to be that of this run."""
    device = choose_device(config.device)
    if distributed.rank() > 0:  # each process draws dropout of its own; rank 0 draws what it would on its own
        torch.manual_seed(int(np.random.SeedSequence((config.seed, distributed.rank())).generate_state(1)[0]))
    workers = default_workers() if config.workers is None else config.workers
    transform, val_transform = TrainTransform(config.image_size, config.augment), EvalTransform(config.image_size)
    train_cache = open_cache(config.cache, data.train.images, transform, say)
    val_cache = open_cache(config.cache, data.val.images, val_transform, say)
    train_set = ImageDataset(data.train, transform, seed=config.seed, cache=train_cache)
    val_set = ImageDataset(data.val, val_transform, cache=val_cache)
    names = {f.name for f in dataclasses.fields(TrainerOptions)} - {"describe"}
    trainer = Trainer(
        model,
        _create_loss(config, prior),
        create_loader(
            train_set,
            config.batch_size,
            workers,
            shuffle_seed=config.seed,
            drop_last=True,
            grad_accum=config.grad_accum,
            shared=True,
            weights=data.train.weights,
        ),
        create_loader(val_set, config.batch_size, workers, shared=True),
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
    batch = f"batch {trainer.global_batch}"
    if trainer.processes > 1 or config.grad_accum > 1:
        parts = f"{config.grad_accum} x {config.batch_size}" if config.grad_accum > 1 else f"{config.batch_size}"
        batch += f" ({trainer.processes} processes x {parts}; --lr {config.lr:g} as given)"
    say(
        f"training on {device}, {precision}, {config.epochs} epochs of {trainer.steps_per_epoch} steps, {batch}, "
        f"image size {config.image_size}, {workers} workers, seed {config.seed}"
    )
    if not config.resume and distributed.is_main():
        run.rewind_log(0)  # where the first stage is resumed and the second was killed before it saved anything
    if config.resume:
        trainer.resume()
        say(f"resumed {run.last} at epoch {trainer.epoch + 1}, step {trainer.step}")
    if accepted is not None:
        accepted()
    return trainer.fit()
