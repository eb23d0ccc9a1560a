"""A network in training, followed without values: what its layers see and keep."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from csl.machine.image_size import height_width
from csl.models.recurrent import without_steps

IMAGES = 2
"""The fewest that batch norm has a variance of."""


def follow(network: nn.Module, size: int | tuple[int, int], prepare: Callable[[nn.Module], Any]) -> Tensor:
    """The logits [2, C], without values, of two images of a side or (H, W) in pixels, by a copy of the network in training.

    `prepare` is given the copy before.
    """
    shape = copy.deepcopy(network).to("meta").train()
    prepare(shape)
    with without_steps(shape):
        return shape(torch.empty(IMAGES, 3, *height_width(size), device="meta"))
