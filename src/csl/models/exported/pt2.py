"""An exported `.pt2` file (torch.export), behind the call that a PyTorch network has."""

import io
import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from csl.errors import InputError
from csl.models.exported.description import Description, read_description
from csl.models.exported.screening import screen, tensors_only

METADATA = "csl.json"
"""The extra file inside a `.pt2` that holds the metadata, a JSON object of texts."""


class Pt2Network(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to logits [B, C], like the network that was exported.

    A `.pt2` file holds a graph of PyTorch's operators and tensors; one that holds more is not loaded
    (`csl.models.exported.screening`).

    Args:
        path: of `python -m csl export --format pt2`.
        device: where it shall run.

    Attributes:
        description: what the file says of itself.

    Raises:
        InputError: another file, or one that this PyTorch does not read.
    """

    def __init__(self, path: str | Path, device: str | torch.device = "cpu"):
        super().__init__()
        screen(Path(path))
        extra = {METADATA: ""}
        logger = logging.getLogger("torch.export")  # tells of a damaged file at length, before it raises
        was_disabled, logger.disabled = logger.disabled, True
        try:
            with warnings.catch_warnings(), tensors_only():
                warnings.simplefilter("ignore")
                program = torch.export.load(io.BytesIO(Path(path).read_bytes()), extra_files=extra)
            if torch.device(device).type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, torch.device(device))
            metadata = json.loads(extra[METADATA] or "{}")
        except Exception as error:  # of zip, of JSON, of the schema, of operators that are not here: no common base
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{path}: not a network that torch.export reads, or a damaged one ({reason})") from error
        finally:
            logger.disabled = was_disabled
        self.description: Description = read_description(metadata, Path(path))
        self._module = (program.module(),)  # in a tuple: such a module refuses `eval()`, being in no other mode

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to logits [B, C]."""
        y = self.outputs(x)
        return torch.logit(y) if self.description.sigmoid else y

    def outputs(self, x: Tensor) -> Tensor:
        """What the file gives, logits or probabilities: [B, 3, H, W] -> [B, C]."""
        return self._module[0](x)
