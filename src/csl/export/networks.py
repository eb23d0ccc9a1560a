"""Networks to look at before they are used, and to take away: what `python -m csl zoo` shows and writes."""

from dataclasses import dataclass
from pathlib import Path

import torch

from csl import checkpoint
from csl.errors import InputError
from csl.machine.files import replacing
from csl.models import CONFIGS, create_model, timm_weights, truncate, zoo
from csl.models.summary import Summary, summarise

DEFAULT_CLASSES, DEFAULT_IMAGE_SIZE = 80, 224


@dataclass(frozen=True)
class _Network:
    name: str
    head: str
    num_classes: int
    num_groups: int | None = None
    image_size: int | tuple[int, int] | None = None


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
    network = _find(name, num_classes, head)
    size = image_size or network.image_size or DEFAULT_IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    try:
        with torch.device("meta"):
            model = create_model(network.name, network.num_classes, head=network.head, num_groups=network.num_groups)
        if layer is not None:
            model = truncate(model, layer)
        summary = summarise(model, (height, width))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: not counted for images of {height}x{width} ({reason})") from error
    kind = f"up to {layer}" if layer else f"{network.head} head, {network.num_classes:,} classes"
    return f"{name}: {network.name}, {kind}\n{_table(summary)}"


def write_as_timm(path: str | Path, out: str | Path) -> str:
    """Write a TResNet's weights as timm's state dict, `.safetensors` or `.pth`; returns a line that says how to load it.

    Raises:
        InputError: no checkpoint, no TResNet, an ML-Decoder head, or a file that is already there.
    """
    loaded, out = checkpoint.read(path), Path(out)
    if out.exists():
        raise InputError(f"{out}: is already there, expected a new file")
    if loaded.model_name not in CONFIGS:
        raise InputError(f"{loaded.path}: not a TResNet, expected one: a network of timm has timm's names already")
    try:
        state = {key: value.contiguous() for key, value in timm_weights.to_timm(loaded.state_dict).items()}
    except InputError as error:
        raise InputError(f"{loaded.path}: {error}") from error
    with replacing(out) as temporary:
        if out.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, temporary)
        else:
            torch.save(state, temporary)
    timm_name = timm_weights.timm_name(loaded.model_name)
    line = (
        f"{out}: {len(state)} tensors, for timm.create_model({timm_name!r}, num_classes={loaded.num_classes}, "
        f"checkpoint_path={str(out)!r})"
    )
    if loaded.model_name == "tresnet_l_v2":
        line += "\nits leaky slopes are 1e-6, and timm's tresnet_v2_l has 1e-3 and 1e-2: the logits will differ"
    return line


def _find(name, num_classes, head):
    entry = zoo.PUBLISHED.get(name)
    path = zoo.local_path(name) if entry else Path(name)
    if entry is None and not path.is_file():
        if zoo.is_published(name):  # any other network of timm
            name = name.removeprefix(zoo.TIMM)
        return _Network(name, head or "linear", num_classes or DEFAULT_CLASSES)
    if num_classes is not None or head is not None:
        raise InputError(f"{name}: says its head and classes itself, expected no --num_classes and --head")
    if path.is_file():
        loaded = checkpoint.read(name)
        if loaded.model_name is None or loaded.num_classes is None:
            raise InputError(f"{loaded.path}: neither a TResNet with a classifier nor written by train.py")
        size = (loaded.extra.get("config") or {}).get("image_size") or (entry and entry.image_size)
        size = tuple(size) if isinstance(size, list | tuple) else size
        return _Network(loaded.model_name, loaded.head, loaded.num_classes, loaded.num_groups, size)
    if entry.head is None or entry.num_classes is None:
        raise InputError(f"{name}: only its file tells the head and the classes, expected `zoo get {name}` before")
    return _Network(entry.network, entry.head, entry.num_classes, entry.num_groups, entry.image_size)


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
