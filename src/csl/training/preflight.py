"""What is looked at before a run moves anything: its settings, what its network runs on, and its batches."""

import torch
from torch import nn

from csl.data.loader import EpochBatches
from csl.data.photo_cache import check_folder
from csl.data.transforms import TrainTransform
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix, simulate
from csl.losses.options import settings_of as settings_of_loss
from csl.machine import distributed
from csl.models import CONFIGS, architecture, check_image_size, create_model, fewest_images, own_size
from csl.models.abn import describe_abn
from csl.models.compiling import check_compiler
from csl.predict.scoring import autocast_dtype, choose_device
from csl.ranges import check_ranges
from csl.runs.config import TrainConfig
from csl.training import memory, selection
from csl.training.checks import check_used
from csl.training.data import Say
from csl.training.optim import OPTIMIZERS, SCHEDULES
from csl.training.precision import training_precision
from csl.training.sizes import sizes_between
from csl.training.start import network_name, synchronises


def check_settings(config: TrainConfig) -> None:
    """Raise InputError, one line, where a setting is out of range, unknown, or changes nothing beside the others."""
    check_ranges(vars(config))
    name, smallest = network_name(config), config.progressive_size
    check_image_size(name, config.image_size)
    if smallest is not None:
        if architecture(name) not in CONFIGS and own_size(name) is not None:
            raise InputError(f"--progressive_size: the layers of {name} are made for one image size; expected none")
        for size in sizes_between(smallest, config.image_size):
            check_image_size(name, size)
    device = choose_device(config.device)
    autocast_dtype(config.amp, device)
    if config.amp == "bf16" and device.type == "cpu":  # which gets some networks' gradients wrong
        with torch.device("meta"):
            network = create_model(name, head=config.head, image_size=config.image_size)
        training_precision(config.amp, device, network, smallest or config.image_size)
    TrainTransform(config.image_size, config.augment, config.background)
    if config.on_bad_image not in ("stop", "skip"):
        raise InputError(f"--on_bad_image {config.on_bad_image}: expected stop or skip")
    for name, known in (
        ("schedule", SCHEDULES),
        ("optimizer", OPTIMIZERS),
        ("group_loss", ("sigmoid", "softmax")),
        ("mix", ("none", "logic")),
        ("memory", memory.CHOICES),
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
    if config.prior_path is None and config.labels_per_image is None and "known" in settings_of_loss(config.loss):
        raise InputError(
            f"--loss {config.loss}: needs the class prior, expected --prior_path auto or FILE, or --labels_per_image K"
        )
    if distributed.world_size() > 1 and "shape" in settings_of_loss(config.loss):
        raise InputError(f"--loss {config.loss}: remembers each image in one process, expected a run without torchrun")
    if config.loss != "auto":
        config.create_loss()
    check_used(config)


def check_backends(model: nn.Module, config: TrainConfig, say: Say) -> None:
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
    if config.memory == "fast" and (why := memory.why_not(device, synchronises(config))):
        raise InputError(f"--memory fast: {why}; expected auto or save")
    if config.compile:
        check_compiler(device)
    if config.cuda_graph:
        several = {
            "--compile": config.compile,
            "--grad_accum": config.grad_accum > 1,
            "--progressive_size": config.progressive_size is not None,
            "--frozen_epochs": config.frozen_epochs > 0,
            "--shallow_epochs": config.shallow_epochs > 0,
            "torchrun": distributed.world_size() > 1,
        }
        if beside := [device.type] * (device.type != "cuda") + [name for name, given in several.items() if given]:
            raise InputError(
                f"--cuda_graph: not with {', '.join(beside)}; expected one GPU and batches of one kind, one a step"
            )


def fewest_images_of(config: TrainConfig) -> int:
    """Of a batch of one process that the network can be trained on."""
    if synchronises(config):  # its batch norm sees the images of all processes
        return 1
    return fewest_images(network_name(config), config.progressive_size or config.image_size, config.head)


def check_batches(config: TrainConfig, train: Annotations) -> None:
    """Raise InputError if an epoch has no batches, or one that the network cannot be trained on."""
    rank, processes = distributed.rank(), distributed.world_size()
    size = config.progressive_size or config.image_size
    batches = EpochBatches(len(train), config.batch_size, config.seed, config.grad_accum, rank, processes)
    if batches.smallest < fewest_images_of(config):
        raise InputError(
            f"{train.source}: {len(train):,} images to train on give a batch of one image (--batch_size {config.batch_size}, "
            f"--grad_accum {config.grad_accum}, {processes} processes), of which the batch norm of {config.model_name} has one "
            f"value a channel at size {size}; expected two images in each batch, or larger images"
        )
