"""The precision of training: that of the device, but on a CPU float32 for networks whose gradients bf16 makes wrong or slow."""

import torch
from torch import nn

from csl.errors import InputError
from csl.machine.image_size import height_width
from csl.machine.precision import preferred_precision
from csl.predict.scoring import autocast_dtype
from csl.training.following import follow

MOST_DEPTHWISE = 0.02
"""Share of a network in depthwise convolutions from which on bf16 trains it slower (benchmarks/precision_speed.py)."""


def training_precision(
    amp: str, device: torch.device, network: nn.Module, smallest: int | tuple[int, int]
) -> tuple[torch.dtype | None, str | None]:
    """The dtype of autocast, None for float32, and one clause that says why, where `amp` leaves it to the program.

    Args:
        amp: as of `csl.predict.scoring.autocast_dtype`.
        device: that trains.
        network: images [B, 3, H, W] to logits.
        smallest: side or (H, W) in pixels of the smallest images of the run.

    Raises:
        InputError: as `autocast_dtype`, or bf16 is asked for on a CPU where it makes gradients wrong.
    """
    dtype = autocast_dtype(amp, device)
    why = preferred_precision(device)[1] if amp == "auto" else None
    if device.type != "cpu" or dtype != torch.bfloat16:
        return dtype, why
    if (layer := layer_of_wrong_gradients(network, smallest)) is not None:
        size = "x".join(map(str, height_width(smallest)))
        if amp != "auto":
            raise InputError(
                f"--amp {amp}: at {size} pixels the maps of {layer} are smaller than its kernel, whose gradients a CPU gets "
                "wrong in bf16; expected off, or larger images"
            )
        return None, f"in bf16 a CPU gets the gradients of {layer} wrong at {size} pixels"
    if amp == "auto" and _share_of_depthwise(network) >= MOST_DEPTHWISE:
        return None, "a CPU trains depthwise convolutions faster so"
    return dtype, why


def layer_of_wrong_gradients(network: nn.Module, size: int | tuple[int, int]) -> str | None:
    """The first convolution of whose weight's gradient PyTorch leaves a part unwritten, in bf16 on a CPU; None without one.

    That is where a part of the kernel sees padding alone: found with 2.14 by comparing with float64
    (tests/training/test_training_precision.py). The network is followed without values.
    """
    found = []

    def note(name):
        def hook(layer, inputs):
            if _is_wrong(layer.kernel_size, layer.stride, inputs[0].shape[2:]):
                found.append(name)

        return hook

    def prepare(shape):
        for name, layer in shape.named_modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(note(name))

    with torch.no_grad():
        follow(network, size, prepare)
    return found[0] if found else None


def _is_wrong(kernel, stride, sides):
    """Whether maps of these (height, width) are so small that a part of the kernel sees padding alone."""
    return any(
        side < max(length // 2, 2 if step > 1 and length > 1 else 1)
        for side, length, step in zip(sides, kernel, stride, strict=True)
    )


def _share_of_depthwise(network):
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    return sum(m.weight.numel() for m in convolutions) / max(sum(p.numel() for p in network.parameters()), 1)
