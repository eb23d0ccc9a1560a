"""The network of a run, and the weights that it starts from."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from csl import checkpoint
from csl.errors import InputError
from csl.labels import Annotations
from csl.labels.class_set import ClassSet
from csl.machine import distributed
from csl.models import CONFIGS, architecture, create_model, name_with_tag, zoo
from csl.models.abn import keep_inputs, synchronise_abn
from csl.models.exclusive import exclusive_groups, make_exclusive
from csl.predict.scoring import choose_device
from csl.runs.config import TrainConfig
from csl.training import report
from csl.training.memory import keeps_inputs

DEFAULT_BACKBONE = "./tresnet_m.pth"
"""The starting weights if no others are named and this file exists: the original's default."""


def create_network(config: TrainConfig, classes: ClassSet) -> tuple[nn.Module, str]:
    """The network of these classes with its starting weights, and a line that says where they are from."""
    num_classes = len(classes.classes)
    torch.manual_seed(config.seed)
    model = create_model(
        network_name(config), num_classes, head=config.head, dropout=config.dropout, image_size=config.image_size
    )
    make_exclusive(model, exclusive_of(config, classes))
    synchronised = synchronises(config)
    if not config.probe:  # which trains a head alone
        device, size = choose_device(config.device), config.image_size
        keep_inputs(model, keeps_inputs(config.memory, device, model, size, config.batch_size, synchronised))
    synchronise_abn(model, synchronised)
    if (path := starting_weights(config)) is not None:
        weights = f"; {checkpoint.load_backbone(model, checkpoint.read(path, config.weights_key), classes)}"
    elif Path(DEFAULT_BACKBONE).exists():
        weights = f", from scratch ({DEFAULT_BACKBONE} is of another network)"
    else:
        weights = f", from scratch (no {DEFAULT_BACKBONE}; --model_path names weights to start from)"
    parameters = sum(p.numel() for p in model.parameters())
    return model, report.network(network_name(config), num_classes, parameters, weights)


def synchronises(config: TrainConfig) -> bool:
    """Whether InPlace-ABN's statistics are taken over several processes: `--sync_abn`, and there are several."""
    return config.sync_abn and distributed.world_size() > 1


def starting_weights(config: TrainConfig) -> str | None:
    """The file or the name of the weights that a network starts from; None from scratch."""
    if config.model_path is not None:
        return config.model_path
    return DEFAULT_BACKBONE if config.model_name == "tresnet_m" and Path(DEFAULT_BACKBONE).exists() else None


def network_name(config: TrainConfig) -> str:
    """With the tag of timm's weights, which has pixel statistics of its own."""
    name = config.model_name
    return name if architecture(name) in CONFIGS else name_with_tag(name, config.model_path)


def with_start(config: TrainConfig) -> tuple[TrainConfig, str | None]:
    """The settings with the weights that `model_path` "auto" stands for; and a line where these cannot be had.

    Rank 0 downloads them, while the other processes wait.

    Raises:
        InputError: they cannot be had, for a probe.
    """
    if config.model_path != "auto":
        return config, None
    if starting_weights(without := dataclasses.replace(config, model_path=None)) is not None:
        return without, None
    name, line = zoo.pretrained_name(config.model_name), None
    if distributed.is_main():
        try:
            if name is None:
                raise InputError(f"no weights of {config.model_name} are published")
            zoo.fetch(name)
        except InputError as error:
            if config.probe:  # of which there is none from scratch
                raise
            line = (
                f"start: from scratch, as {error}. A few thousand photos teach a network far less than such weights hold: "
                "expect a lower mAP after more epochs (--model_path none does not ask for them)"
            )
    line = distributed.broadcast_object(line)
    return dataclasses.replace(config, model_path=None if line else name), line


def exclusive_of(config: TrainConfig, labels: Annotations | ClassSet) -> list[slice]:
    """The groups of classes (of annotations or a class set) that the run takes for exclusive."""
    return exclusive_groups(labels.groups) if config.group_loss == "softmax" else []
