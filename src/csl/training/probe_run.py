"""A probe of the network that a run starts from: before training (`look`), or in place of it (`train_head`, `--probe`).

Features are kept in `features/` of the run. Before training the probe stands for the temporary model of stage 1: its tables
are in `prior/`, as those of that stage, and the network starts from its head (Kumar et al., arXiv 2202.10054: a head that is
trained first keeps the features from being bent towards a random one). `refit_head` fits the head of a trained network.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn

from csl import checkpoint
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader, default_workers
from csl.data.photo_cache import open_cache
from csl.data.transforms import EvalTransform
from csl.errors import InputError
from csl.labels import Annotations
from csl.losses.options import LossOptions
from csl.machine import distributed
from csl.machine.draws import generator
from csl.models import create_model, zoo
from csl.models.heads import last_layers, replace_layer
from csl.predict.scoring import Scores, autocast_dtype, choose_device
from csl.prior import write_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder
from csl.training import annotation, selection
from csl.training.data import Data, Say
from csl.training.optim import contiguous_state
from csl.training.probe import Probed, features_of, kept_features, last_layer, probe, write_candidates
from csl.training.refit import refit_rows
from csl.training.start import network_name
from csl.training.state import facts_of_classes

MOST_IMAGES, MOST_CLASSES = 20_000, 1_000
"""Before training: so many images are enough for a prior and a choice; for more classes the heads take too long."""


def obstacle(config: TrainConfig, starts: bool) -> str | None:
    """Why a probe cannot be made, None where it can: several processes, no weights to start from (`starts`)."""
    if distributed.world_size() > 1:
        return f"{distributed.world_size()} processes, expected one, as it takes minutes"
    if not starts:
        return (
            f"a network from scratch has no features to learn from; expected --model_path, such as "
            f"{zoo.pretrained_name(config.model_name) or 'FILE'} or a run of yours"
        )
    return None


def can_look(config: TrainConfig, starts: bool, num_classes: int) -> bool:
    """Whether a probe can be made before training, of a network that ends in one linear layer."""
    if config.head != "linear" or num_classes > MOST_CLASSES or obstacle(config, starts) is not None:
        return False
    with torch.device("meta"):
        model = create_model(network_name(config), num_classes, head=config.head, image_size=config.image_size)
    return len(last_layers(model)) == 1


def check(config: TrainConfig, model: nn.Module, starts: bool) -> None:
    """Raise InputError where a probe that is asked for cannot be made: an `obstacle`, or another head than a linear one."""
    flag = "--probe" if config.probe else "--prior_estimator probe"
    if (why := obstacle(config, starts)) is not None:
        raise InputError(f"{flag}: {why}")
    last_layer(model, config.model_name, flag)


def look(
    config: TrainConfig,
    data: Data,
    model: nn.Module,
    run: RunFolder,
    given: LossOptions | None,
    say: Say,
    prior: torch.Tensor | None = None,
) -> Probed:
    """The probe before training; its prior and candidates are written into `prior/` of the run.

    Args:
        config, data, run: of the run.
        model: the network with its starting weights.
        given: the loss of the run; None to choose one, with the exponent 0 of known negatives. The exponent that heads want is
            not the one that networks do.
        say: prints one line.
        prior: [C] the class prior where a person has said it, None to estimate it.
    """
    layer = last_layer(model, config.model_name)
    model.to(choose_device(config.device), memory_format=torch.channels_last)
    train = data.train
    if len(train) > MOST_IMAGES:
        say(f"probe: {MOST_IMAGES:,} of {len(train):,} training images")
        train = train.select(np.sort(generator("held out", config.seed).permutation(len(train))[:MOST_IMAGES]))
    x, rows = _features(config, train, model, layer, run, "train", say)
    train = train.select(rows)
    found = probe(
        x, train.labels, config.seed, say, layer.exclusive, (0.0,), given, collected=train.collected, prior=prior
    )
    folder = RunFolder(run.prior)
    folder.path.mkdir(parents=True, exist_ok=True)
    _write(found, found.predicted if found.published is None else found.published, folder, data.train)
    return found


def check_refit(config: TrainConfig, model: nn.Module) -> None:
    """Raise InputError where no row can be refitted: several processes, exclusive groups, another head."""
    if distributed.world_size() > 1:
        raise InputError(f"--refit_head: {distributed.world_size()} processes, expected one")
    if config.group_loss == "softmax":
        raise InputError("--refit_head: --group_loss softmax has no class of its own, expected sigmoid")
    last_layer(model, config.model_name, "--refit_head")


def train_head(
    config: TrainConfig,
    data: Data,
    model: nn.Module,
    description: dict[str, Any],
    run: RunFolder,
    say: Say,
    prior: torch.Tensor | None = None,
) -> tuple[dict[str, Any], Scores]:
    """Make the features, choose and train the head, write `best.ckpt` and its tables.

    Args:
        config, data, run: of the run.
        model: the network with its starting weights.
        description: what the checkpoint says beside its classes.
        say: prints one line.
        prior: as `look` takes it.

    Returns:
        The results of the network on the validation images, and its scores of them.
    """
    layer = last_layer(model, config.model_name)
    model.to(choose_device(config.device), memory_format=torch.channels_last)
    x, rows = _features(config, data.train, model, layer, run, "train", say)
    train = data.train.select(rows)
    found = probe(
        x, train.labels, config.seed, say, layer.exclusive, hidden=True, collected=train.collected, prior=prior
    )
    x_val, rows_val = _features(config, data.val, model, layer, run, "val", say)
    replace_layer(model.cpu(), layer, found.head)
    if config.refit_head:
        (last,) = last_layers(found.head)
        before = nn.Sequential(*found.head.children())[:-1].eval()  # of a linear head nothing
        _refit(last, (before(x), train.labels), (before(x_val), data.val.labels.select(rows_val)), say)
    numbers, scores = _measured(found.head, x_val, rows_val, data)
    best = {"epoch": 0, "step": 0, "weights": "model", **numbers}
    _write_best(run, model, data, description | {"head": found.best.head}, best)
    _write(found, found.predicted, run, data.train)
    write_prior(run.val_prior, data.val.classes, torch.from_numpy(scores.probabilities[0].mean(0)))
    run.append_log({"epoch": 0, "step": 0, **{f"{name}_model": value for name, value in numbers.items()}})
    return best, scores


def refit_head(
    config: TrainConfig,
    data: Data,
    description: dict[str, Any],
    run: RunFolder,
    best: dict[str, Any],
    say: Say,
    prior: torch.Tensor | None = None,
) -> tuple[dict[str, Any], Scores]:
    """Fit each class's row of the last layer of `best.ckpt` to the known labels of its class, and write the file anew.

    Args:
        config, data, run: of the run, which has been trained.
        description: what the checkpoint says beside its classes.
        best: the results of the best evaluation.
        say: prints one line.
        prior: [C] of the estimated mAP, None where there is none.

    Returns:
        The results of the network on the validation images with these rows, and its scores of them.
    """
    model, kept = checkpoint.load_model(run.best)
    layer = last_layer(model, config.model_name, "--refit_head")
    model.to(choose_device(config.device), memory_format=torch.channels_last)
    x_val, rows_val = _features(config, data.val, model, layer, run, "val", say)
    labels_val, before = data.val.labels.select(rows_val), kept.extra["best"]
    if not before.get("refitted"):  # by a run that ended after that
        x, rows = _features(config, data.train, model, layer, run, "train", say)
        _refit(layer.cpu(), (x, data.train.labels.select(rows)), (x_val, labels_val), say)
    numbers, scores = _measured(layer.cpu(), x_val, rows_val, data, prior)
    best = best | numbers | {"refitted": True}
    _write_best(run, model, data, description, best)
    return best, scores


def _measured(layer, x, rows, data, prior=None):
    """The results of a last layer on features of the validation images of these rows, and its scores of them."""
    with torch.inference_mode():
        probabilities = torch.sigmoid(layer(x)).numpy()[None]  # [1, N, C]
    by = selection.criterion(data.val.labels)
    numbers = selection.validation_numbers(probabilities[0], data.val.labels.select(rows), by, prior)
    return numbers, Scores(probabilities, rows, [])


def _write_best(run, model, data, description, best):
    facts = facts_of_classes(data.val) | description
    checkpoint.write(run.best, {"model": contiguous_state(model), **facts, "best": best})


def _refit(layer, train, val, say):
    """Refit the rows of a layer, and say what that changed."""
    x, labels = train
    x_val, labels_val = val
    before, after = refit_rows(
        layer, x, torch.from_numpy(labels.to_dense()), x_val, torch.from_numpy(labels_val.to_dense())
    )
    say(
        f"--refit_head: {(after > before).sum()} of {len(after)} classes have other rows; mAP on annotated validation entries, "
        f"by which they were chosen, {100 * np.nanmean(before):.2f} before and {100 * np.nanmean(after):.2f} now"
    )


def _write(found, mean, folder, train):
    """The candidates, the priors, and what they say of annotation."""
    write_candidates(folder.probe, found.candidates)
    write_prior(folder.train_prior, train.classes, mean)
    if found.estimate is not None:
        prior, *ends = found.estimate
        write_prior(folder.estimated_prior, train.classes, prior, tuple(ends))
        annotation.write(folder.annotation_model, annotation.table(train, prior, tuple(ends)))


def _features(config, annotations: Annotations, model, layer, run, split, say):
    device = choose_device(config.device)
    transform = EvalTransform(config.image_size, config.background)
    cache = open_cache(config.cache, annotations.images, transform, say)
    workers = default_workers() if config.workers is None else config.workers
    loader = create_loader(ImageDataset(annotations, transform, cache=cache), config.batch_size, workers)
    dtype = autocast_dtype(config.amp, device)
    images = hashlib.sha256("\0".join(annotations.images).encode("utf-8", "surrogateescape")).hexdigest()
    about = f"{images} {config.image_size} {config.background} {dtype} {annotations.roots}"

    def make() -> tuple[torch.Tensor, np.ndarray]:
        return features_of(model, layer, loader, device, dtype, split)

    path = run.features / f"{split}.npz"
    (x, rows), kept = kept_features(path, _body(model, layer), about, make)
    say(f"{split}: {x.shape[1]:,} features of {len(x):,} images, {'found' if kept else 'kept'} in {path}")
    return x, rows


def _body(model, layer):
    """{name: tensor} of the network but for its last layer, which has no part in the features."""
    own = {id(value) for value in layer.state_dict(keep_vars=True).values()}
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if id(value) not in own}
