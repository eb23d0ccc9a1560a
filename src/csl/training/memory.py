"""Time or memory: whether a training step keeps what the backward of InPlace-ABN would make again."""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from csl.machine import distributed
from csl.models.abn import abn_layers, keep_inputs
from csl.ops import current_backend
from csl.training.following import IMAGES, follow

CHOICES = ("auto", "save", "fast")
"""What `--memory` may be."""

MOST_KEPT = 2 << 30
"""Bytes that the steps of all processes of a machine may keep before "auto" saves memory: few beside what it has."""


def why_not(device: torch.device, synchronised: bool) -> str | None:
    """Why InPlaceABN layers on a device make again what backward needs in any case, in words; None where they need not.

    Raises:
        InputError: as `csl.ops.current_backend`.
    """
    if device.type != "cpu":
        return f"changes nothing on {device.type}, where an input is recovered as the output is read"
    if (backend := current_backend(device)[0]) != "torch":
        return f"changes nothing with --abn {backend}"
    return "changes nothing with --sync_abn" if synchronised else None


def keeps_inputs(
    memory: str,
    device: torch.device,
    network: nn.Module,
    size: int | tuple[int, int],
    images: int,
    synchronised: bool = False,
) -> bool:
    """Whether the InPlaceABN layers of a network keep their inputs (`csl.models.abn.keep_inputs`).

    Args:
        memory: one of `CHOICES`. "auto" keeps them on a CPU, which has to recover them in passes of its own
            (benchmarks/tresnet_speed.py), as long as all that a step in float32 then keeps is at most `MOST_KEPT`.
        device: that trains.
        network: images [B, 3, H, W] to logits.
        size: side or (H, W) in pixels of the largest images of the run.
        images: B, at a time in this process.
        synchronised: whether statistics are taken over several processes.
    """
    if memory == "save" or not abn_layers(network) or why_not(device, synchronised):
        return False
    return memory == "fast" or kept_bytes(network, size) * images * distributed.local_world_size() <= MOST_KEPT


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
        follow(network, size, prepare)
    return sum(length for storage, length in kept.items() if storage not in own) / IMAGES


def _storage(tensor):
    return tensor.untyped_storage()._cdata
