"""The table of a network's layers that `python -m csl zoo describe` prints."""

from pathlib import Path

import torch

from csl import checkpoint
from csl.errors import InputError, in_words
from csl.machine.image_size import height_width
from csl.models import create_model, truncate, zoo
from csl.models.description import Architecture
from csl.models.summary import Summary, measure

DEFAULT_CLASSES, DEFAULT_IMAGE_SIZE = 80, 224


def describe(
    name: str,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    head: str | None = None,
    layer: str | None = None,
) -> str:
    """Parameters, multiply-adds, and the output shape and stride of each part of a network, as a table of lines.

    Args:
        name: published weights, a file of weights, or a network. Published weights need not be on this disk.
        image_size: side or (height, width) in pixels; None for what the weights are for, else 224.
        num_classes, head: of a network named alone; None for 80 and linear.
        layer: a TResNet is truncated there.

    Raises:
        InputError: an unknown name, or a size or layer that the network does not have.
    """
    network, own_size = _find(name, num_classes, head)
    size = image_size or own_size or DEFAULT_IMAGE_SIZE
    height, width = height_width(size)
    try:
        with torch.device("meta"):
            model = create_model(**vars(network), image_size=size)
        if layer is not None:
            model = truncate(model, layer)
        summary = measure(model, (height, width))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = in_words(error)
        raise InputError(f"{name}: not counted for images of {height}x{width} ({reason})") from error
    kind = f"up to {layer}" if layer else f"{network.head} head, {network.num_classes:,} classes"
    return f"{name}: {network.name}, {kind}\n{_table(summary)}"


def _find(name, num_classes, head):
    """(Architecture, image size or None) of published weights, a file, or a network."""
    entry = zoo.PUBLISHED.get(name)
    path = zoo.local_path(name) if entry else Path(name)
    if entry is None and not path.is_file():
        if zoo.is_published(name):  # any other network of timm
            name = name.removeprefix(zoo.TIMM)
        return Architecture(name, head or "linear", num_classes or DEFAULT_CLASSES), None
    if num_classes is not None or head is not None:
        raise InputError(f"{name}: says its head and classes itself, expected no --num_classes and --head")
    if path.is_file():
        loaded = checkpoint.read(name)
        if loaded.model_name is None or loaded.num_classes is None:
            raise InputError(f"{loaded.path}: neither a TResNet with a classifier nor written by train.py")
        size = (loaded.extra.get("config") or {}).get("image_size") or (entry and entry.image_size)
        return loaded.architecture, tuple(size) if isinstance(size, list | tuple) else size
    if entry.architecture.head is None or entry.architecture.num_classes is None:
        raise InputError(f"{name}: only its file tells the head and the classes, expected `zoo get {name}` before")
    return entry.architecture, entry.image_size


def _table(summary: Summary):
    height, width = summary.image_size
    lines = [
        f"parameters     {summary.parameters:,}",
        f"multiply-adds  {summary.multiply_adds:,} (one image, {height}x{width})",
        "",
        f"{'layer':22}{'output':>20}{'stride':>9}{'parameters':>16}",
    ]
    for layer in summary.layers:
        shape = " x ".join(map(str, layer.shape[1:]))
        lines.append(f"{layer.name:22}{shape:>20}{layer.stride or '':>9}{layer.parameters:>16,}")
    return "\n".join(lines)
