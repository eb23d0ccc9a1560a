"""What a network costs and what shape its layers put out, counted on the meta device: nothing is computed."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from csl.models.backbones import TimmWithHead
from csl.models.features import FeatureExtractor, TruncatedTResNet
from csl.models.tresnet import TResNet


@dataclass(frozen=True)
class Layer:
    """One of a network's parts in the order they run.

    Attributes:
        name: of the module.
        shape: of its output for one image, with the batch of 1.
        stride: pixels of the image a side of the output's pixel covers; None where it is no map of the image.
        parameters: in it.
    """

    name: str
    shape: tuple[int, ...]
    stride: int | None
    parameters: int


@dataclass(frozen=True)
class Summary:
    """Parameters, multiply-adds of one image of `image_size` (height, width), and the parts of a network."""

    parameters: int
    multiply_adds: int
    image_size: tuple[int, int]
    layers: list[Layer]


def measure(model: nn.Module, image_size: tuple[int, int]) -> Summary:
    """Count a network that was made under `torch.device("meta")`.

    Multiply-adds are those of convolutions and matrix products; additions, normalisations and activations are not counted.

    Args:
        model: on the meta device; it is set to eval mode.
        image_size: (height, width) in pixels.
    """
    layers: list[Layer] = []

    def note(name):
        def hook(module, _, output):
            output = output[-1] if isinstance(output, list | tuple) else output
            if isinstance(output, Tensor):
                layers.append(Layer(name, tuple(output.shape), _stride(output.shape, image_size), _parameters(module)))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in _parts(model)]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.empty(1, 3, *image_size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return Summary(_parameters(model), counter.get_total_flops() // 2, tuple(image_size), layers)


def _parts(model):
    """The layers worth a line: the stages of a body, and the head."""
    if not isinstance(model, TResNet | FeatureExtractor | TruncatedTResNet | TimmWithHead):
        return list(model.named_children())
    body = [(f"body.{name}", part) for name, part in model.body.named_children()]
    return body + [(name, part) for name, part in model.named_children() if name == "head"]


def _parameters(module):
    return sum(p.numel() for p in module.parameters())


def _stride(shape, image_size):
    """How much smaller than the image a map is, channels first or last."""
    if len(shape) == 4:
        for height, width in (shape[2:], shape[1:3]):
            ratio = round(image_size[0] / height)
            if ratio == round(image_size[1] / width):
                return ratio
    return None
