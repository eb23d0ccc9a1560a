"""One run of `train.py` from its settings to its results: labels, mask, prior, network, training, summary."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from csl.errors import InputError, printable
from csl.labels import Annotations, LabelMatrix
from csl.losses.groups import outside
from csl.machine import distributed
from csl.ops import set_abn_backend
from csl.prior import prior_by_count, read_prior, read_prior_interval, write_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import config_of, deterministic, label_hash
from csl.runs.split import write_split
from csl.training import annotation, auto, probe_run, report, resuming, selection
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
from csl.training.start import create_network, exclusive_of, starting_weights
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


@dataclass(frozen=True)
class _Record:
    """What a run keeps of its data beside the data."""

    before: dict[str, Any]  # `config.json` of its start, {} for a new run
    parts: dict[str, Annotations]  # {split: annotations}, as they were read
    fingerprints: dict[str, Any]  # as `config.json` holds them, as what follows
    left_out: dict[str, list[int]]
    full_labels: LabelMatrix  # of the training images, before any were hidden

    def write(self, config, train, run, prior):
        """Write `config.json`, and of a new run which images and labels it has, where these are its own; on rank 0."""
        if not distributed.is_main():
            return
        fingerprints = {**self.fingerprints, "mask": label_hash(train.labels)}
        run.write_config(config_of(config, self.before, fingerprints, self.left_out))
        if config.val_split is not None and not config.resume:
            write_split(run.split, self.parts)
        if config.labels_per_image is not None:
            write_prior(run.estimated_prior, train.classes, prior)
        if config.simulate_partial_type and not config.resume:
            train.labels.save(run.partial_labels)
        run.set_latest()


def _train(asked, lock, say):
    """Settings, data, choices, network, prior, training, summary."""
    started = time.perf_counter()
    check_settings(auto.with_defaults(asked))
    set_abn_backend(asked.abn)
    run = RunFolder(asked.path_dest)
    config, before = resuming.as_started(asked, run, lock, say)
    data, record = _data(config, run, before, say)
    config = auto.with_choices(config, asked, data.train, say)
    model, prior = _network(config, data, say)  # before anything moves: a wrong file loses nothing
    saved = resuming.enter(config, asked, run, lock, say)  # a state of the run itself, beside any of stage 1
    found = estimate = None
    if config.prior_estimator == "probe" and not saved:
        config, found = _with_probe(config, asked, data, model, run, prior, say)
    if not config.resume:
        record.write(config, data.train, run, prior)
    if config.probe:
        best, scores = probe_run.train_head(config, data, model, description_of(config), run, say, prior)
    else:
        if config.prior_path == "auto":
            model, prior = _after_stage_1(config, data, record, run, prior, saved, found, say)
        trainer = create_trainer(model, config, data, run, prior, say)
        best, scores = _fit(trainer, config, data, record, prior, saved, say)
        estimate = None if scores is None else trainer.best.estimate(scores)
        prior = trainer.prior()
    if scores is not None:  # on rank 0
        seconds = time.perf_counter() - started
        summarise(config, data, record.full_labels, run, best, scores, seconds, say, estimate, prior)
    return best


def _data(config, run, before, say):
    """The data of both splits as the run learns from them, and the record of them."""
    with distributed.rank0_first():  # rank 0 may have to draw the demo set, and writes the caches
        data = load_data(config, say, run.split if config.resume else None)
    parts, classes = {"train": data.train, "val": data.val}, len(data.train.classes)
    if config.num_classes not in (None, classes):
        raise InputError(f"--num_classes {config.num_classes}: {data.train.source} has {classes} classes")
    fingerprints = check_fingerprints(data, before.get("fingerprints"), run.path, say)
    data, left_out = without_bad_images(data, config, say, before.get("left_out"))
    record = _Record(before, parts, fingerprints, left_out, data.train.labels)
    return with_simulated_labels(data, config, say, resuming.first_mask(run, before)), record


def _network(config, data, say):
    """The network with its starting weights, and the class prior [C] of a file, None without; once they fit the labels.

    Raises:
        InputError: labels, network, prior, batches or this machine do not go with the settings.
    """
    check_known_labels(data, config, say)
    if (by := selection.criterion(data.val.labels)) != "mAP" and config.selects_by == "annotated":
        say(f"val: the best evaluation is {selection.WORDS[by]}")
    check_groups(config, data.train)
    model, line = create_network(config, class_set_of(data))
    say(line)
    if config.probe or config.prior_estimator == "probe":
        probe_run.check(config, model, starting_weights(config) is not None)
    if config.refit_head:
        probe_run.check_refit(config, model)
    check_backends(model, config, say)
    prior = _given_prior(config, data.train)
    if config.partial_loss_mode == "selective" and config.prior_path is None and prior is None:
        say("selective mode without a prior (--prior_path auto estimates one): by likelihood alone")
    if not config.probe:
        check_batches(config, data.train)
    return model, prior


def _with_probe(config, asked, data, model, run, prior, say):
    """The settings, with the loss that a probe of the network finds the best where it is left to it; and what it has found."""
    choosing = asked.loss == "auto"
    found = probe_run.look(config, data, model, run, None if choosing else config, say, prior)
    if choosing:
        config = auto.of_probe(config, data.train, found)
        check_used(config)
        say(printable(auto.line_of(config, data.train)))
    return config, found


def _given_prior(config, train):
    """[C] the prior that needs no network: of a file, or by the labels an image has; None where there is another, or none."""
    if config.labels_per_image is not None:
        labels = train.as_collected
        return prior_by_count(labels.counts().positives, len(labels), config.labels_per_image)
    return read_prior(config.prior_path, train.classes) if config.prior_path not in (None, "auto") else None


def _after_stage_1(config, data, record, run, prior, saved, found, say):
    """The network of stage 2 with its starting weights, and the class prior [C] of stage 1 or of the probe in its place."""
    if saved:
        prior = resuming.first_prior(run, data.train)
    elif found is None:
        prior = estimate_prior_of(config, data, record.full_labels, run, record.before, say)
    elif prior is None:
        prior = read_prior(run.prior_file(config), data.train.classes)
    # The stage drew random numbers: begin again, so that the start is that of a run with a prior from a file.
    model, _ = create_network(config, class_set_of(data))
    if found is not None:
        last_layer(model, config.model_name).load_state_dict(found.head.state_dict())
    return model, prior


def _fit(trainer, config, data, record, prior, saved, say):
    """Train, or go on with it; the results of the best evaluation, and on rank 0 the scores behind them."""
    run = trainer.run
    if config.loss == "annotation":
        path = run.prior_file(config)
        interval = read_prior_interval(path, data.train.classes) if path.exists() else None
        of_annotation = annotation.table(data.train, prior, interval)
        say(annotation.line(of_annotation))
    elif prior is not None and config.partial_loss_mode == "selective":
        for line in _of_prior(config, prior, trainer.criterion, data.train):
            say(line)
    resume_if(saved, trainer, say)
    if config.resume:
        record.write(config, data.train, run, prior)  # now: a run whose state is refused stays as it is
    if config.loss == "annotation" and distributed.is_main():
        annotation.write(run.annotation_model, of_annotation)
    best = trainer.fit()
    if config.refit_head:
        return probe_run.refit_head(config, data, description_of(config), run, best, say, trainer.best.prior)
    return best, best_scores(config, data, run, trainer.best.scores)


def _of_prior(config, prior, criterion, train):
    """The lines on what the prior leaves out; of the classes outside of exclusive groups alone, where there are any."""
    if not (groups := exclusive_of(config, train)):
        return report.prior(prior, criterion.options.prior_threshold, train.groups)
    rest = outside(groups, len(prior))
    return report.prior(prior[rest], criterion.other.options.prior_threshold) if rest else []
