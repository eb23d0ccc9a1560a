"""One run of `train.py` from its settings to its results: labels, mask, prior, network, training, summary."""

import dataclasses
import os
import shutil
import time
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import EpochBatches, create_loader, default_workers
from csl.data.photo_cache import check_folder, open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError, printable
from csl.labels import LabelMatrix, simulate
from csl.labels.class_set import ClassSet
from csl.losses.groups import outside
from csl.losses.options import settings_of as settings_of_loss
from csl.machine import distributed
from csl.machine.draws import generator
from csl.metrics import estimated_mean_average_precision
from csl.models import check_image_size, fewest_images
from csl.models.abn import describe_abn
from csl.models.compiling import check_compiler
from csl.models.exclusive import exclusive_groups
from csl.ops import set_abn_backend
from csl.predict.scoring import autocast_dtype, choose_device, gather_scores, score
from csl.prior import estimate_prior_interval, read_prior, read_prior_interval, write_prior
from csl.ranges import check_ranges
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import changed_settings, check_same_settings, config_of, deterministic, label_hash, settings_of
from csl.runs.split import write_split
from csl.training import annotation, auto, probe_run, report, selection
from csl.training.checks import check_groups, check_used
from csl.training.data import (
    Data,
    Say,
    check_fingerprints,
    check_known_labels,
    load_data,
    with_simulated_labels,
    without_bad_images,
)
from csl.training.optim import OPTIMIZERS, SCHEDULES
from csl.training.probe import last_layer
from csl.training.start import create_network, exclusive_of, network_name, starting_weights, with_start
from csl.training.summary import best_scores, summarise
from csl.training.trainer import Trainer


def train(config: TrainConfig, say: Say = tqdm.write) -> dict[str, Any]:
    """Run the training that `config` describes; returns the results of its best evaluation.

    The processes of a job (`csl.machine.distributed`) do this together: rank 0 alone prints and writes. Processes that
    torchrun has restarted resume what they had saved.

    With `prior_path` "auto" a run in "ignore" mode comes first, in `{path_dest}/prior`, and estimates the class prior.

    Raises:
        InputError: bad input of any kind, before anything is overwritten.
        csl.machine.signals.Interrupted: stopped by a signal, resumable.
    """
    with deterministic() if config.deterministic else nullcontext(), ExitStack() as lock:
        return _train(config, lock, distributed.on_rank0(say))


def _train(config, lock, say):
    _check(auto.with_defaults(config))
    set_abn_backend(config.abn)
    started = time.perf_counter()
    run = RunFolder(config.path_dest)
    asked_to_resume = config.resume
    config = dataclasses.replace(config, resume=_resumes(config, run, lock, say))
    before = distributed.broadcast_object(run.read_config()) if config.resume else {}
    asked = config
    config = auto.as_started(config, before)
    if config.resume and config.val_split is None:
        config = dataclasses.replace(config, val_split=before.get("val_split"))
    if (
        config.prior_path == "auto"
        and config.prior_epochs is None
        and before.get("epochs", config.epochs) != config.epochs
    ):
        # More epochs are for stage 2: stage 1 has its own already.
        config = dataclasses.replace(config, prior_epochs=before.get("prior_epochs") or before["epochs"])
    with distributed.rank0_first():  # rank 0 may have to draw the demo set, and writes the caches
        data = load_data(config, say, run.split if config.resume else None)
    parts = {"train": data.train, "val": data.val}
    if config.num_classes is not None and config.num_classes != len(data.train.classes):
        raise InputError(
            f"--num_classes {config.num_classes}: {data.train.source} has {len(data.train.classes)} classes"
        )
    fingerprints = check_fingerprints(data, before.get("fingerprints"), run.path, say)
    data, left_out = without_bad_images(data, config, say, before.get("left_out"))
    full_labels = data.train.labels
    data = with_simulated_labels(data, config, say, _first_mask(run, before) if config.resume else None)
    config = _with_choices(config, asked, data.train, say)
    check_known_labels(data, config, say)
    if (by := selection.criterion(data.val.labels)) != "mAP" and config.selects_by == "annotated":
        say(f"val: the best evaluation is {selection.WORDS[by]}")
    classes = _class_set(data)
    check_groups(config, data.train)
    model, line = create_network(config, classes)  # before anything moves: a wrong file loses nothing
    say(line)
    if config.probe or config.prior_estimator == "probe":
        probe_run.check(config, model, starting_weights(config) is not None)
    if config.refit_head:
        probe_run.check_refit(config, model)
    _check_backends(model, config, say)
    prior = read_prior(config.prior_path, data.train.classes) if config.prior_path not in (None, "auto") else None
    if config.partial_loss_mode == "selective" and config.prior_path is None:
        say("selective mode without a prior (--prior_path auto estimates one): by likelihood alone")

    def record():
        if distributed.is_main():
            mask = label_hash(data.train.labels)
            run.write_config(config_of(config, before, {**fingerprints, "mask": mask}, left_out))
            if config.val_split is not None and not config.resume:
                write_split(run.split, parts)
            if config.simulate_partial_type and not config.resume:
                data.train.labels.save(run.partial_labels)
            run.set_latest()

    if not config.probe:
        _check_batches(config, data.train)
    if not config.resume and distributed.is_main():
        lock.enter_context(run.locked())
        _begin(run, config, asked_to_resume, say)
    saved = config.resume and distributed.broadcast_object(run.last.exists())
    found = None
    if config.prior_estimator == "probe" and not saved:
        choosing = asked.loss == "auto"
        found = probe_run.look(config, data, model, run, None if choosing else config, say)
        if choosing:
            config = auto.of_probe(config, data.train, found)
            check_used(config)
            say(printable(auto.line_of(config, data.train)))
    if not config.resume:
        record()
    if config.probe:
        best, scores = probe_run.train_head(config, data, model, _description(config), run, say)
        summarise(config, data, full_labels, run, best, scores, time.perf_counter() - started, say)
        return best
    if config.prior_path == "auto":
        if saved:
            prior = _prior_of(run, data)
        elif found is not None:
            prior = read_prior(run.prior_file(config), data.train.classes)
        else:
            prior = _estimate_prior(config, data, full_labels, run, before, say)
        # The stage drew random numbers: begin again, so that the start is that of a run with a prior from a file.
        model, _ = create_network(config, classes)
        if found is not None:
            last_layer(model, config.model_name).load_state_dict(found.head.state_dict())
    trainer = _create_trainer(model, config, data, run, prior, say)
    if config.loss == "annotation":
        model_of_labels = annotation.table(data.train, prior, _interval_of_prior(config, run, data))
        say(annotation.line(model_of_labels))
    elif prior is not None and config.partial_loss_mode == "selective":
        for line in _of_prior(config, prior, trainer.criterion, data.train):
            say(line)
    _resume_if(saved, trainer, say)
    if config.resume:
        record()  # now: a run whose state is refused stays as it is
    if config.loss == "annotation" and distributed.is_main():
        annotation.write(run.annotation_model, model_of_labels)
    best = trainer.fit()
    if config.refit_head:
        prior = trainer.prior_of_estimate
        best, scores = probe_run.refit_head(config, data, _description(config), run, best, say, prior)
    else:
        scores = best_scores(config, data, run, trainer.best_scores)
    if scores is not None:
        estimate = _estimate(trainer, scores) if trainer.prior_of_estimate is not None else None
        summarise(
            config, data, full_labels, run, best, scores, time.perf_counter() - started, say, estimate, trainer.prior()
        )
    return best


def _with_choices(config, asked, train, say):
    """The settings with all that is left to the program (`csl.training.auto`), which is said; a resumed run has it already."""
    if asked.loss == "auto" and config.loss != "auto":
        say(f"loss auto: as the run was started, {auto.flags_of_loss(config)}")
    config, of_start = with_start(config)
    starts, lines = starting_weights(config) is not None, []
    if config.loss == "auto":
        config, lines = auto.chosen(config, train, probe_run.can_look(config, starts, len(train.classes)))
    if config.probe and exclusive_groups(train.groups) and not config.refit_head:  # which fits rows one by one
        config = dataclasses.replace(config, group_loss="softmax")
    config, of_settings = auto.settled(config, len(train), starts)
    for line in (of_start, *lines, of_settings):
        if line is not None:
            say(printable(line))
    check_used(config)
    return config


def _estimate(trainer, scores):
    """For `results.json`: the estimated mAP of the best weights with its interval, its prior, and what chose these weights."""
    targets = trainer.val.labels.select(scores.indices)
    numbers = estimated_mean_average_precision(scores.probabilities[0], targets, trainer.prior_of_estimate)
    source = trainer.prior_source.removeprefix(f"{trainer.run.path}{os.sep}")  # a run may move
    return numbers | {"prior": source, "best_by": trainer.criterion_of_best}


def _resumes(config, run, lock, say):
    """Whether to go on with the run in the folder: `--resume` or a restart by torchrun asks for it, and it has saved."""
    restart = not config.resume and distributed.restarts() > 0
    if not (config.resume or restart):
        return False
    saved = False
    if distributed.is_main() and not (restart and run.read_config().get("job") != distributed.job()):
        if run.path.exists():
            lock.enter_context(run.locked())
        for folder in (run, RunFolder(run.prior)):
            folder.recover()
            saved |= folder.last.exists()
    saved = distributed.broadcast_object(saved)
    if restart:
        say(
            f"restart {distributed.restarts()} by torchrun: "
            + ("resuming" if saved else "nothing saved, from the start")
        )
    elif not saved:
        say(f"--resume: no last.ckpt in {run.path} yet, starting from the beginning")
    return saved


def _begin(run, config, asked_to_resume, say):
    """Make room for a run from the beginning: an earlier run moves aside, a killed beginning of this run does not."""
    ours = not changed_settings(settings_of(run.read_config()), config.to_dict()) if run.config.exists() else False
    if asked_to_resume and ours and not run.best.exists():
        run.rewind_log(0)
    elif aside := run.archive_previous():
        say(f"the run that was in {run.path} is now in {aside}")


def _first_mask(run, before):
    """The partial labels that a resumed run began with, as it saved them; None where it hides none.

    Raises:
        InputError: they are not there, or not those that `config.json` names.
    """
    if not before.get("simulate_partial_type"):
        return None
    expected = before.get("fingerprints")
    expected = expected.get("mask") if isinstance(expected, dict) else None
    mask = LabelMatrix.load(run.partial_labels)
    if expected is not None and label_hash(mask) != expected:
        raise InputError(
            f"{run.partial_labels}: not the labels that the run was started with, expected those of {run.config}"
        )
    return mask


def _check(config):
    check_ranges(vars(config))
    check_image_size(network_name(config), config.image_size)
    autocast_dtype(config.amp, choose_device(config.device))
    TrainTransform(config.image_size, config.augment, config.background)
    if config.on_bad_image not in ("stop", "skip"):
        raise InputError(f"--on_bad_image {config.on_bad_image}: expected stop or skip")
    for name, known in (
        ("schedule", SCHEDULES),
        ("optimizer", OPTIMIZERS),
        ("group_loss", ("sigmoid", "softmax")),
        ("mix", ("none", "logic")),
    ):
        if (value := getattr(config, name)) not in known:
            raise InputError(f"--{name} {value}: unknown, expected one of {', '.join(known)}")
    if config.prior_loss not in ("bce", "focal"):
        raise InputError(f"--prior_loss {config.prior_loss}: expected bce or focal")
    if config.simulate_partial_type is not None:
        simulate(
            LabelMatrix.from_entries([], [], [], (1, 1)), config.simulate_partial_type, config.simulate_partial_param
        )
    if config.cache is not None:
        check_folder(config.cache)
    if config.select_by not in (None, *selection.CHOICES):
        raise InputError(f"--select_by {config.select_by}: expected {' or '.join(selection.CHOICES)}")
    if config.prior_estimator not in (None, "mean", "em", "probe"):
        raise InputError(f"--prior_estimator {config.prior_estimator}: expected mean, em or probe")
    if config.prior_path is None and "known" in settings_of_loss(config.loss):
        raise InputError(f"--loss {config.loss}: needs the class prior, expected --prior_path auto or FILE")
    if distributed.world_size() > 1 and "shape" in settings_of_loss(config.loss):
        raise InputError(f"--loss {config.loss}: remembers each image in one process, expected a run without torchrun")
    if config.loss != "auto":
        config.create_loss()
    check_used(config)


def _check_backends(model, config, say):
    """Say what InPlace-ABN runs on. Raise InputError if that, its synchronisation or the compiler is not available."""
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


def _prior_of(run, data):
    """[C] the prior that the second stage was started with: the first, which ended before it, stays closed."""
    prior = distributed.broadcast_object(
        checkpoint.read(run.last).extra.get("prior") if distributed.is_main() else None
    )
    if prior is None:  # older files do not hold it
        prior = read_prior(RunFolder(run.prior).train_prior, data.train.classes)
    return prior


def _interval_of_prior(config, run, data):
    """The ends [C] of the prior's interval, where its file has them."""
    path = run.prior_file(config)
    return read_prior_interval(path, data.train.classes) if path.exists() else None


def _fewest_images(config):
    """Of a batch of one process that the network can be trained on."""
    if config.sync_abn and distributed.world_size() > 1:  # its batch norm sees the images of all processes
        return 1
    return fewest_images(network_name(config), config.image_size, config.head)


def _check_batches(config, train):
    """Raise InputError if an epoch has no batches, or one that the network cannot be trained on."""
    rank, processes = distributed.rank(), distributed.world_size()
    batches = EpochBatches(len(train), config.batch_size, config.seed, config.grad_accum, rank, processes)
    if batches.smallest < _fewest_images(config):
        raise InputError(
            f"{train.source}: {len(train):,} images to train on give a batch of one image (--batch_size {config.batch_size}, "
            f"--grad_accum {config.grad_accum}, {processes} processes), of which the batch norm of {config.model_name} has one "
            f"value a channel at --image_size {config.image_size}; expected two images in each batch, or larger images"
        )


def _estimate_prior(config, data, full_labels, run, before, say):
    """The first stage: a temporary model in "ignore" mode, whose mean prediction over its last epoch is the prior."""
    folder = RunFolder(run.prior)
    stage = dataclasses.replace(
        config,
        **config.prior_loss_settings(),
        prior_path=None,
        mix="none",  # as rare as the classes are
        epochs=config.prior_epochs or config.epochs,
        prior_epochs=None,
        path_dest=str(run.prior),
        resume=config.resume and distributed.broadcast_object(folder.last.exists()),
    )
    if stage.resume:
        check_same_settings(run.config, before, config.to_dict())  # in the words of the flags: the stage has its own
    loss = "plain cross-entropy" if config.prior_loss == "bce" else "the loss of stage 2"
    say(f"stage 1 of 2: the class prior, from {stage.epochs} epochs of {loss} on annotated labels, in {folder.path}")
    if not stage.resume and distributed.is_main():
        folder.archive_previous()
        folder.write_config(config_of(stage, {}, {}, None))
        if config.val_split is not None:
            shutil.copyfile(run.split, folder.split)
    model, _ = create_network(stage, _class_set(data))
    # Weights change how often a class is seen, but the prior is how frequent it is: each image once.
    train = dataclasses.replace(data.train, weights=None)
    held_out = _held_out(len(train), config.seed) if config.prior_by_em else np.zeros(len(train), bool)
    if config.prior_by_em:
        say(
            f"stage 1 of 2: {held_out.sum():,} of {len(train):,} images are not trained on: the prior is estimated from them"
        )
    trainer = _create_trainer(model, stage, dataclasses.replace(data, train=train.select(~held_out)), folder, None, say)
    _resume_if(stage.resume, trainer, say)
    trainer.fit()
    if config.prior_by_em:
        _estimate_on(train.select(held_out), trainer, stage, folder)
    path = folder.estimated_prior if config.prior_by_em else folder.train_prior
    with distributed.rank0_first():  # which is the one that writes it
        prior = read_prior(path, data.train.classes)
    if distributed.is_main():
        from csl.plots import plot_run_prior

        plot_run_prior(folder, data.train, full_labels if data.train_truth is None else data.train_truth)
    what = f"{config.partial_loss_mode or 'negative'} mode" if config.loss == "csl" else f"--loss {config.loss}"
    say(f"stage 2 of 2: {what} with the prior of {path}")
    return prior


HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 20_000
"""Of the training images, how many stage 1 is not trained on where the prior is estimated from them."""


def _held_out(images, seed):
    """bool [N]: the images that stage 1 is not trained on."""
    chosen = np.zeros(images, dtype=bool)
    number = min(int(np.ceil(HELD_OUT_SHARE * images)), MOST_HELD_OUT)
    chosen[generator("held out", seed).permutation(images)[:number]] = True
    return chosen


def _estimate_on(images, trainer, stage, folder):
    """Write the prior by label-shift EM on images that stage 1 was not trained on."""
    loader = create_loader(
        ImageDataset(images, EvalTransform(stage.image_size, stage.background)),
        stage.batch_size,
        trainer.val_loader.num_workers,
        shared=True,
    )
    network = trainer.networks[trainer.counts.best.get("weights", "model")]
    scores = gather_scores(score([network], loader, trainer.device, trainer.amp_dtype, "prior"))
    if scores is not None:
        p = torch.from_numpy(scores.probabilities[0])  # [N, C]
        logits = torch.logit(p, eps=torch.finfo(p.dtype).eps)
        prior, *ends = estimate_prior_interval(logits, images.labels[scores.indices])
        write_prior(folder.estimated_prior, images.classes, prior, tuple(ends))


def _create_trainer(
    model: nn.Module, config: TrainConfig, data: Data, run: RunFolder, prior: Tensor | None, say: Say
) -> Trainer:
    device = choose_device(config.device)
    if distributed.rank() > 0:  # each process draws dropout of its own; rank 0 draws what it would on its own
        torch.manual_seed(int(np.random.SeedSequence((config.seed, distributed.rank())).generate_state(1)[0]))
    workers = default_workers() if config.workers is None else config.workers
    transform = TrainTransform(config.image_size, config.augment, config.background)
    val_transform = EvalTransform(config.image_size, config.background)
    train_cache = open_cache(config.cache, data.train.images, transform, say)
    val_cache = open_cache(config.cache, data.val.images, val_transform, say)
    train_set = ImageDataset(data.train, transform, seed=config.seed, cache=train_cache, mix=config.mix == "logic")
    val_set = ImageDataset(data.val, val_transform, cache=val_cache)
    trainer = Trainer(
        model,
        config.create_loss(
            prior, _shares_known(config, data), data.train.labels.shape, exclusive_of(config, data.train)
        ),
        create_loader(
            train_set,
            config.batch_size,
            workers,
            shuffle_seed=config.seed,
            grad_accum=config.grad_accum,
            shared=True,
            weights=data.train.weights,
        ),
        create_loader(val_set, config.batch_size, workers, shared=True),
        data.val,
        run,
        device,
        config,
        say,
        _description(config),
        _fewest_images(config),
        _prior_source(config, run),
    )
    say(
        report.start(
            config, device, trainer.amp_dtype, trainer.steps_per_epoch, trainer.global_batch, trainer.processes, workers
        )
    )
    if left_out := trainer.train_loader.batch_sampler.left_out:
        say(
            f"each epoch leaves out {left_out} of its {len(data.train):,} images, others each time: too few for a last step"
        )
    return trainer


def _description(config):
    """What a checkpoint says of its run beside its classes."""
    return {
        "model_name": network_name(config),
        "head": config.head,
        "config": config.to_dict(),
        checkpoint.WITH_NORM: True,
    }


def _class_set(data):
    return ClassSet(list(data.train.classes), list(data.train.keys), data.train.groups)


def _of_prior(config, prior, criterion, train):
    """The lines on what the prior leaves out; of the classes outside of exclusive groups alone, where there are any."""
    if not (groups := exclusive_of(config, train)):
        return report.prior(prior, criterion.options.prior_threshold, train.groups)
    rest = outside(groups, len(prior))
    return report.prior(prior[rest], criterion.other.options.prior_threshold) if rest else []


def _prior_source(config, run):
    by = "label-shift EM" if config.prior_by_em else "mean prediction"
    return f"{run.prior_file(config)}" + (f" ({by})" if config.prior_path == "auto" else "")


def _shares_known(config, data):
    """What a loss of the annotation model knows of the labels beside the prior; None for any other: counting takes its time."""
    return annotation.shares_known(data.train.labels) if "known" in settings_of_loss(config.loss) else None


def _resume_if(resume, trainer, say):
    run = trainer.run
    if resume:
        trainer.resume()
        say(f"resumed {run.last} at epoch {trainer.counts.epoch + 1}, step {trainer.counts.step}")
    elif distributed.is_main():
        run.rewind_log(0)  # a resumed first stage, after which the second was killed before it saved anything
