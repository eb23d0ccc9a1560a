"""A network in an exported `.onnx` file behind the call of a PyTorch network: what every engine's has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.machine.image_size import height_width
from csl.models.description import Description, read_description


class NotInstalled(InputError):
    """An engine's package is missing; the message says how to install it."""


class ExportedNetwork(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to logits [B, C], like the network that was exported; of any B, in one H and W.

    Attributes:
        path: the file.
        description: its metadata.
        height_width: (H, W) of the images.
    """

    path: Path
    description: Description
    height_width: tuple[int, int]

    def describe(
        self,
        inputs: Sequence[Sequence[Any]],
        outputs: Sequence[Sequence[Any]],
        metadata: Mapping[str, str],
        image_size: int | tuple[int, int] | None,
    ) -> None:
        """Set the attributes by what an engine found in the file.

        Args:
            inputs, outputs: the shape of each; a side that may be any is no `int`.
            metadata: name -> JSON text.
            image_size: of the images to come; None for the file's own.

        Raises:
            InputError: the file is foreign or damaged, or the network does not take that size.
        """
        if len(inputs) != 1 or len(outputs) != 1 or [len(inputs[0]), len(outputs[0])] != [4, 2]:
            raise InputError(
                f"{self.path}: {len(inputs)} inputs and {len(outputs)} outputs, expected images [B, 3, H, W] to [B, C]"
            )
        count = outputs[0][1]
        self.description = read_description(metadata, self.path, count if isinstance(count, int) else None)
        self.height_width = height_width(self.description.image_size if image_size is None else image_size)
        fixed = tuple(inputs[0][2:])
        if all(isinstance(side, int) for side in fixed) and fixed != self.height_width:
            asked = "x".join(map(str, self.height_width))
            raise InputError(f"--image_size {asked}: {self.path} takes {fixed[0]}x{fixed[1]} alone")

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """What the file computes, logits or probabilities: float32 [B, 3, H, W] -> float32 [B, C]."""

    @abstractmethod
    def copies(self, count: int) -> list[nn.Module]:
        """The same network for `count` calls at once, each from a thread of its own and on its share of the cores."""

    def outputs(self, x: Tensor) -> Tensor:
        """The logits or probabilities that the file computes: [B, 3, H, W] -> [B, C]."""
        images = np.ascontiguousarray(x.detach().float().cpu().numpy())  # channels first in memory
        return torch.from_numpy(self.run(images)).to(x.device)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1], of `height_width`, to float32 logits [B, C] on the device of `x`."""
        values = self.outputs(x)
        return torch.logit(values) if self.description.sigmoid else values


class Copy(ExportedNetwork):
    """An `ExportedNetwork` that runs by another function than its own `run`."""

    def __init__(self, network: ExportedNetwork, run: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self.path, self.description, self.height_width = network.path, network.description, network.height_width
        self.run = run

    def copies(self, count: int) -> list[nn.Module]:
        """This one, for one call at a time."""
        return [self]
