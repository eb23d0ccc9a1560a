"""A trainer and what belongs to it, put together from the settings of a run."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.labels.class_set import ClassSet
from csl.losses.options import settings_of as settings_of_loss
from csl.machine import distributed
from csl.predict.scoring import choose_device
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training import annotation, report
from csl.training.data import Data, Say
from csl.training.preflight import fewest_images_of
from csl.training.start import exclusive_of, network_name
from csl.training.trainer import Trainer


def create_trainer(
    model: nn.Module, config: TrainConfig, data: Data, run: RunFolder, prior: Tensor | None, say: Say
) -> Trainer:
    """The trainer of a run: loss, loaders of both splits, and the network; a line says where and how it trains.

    Args:
        model: the network with its starting weights.
        config, data, run: of the run.
        prior: [C] of the loss, None where it has none.
        say: prints one line.
    """
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
        description_of(config),
        fewest_images_of(config),
        _prior_source(config, run),
    )
    say(
        report.start(
            config, device, trainer.amp_dtype, trainer.steps_per_epoch, trainer.global_batch, trainer.processes, workers,
            trainer.why_precision,
        )
    )  # fmt: skip
    if left_out := trainer.train_loader.batch_sampler.left_out:
        say(
            f"each epoch leaves out {left_out} of its {len(data.train):,} images, others each time: too few for a last step"
        )
    return trainer


def description_of(config: TrainConfig) -> dict[str, Any]:
    """What a checkpoint says of its run beside its classes."""
    return {
        "model_name": network_name(config),
        "head": config.head,
        "config": config.to_dict(),
        checkpoint.WITH_NORM: True,
    }


def class_set_of(data: Data) -> ClassSet:
    """The classes of the training split."""
    return ClassSet(list(data.train.classes), list(data.train.keys), data.train.groups)


def _prior_source(config, run):
    if config.labels_per_image is not None:
        return f"{run.prior_file(config)} (--labels_per_image {config.labels_per_image:g})"
    by = "label-shift EM" if config.prior_by_em else "mean prediction"
    return f"{run.prior_file(config)}" + (f" ({by})" if config.prior_path == "auto" else "")


def _shares_known(config, data):
    """What a loss of the annotation model knows of the labels beside the prior; None for any other: counting takes its time."""
    return annotation.shares_known(data.train.as_collected) if "known" in settings_of_loss(config.loss) else None


def resume_if(resume: bool, trainer: Trainer, say: Say) -> None:
    """Go on from `last.ckpt`, which is said, or begin with an empty log."""
    run = trainer.run
    if resume:
        trainer.resume()
        say(f"resumed {run.last} at epoch {trainer.counts.epoch + 1}, step {trainer.counts.step}")
    elif distributed.is_main():
        run.rewind_log(0)  # a resumed first stage, after which the second was killed before it saved anything
