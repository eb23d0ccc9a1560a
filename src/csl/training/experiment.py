"""One run of `train.py` from its settings to its results: labels, mask, prior, network, training, summary."""

import dataclasses
import time
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from csl import checkpoint
from csl.errors import InputError, printable
from csl.labels import LabelMatrix
from csl.losses.groups import outside
from csl.machine import distributed
from csl.models.exclusive import exclusive_groups
from csl.ops import set_abn_backend
from csl.prior import prior_by_count, read_prior, read_prior_interval, write_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import changed_settings, config_of, deterministic, label_hash, settings_of
from csl.runs.split import write_split
from csl.training import annotation, auto, probe_run, report, selection
from csl.training.assembly import class_set_of, create_trainer, description_of, resume_if
from csl.training.checks import check_groups, check_used
from csl.training.data import (
    Say,
    check_fingerprints,
    check_known_labels,
    load_data,
    with_simulated_labels,
    without_bad_images,
)
from csl.training.preflight import check_backends, check_batches, check_settings
from csl.training.prior_stage import estimate_prior_of
from csl.training.probe import last_layer
from csl.training.start import create_network, exclusive_of, starting_weights, with_start
from csl.training.summary import best_scores, summarise


def train(config: TrainConfig, say: Say = tqdm.write) -> dict[str, Any]:
    """Run the training that `config` describes; returns the results of its best evaluation.

    The processes of a job (`csl.machine.distributed`) do this together: rank 0 alone prints and writes. Processes that
    torchrun has restarted resume what they had saved.

    With `prior_path` "auto" a run in "ignore" mode comes first, in `{path_dest}/prior`, and estimates the class prior.

    Raises:
        InputError: bad input of any kind, before anything is overwritten.
        csl.machine.signals.Interrupted: stopped by a signal, resumable.
    """
    with deterministic(config.deterministic), ExitStack() as lock:
        return _train(config, lock, distributed.on_rank0(say))


def _train(config, lock, say):
    check_settings(auto.with_defaults(config))
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
    classes = class_set_of(data)
    check_groups(config, data.train)
    model, line = create_network(config, classes)  # before anything moves: a wrong file loses nothing
    say(line)
    if config.probe or config.prior_estimator == "probe":
        probe_run.check(config, model, starting_weights(config) is not None)
    if config.refit_head:
        probe_run.check_refit(config, model)
    check_backends(model, config, say)
    prior = _given_prior(config, data.train)
    if config.partial_loss_mode == "selective" and config.prior_path is None and prior is None:
        say("selective mode without a prior (--prior_path auto estimates one): by likelihood alone")

    def record():
        if distributed.is_main():
            mask = label_hash(data.train.labels)
            run.write_config(config_of(config, before, {**fingerprints, "mask": mask}, left_out))
            if config.val_split is not None and not config.resume:
                write_split(run.split, parts)
            if config.labels_per_image is not None:
                write_prior(run.estimated_prior, data.train.classes, prior)
            if config.simulate_partial_type and not config.resume:
                data.train.labels.save(run.partial_labels)
            run.set_latest()

    if not config.probe:
        check_batches(config, data.train)
    if not config.resume and distributed.is_main():
        lock.enter_context(run.locked())
        _begin(run, config, asked_to_resume, say)
    saved = config.resume and distributed.broadcast_object(run.last.exists())
    found = None
    if config.prior_estimator == "probe" and not saved:
        choosing = asked.loss == "auto"
        found = probe_run.look(config, data, model, run, None if choosing else config, say, prior)
        if choosing:
            config = auto.of_probe(config, data.train, found)
            check_used(config)
            say(printable(auto.line_of(config, data.train)))
    if not config.resume:
        record()
    if config.probe:
        best, scores = probe_run.train_head(config, data, model, description_of(config), run, say, prior)
        summarise(config, data, full_labels, run, best, scores, time.perf_counter() - started, say)
        return best
    if config.prior_path == "auto":
        if saved:
            prior = _prior_of(run, data)
        elif found is not None and prior is None:
            prior = read_prior(run.prior_file(config), data.train.classes)
        elif found is None:
            prior = estimate_prior_of(config, data, full_labels, run, before, say)
        # The stage drew random numbers: begin again, so that the start is that of a run with a prior from a file.
        model, _ = create_network(config, classes)
        if found is not None:
            last_layer(model, config.model_name).load_state_dict(found.head.state_dict())
    trainer = create_trainer(model, config, data, run, prior, say)
    if config.loss == "annotation":
        model_of_labels = annotation.table(data.train, prior, _interval_of_prior(config, run, data))
        say(annotation.line(model_of_labels))
    elif prior is not None and config.partial_loss_mode == "selective":
        for line in _of_prior(config, prior, trainer.criterion, data.train):
            say(line)
    resume_if(saved, trainer, say)
    if config.resume:
        record()  # now: a run whose state is refused stays as it is
    if config.loss == "annotation" and distributed.is_main():
        annotation.write(run.annotation_model, model_of_labels)
    best = trainer.fit()
    if config.refit_head:
        prior = trainer.best.prior
        best, scores = probe_run.refit_head(config, data, description_of(config), run, best, say, prior)
    else:
        scores = best_scores(config, data, run, trainer.best.scores)
    if scores is not None:
        estimate = trainer.best.estimate(scores)
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
    if config.frozen_epochs and not starts:
        raise InputError(
            f"--frozen_epochs {config.frozen_epochs}: the network starts from scratch, and has learned nothing to be kept; "
            "expected weights to start from (--model_path), or 0"
        )
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


def _given_prior(config, train):
    """[C] the prior that needs no network: of a file, or by the labels an image has; None where there is another, or none."""
    if config.labels_per_image is not None:
        labels = train.as_collected
        return prior_by_count(labels.counts().positives, len(labels), config.labels_per_image)
    return read_prior(config.prior_path, train.classes) if config.prior_path not in (None, "auto") else None


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


def _of_prior(config, prior, criterion, train):
    """The lines on what the prior leaves out; of the classes outside of exclusive groups alone, where there are any."""
    if not (groups := exclusive_of(config, train)):
        return report.prior(prior, criterion.options.prior_threshold, train.groups)
    rest = outside(groups, len(prior))
    return report.prior(prior[rest], criterion.other.options.prior_threshold) if rest else []
