"""One run of `train.py` from its settings to its results: labels, mask, prior, network, training, summary."""

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from csl import checkpoint, distributed
from csl.compiling import check_compiler
from csl.config import TrainConfig
from csl.data.checking import find_bad_images
from csl.data.dataset import ImageDataset
from csl.data.garments import make_garments
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import InputError, printable
from csl.files import replacing
from csl.labels import Annotations, LabelMatrix, simulate
from csl.losses import create_loss
from csl.metrics import mean_average_precision
from csl.models import check_image_size, create_model
from csl.models.abn import describe_abn, synchronise_abn
from csl.ops import set_abn_backend
from csl.optim import SCHEDULES
from csl.predict import Predictor
from csl.prior import read_prior
from csl.recipes import DEMO_DATA
from csl.reproduction import (
    changed_settings,
    command,
    deterministic,
    differences,
    fingerprint,
    label_hash,
    revision,
    settings_of,
    versions,
)
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

    The processes of a job (`csl.distributed`) do this together: rank 0 alone prints and writes. Those that torchrun has
    started anew resume what they had saved.

    With `prior_path` "auto" a run in "ignore" mode comes first, in `{path_dest}/prior`, and estimates the class prior.

    Raises:
        InputError: bad input of any kind, before anything is overwritten.
        csl.trainer.Interrupted: stopped by a signal, resumable.
    """
    with deterministic() if config.deterministic else nullcontext():
        return _train(config, distributed.by_main(say))


def _train(config, say):
    _check(config)
    started = time.perf_counter()
    run = RunFolder(config.path_dest)
    config = _resumed_after_restart(config, run, say)
    asked_to_resume = config.resume
    config = _if_resumable(config, run, say)
    kept = distributed.object_from_main(run.read_config()) if config.resume else {}
    with distributed.main_first():  # it may have to draw the demo set, and writes the caches
        data = load_data(config, say)
    if config.num_classes is not None and config.num_classes != len(data.train.classes):
        raise InputError(
            f"--num_classes {config.num_classes}: {data.train.source} has {len(data.train.classes)} classes"
        )
    prints = _fingerprints(data, kept.get("fingerprints"), run, say)
    data, left_out = _without_bad_images(data, config, say, kept.get("left_out"))
    full_labels = data.train.labels
    data = _with_simulated_labels(data, config, say)
    model, line = _create_network(config, len(data.train.classes))  # before anything moves: a wrong file loses nothing
    say(line)
    _check_backends(model, config, say)
    prior = read_prior(config.prior_path, data.train.classes) if config.prior_path not in (None, "auto") else None

    if distributed.is_main():
        if not config.resume:
            _begin(run, config, asked_to_resume, say)
        run.make_last()
        run.write_config(
            {
                **config.to_dict(),
                "versions": versions(),
                "revision": revision(),
                "fingerprints": {**prints, "mask": label_hash(data.train.labels)},
                "left_out": left_out,
                "job": distributed.job(),
            }
        )
        if config.simulate_partial_type:
            data.train.labels.save(run.partial_labels)

    if config.prior_path == "auto":
        prior = _estimate_prior(config, data, full_labels, run, say)
        # The stage drew random numbers: begin again, so that the start is that of a run with a prior from a file.
        model, _ = _create_network(config, len(data.train.classes))
    resumed = dataclasses.replace(config, resume=config.resume and distributed.object_from_main(run.last.exists()))
    best = _fit(model, resumed, data, run, prior, say)
    if distributed.is_main():
        _summarise(config, data, full_labels, run, best, time.perf_counter() - started, say)
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


def _fingerprints(data, before, run, say):
    """What tells the data of a run from other data; those of a resumed run have to be the same, but for what is in the images.

    Raises:
        InputError: they are not.
    """
    prints = {"train": fingerprint(data.train), "val": fingerprint(data.val)}
    for name, part in (("train", data.train), ("val", data.val)):
        then = before.get(name) if isinstance(before, dict) else None
        changed = differences(then, prints[name]) if isinstance(then, dict) else []
        if changed == ["the sizes of image files differ"]:  # one that broke is no reason to lose a run
            say(f"{name}: image files have other sizes than when the run was started; names and labels are the same")
        elif changed:
            raise InputError(
                f"{part.source}: not the {name} data that the run in {run.path} was started with: {', '.join(changed)}; "
                "expected the same to resume it"
            )
    return prints


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
    if train.weights is not None:
        say(f"train: each epoch draws {len(train):,} images by the weight column of {train.source}, with replacement")
    return Data(train, val, read_truth(source, "val", settings, val))


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


def _without_bad_images(data, config, say, before=None):
    """Look at every file before the first step: nobody should lose an epoch to one broken photo.

    A resumed run leaves out the rows that it left out `before`, whatever has become of them, and no others: the order of
    its samples stays what it was. Returns the data and these rows, {split: list}.
    """
    parts, left_out = [], {}
    for name, part in (("train", data.train), ("val", data.val)):
        bad = _bad_images(part)
        for image in bad[:10]:
            say(f"bad image ({name}): {image.reason}")
        if len(bad) > 10:
            say(f"... and {len(bad) - 10:,} more")
        if bad and config.on_bad_image == "stop":
            raise InputError(
                f"{len(bad):,} of the {len(part):,} {name} images cannot be read, the first is {bad[0].reason}; "
                "expected all of them, or --on_bad_image skip to train without these"
            )
        left_out[name] = [image.index for image in bad] if before is None else _rows_of(before, name, part)
        if left_out[name]:
            good = np.setdiff1d(np.arange(len(part)), left_out[name])
            if not len(good):
                raise InputError(f"{part.source}: none of the {len(part):,} {name} images can be read")
            say(f"{name}: {len(left_out[name]):,} bad images left out, {len(good):,} left")
            part = part.select(good)
            if name == "val" and data.truth is not None:
                data = dataclasses.replace(data, truth=data.truth.select(good))
        parts.append(part)
    return Data(*parts, truth=data.truth), left_out


def _rows_of(before, name, part):
    """Rows that `config.json` says were left out."""
    rows = before.get(name) if isinstance(before, dict) else None
    if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < len(part) for row in rows):
        raise InputError(f"config.json: left_out: {name}: found {str(rows)[:80]}, expected rows of {part.source}")
    return rows


def _bad_images(part):
    """The unreadable ones of all images, of which each process looks at its share."""
    images = part.images
    share = range(distributed.rank(), len(images), distributed.world_size())
    bad = find_bad_images(
        images if len(share) == len(images) else [images[i] for i in share], distributed.is_main(), roots=part.roots
    )
    bad = [dataclasses.replace(image, index=share[image.index]) for image in bad]
    bad = [image for part in distributed.gather_objects(bad) for image in part]
    return sorted(bad, key=lambda image: image.index)


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
        folder.write_config({**stage.to_dict(), "versions": versions(), "revision": revision()})
    model, _ = _create_network(stage, len(data.train.classes))
    # Weights change how often a class is seen, and the prior is how often it is there: each image once.
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, weights=None))
    _fit(model, stage, data, folder, None, say)
    with distributed.main_first():  # which is the one that writes it
        prior = read_prior(folder.train_prior, data.train.classes)
    if distributed.is_main():
        from csl.plots import plot_run_prior

        plot_run_prior(folder, data.train, _training_truth(config, data.train, full_labels))
    say(f"stage 2 of 2: {config.partial_loss_mode or 'negative'} mode with the prior of {folder.train_prior}")
    return prior


def _fit(model: nn.Module, config, data, run, prior, say):
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
    return trainer.fit()


def _summarise(config, data, full_labels, run, best, seconds, say):
    """Where the results are, what they are, and what to run next."""
    results = {"best": best, "seconds": round(seconds, 1)}
    predictor = Predictor.load(run.best, device=config.device, amp=config.amp)
    if data.truth is not None:
        results["mAP_all_labels"] = _map_with_truth(predictor, config, data)
    with replacing(run.path / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2))
    from csl.plots import plot_training  # matplotlib is imported when a picture is wanted

    truth = _training_truth(config, data.train, full_labels)
    full = full_labels if config.simulate_partial_type else None
    plots = plot_training(run, data.train, full, truth, _sheet(predictor, config, data.val))
    say("")
    weights = "EMA weights" if best["weights"] == "ema" else "regular weights"
    say(f"mAP on annotated entries {best['mAP']:.2f} (epoch {best['epoch']}, {weights})")
    say(f"mAP with un-annotated as negative {best['mAP_negative']:.2f}")
    if "mAP_all_labels" in results:
        say(f"mAP with all labels known {results['mAP_all_labels']:.2f}")
    say(f"took {seconds:.0f} s; results in {run.path}: best.ckpt, log.jsonl, {', '.join(p.name for p in plots)}")
    say("next: python validate.py    python infer.py    tensorboard --logdir " + str(run.path))


def _training_truth(config, train, full_labels):
    """All labels of the training images: those of a `truth.csv`, or those before the simulation."""
    try:
        known = read_truth(Path(config.data or DEMO_DATA), "train", config.to_dict(), train)
    except InputError:  # a truth of the validation split alone, which was read before; nothing but a picture lacks it
        return full_labels
    return full_labels if known is None else known


def _sheet(predictor, config, val):
    """Some validation images, the same every time, with what the best weights say of them."""
    from csl.plots import choose_images, sheet_of

    rows = choose_images(len(val))
    scores = predictor.score([val.images[row] for row in rows], config.batch_size, workers=0, roots=val.roots)
    return sheet_of(val, rows[scores.indices], scores.probabilities[0])


def _map_with_truth(predictor, config, data):
    scores = predictor.score(data.val.images, config.batch_size, workers=0, roots=data.val.roots)
    return mean_average_precision(scores.probabilities[0], data.truth[scores.indices])


class Reproduction(NamedTuple):
    """How to make a run again: the command, for a shell, and what is different now, a line each."""

    command: str
    notes: list[str]


def reproduce(path: str | Path, look_at_data: bool = True) -> Reproduction:
    """The command that made the run in a folder, and what has changed since: versions, revision, data, mask.

    Args:
        path: the folder of a run.
        look_at_data: whether its annotations are read, to compare fingerprints.

    Raises:
        InputError: no such run, or a `config.json` that is not one.
    """
    run = RunFolder(path)
    kept = run.read_config()
    settings = settings_of(kept)
    if not settings.get("data") or "epochs" not in settings:
        raise InputError(f"{run.config}: not there or without settings, expected the folder of a run of train.py")
    line = printable(command(settings))
    notes, then = [], kept.get("versions")
    for name, found in versions().items():
        was = then.get(name) if isinstance(then, dict) else None
        if was != found:
            notes.append(f"{name} {was or 'unknown'} then, {found} now")
    if kept.get("revision") != (now := revision()):
        notes.append(f"code of revision {kept.get('revision') or 'unknown'} then, {now or 'unknown'} now")
    elif now and now.endswith("-dirty"):
        notes.append(f"code of revision {now}: changes that no commit holds, then and now")
    if look_at_data:
        notes += _changes_of_data(settings, kept)
    return Reproduction(line, [printable(note) for note in notes])


def _changes_of_data(settings, kept):
    prints = kept.get("fingerprints") if isinstance(kept.get("fingerprints"), dict) else {}
    try:
        config = TrainConfig(**settings)
        data = load_data(config, lambda _: None)
        now = {"train": fingerprint(data.train), "val": fingerprint(data.val)}
        notes = []
        for name in now:
            then = prints.get(name)
            changed = differences(then, now[name]) if isinstance(then, dict) else ["unknown then"]
            notes += [f"{name} data: {what}" for what in changed]
        if not notes and config.simulate_partial_type:
            data, _ = _without_bad_images(data, config, lambda _: None, kept.get("left_out"))
            mask = label_hash(_with_simulated_labels(data, config, lambda _: None).train.labels)
            notes += [] if mask == prints.get("mask") else ["the mask of partial labels differs"]
        return notes
    except (InputError, TypeError) as error:
        return [f"the data cannot be compared: {error}"]
