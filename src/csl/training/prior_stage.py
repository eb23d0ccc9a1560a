"""Stage 1 of a run: a temporary model, trained on annotated labels, that estimates the class prior (arXiv 2110.10955, 3.3)."""

import dataclasses
import shutil

import numpy as np
import torch
from torch import Tensor

from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.labels import LabelMatrix
from csl.machine import distributed
from csl.machine.draws import generator
from csl.predict.scoring import gather_scores, score
from csl.prior import estimate_prior_interval, read_prior, write_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.runs.record import check_same_settings, config_of
from csl.training.assembly import class_set_of, create_trainer, resume_if
from csl.training.data import Data, Say
from csl.training.start import create_network

HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 20_000
"""Of the training images, how many stage 1 is not trained on where the prior is estimated from them."""


def estimate_prior_of(
    config: TrainConfig, data: Data, full_labels: LabelMatrix, run: RunFolder, before: dict, say: Say
) -> Tensor:
    """The first stage: a temporary model in "ignore" mode, whose mean prediction over its last epoch is the prior [C].

    Args:
        config, data, run: of the run.
        full_labels: the training labels before some were left out.
        before: the settings that a resumed run was started with, {} for a new one.
        say: prints one line.
    """
    folder = RunFolder(run.prior)
    stage = dataclasses.replace(
        config,
        **config.prior_loss_settings(),
        prior_path=None,
        mix="none",  # as rare as the classes are
        epochs=config.prior_epochs or config.epochs,
        prior_epochs=None,
        shallow_epochs=0,  # a few epochs of the whole network
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
    model, _ = create_network(stage, class_set_of(data))
    # Weights change how often a class is seen, but the prior is how frequent it is: each image once.
    train = dataclasses.replace(data.train, weights=None)
    held_out = _held_out(len(train), config.seed) if config.prior_by_em else np.zeros(len(train), bool)
    if config.prior_by_em:
        say(
            f"stage 1 of 2: {held_out.sum():,} of {len(train):,} images are not trained on: the prior is estimated from them"
        )
    trainer = create_trainer(model, stage, dataclasses.replace(data, train=train.select(~held_out)), folder, None, say)
    resume_if(stage.resume, trainer, say)
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
    network = trainer.networks[trainer.best.results.get("weights", "model")]
    scores = gather_scores(score([network], loader, trainer.device, trainer.amp_dtype, "prior"))
    if scores is not None:
        p = torch.from_numpy(scores.probabilities[0])  # [N, C]
        logits = torch.logit(p, eps=torch.finfo(p.dtype).eps)
        prior, *ends = estimate_prior_interval(logits, images.as_collected[scores.indices])
        write_prior(folder.estimated_prior, images.classes, prior, tuple(ends))
