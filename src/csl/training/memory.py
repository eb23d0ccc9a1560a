"""Time or memory: whether a training step keeps what the backward of InPlace-ABN would make again."""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from csl.models.abn import InPlaceABN, keep_inputs
from csl.training.following import IMAGES, follow

CHOICES = ("auto", "save", "fast")
"""What `--memory` may be."""

MOST_KEPT = 2 << 30
"""Bytes that a step on a CPU may keep before "auto" saves memory: few beside what a machine that trains has."""


def keeps_inputs(
    memory: str, device: torch.device, network: nn.Module, size: int | tuple[int, int], images: int
) -> bool:
    """Whether the InPlaceABN layers of a network keep their inputs (`csl.models.abn.keep_inputs`).

    Args:
        memory: one of `CHOICES`. "auto" keeps them on a CPU, which has to recover them in passes of its own (benchmarks/
            tresnet_speed.py), as long as a step in float32 then keeps at most `MOST_KEPT`.
        device: that trains.
        network: images [B, 3, H, W] to logits.
        size: side or (H, W) in pixels of the largest images of the run.
        images: B, at a time in this process.
    """
    if memory != "auto" or device.type != "cpu":
        return memory == "fast"
    recovers = any(isinstance(module, InPlaceABN) for module in network.modules())
    return recovers and kept_bytes(network, size) * images <= MOST_KEPT


def kept_bytes(network: nn.Module, size: int | tuple[int, int]) -> float:
    """Bytes an image that backward needs in float32, where all inputs are kept; the network's own tensors are not counted."""
    kept, own = {}, set()

    def prepare(shape):
        keep_inputs(shape)
        own.update(_storage(tensor) for tensor in (*shape.parameters(), *shape.buffers()))

    def note(tensor):
        kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = follow(network, size, prepare)
    del logits
    return sum(size for storage, size in kept.items() if storage not in own) / IMAGES


def _storage(tensor):
    return tensor.untyped_storage()._cdata
