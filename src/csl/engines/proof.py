"""What shows that an exported network computes PyTorch's numbers, to rounding."""

import tempfile

import torch
from torch import Tensor, nn

from csl.data.transforms import EvalTransform
from csl.engines.exported import ExportedNetwork
from csl.errors import InputError
from csl.garments import make_garments
from csl.models.description import Description

TOLERANCE = 1e-4
"""The largest difference from PyTorch that is accepted: of a probability, and of a logit (of the largest one, over 1)."""

PHOTOS = 4
"""Drawn garments that an engine is tried on where no photos are known."""


def difference(found: Tensor, expected: Tensor, sigmoid: bool) -> float:
    """The largest difference of a probability and, relative to the largest one (if over 1), of a logit; a NaN is infinite."""
    if found.shape != expected.shape:
        return float("inf")
    if sigmoid:
        worst = (found - expected).abs().max()
    else:
        probabilities = (found.sigmoid() - expected.sigmoid()).abs().max()
        worst = torch.maximum(probabilities, (found - expected).abs().max() / expected.abs().max().clamp(min=1))
    return worst.nan_to_num(float("inf")).item()


def drawn_photos(description: Description, count: int = PHOTOS) -> Tensor:
    """Drawn garments as the network sees them: uint8 [count, 3, H, W]."""
    transform = EvalTransform(description.image_size, description.background)
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_garments(f"{scratch}/garments", num_train=1, num_val=count, size=256, progress=False)
        paths = sorted((folder / "images").iterdir())[-count:]
        return torch.stack([transform.augmented(transform.read(str(path))) for path in paths])


@torch.inference_mode()
def prove(network: ExportedNetwork, pytorch: nn.Module, photos: Tensor, dtype: torch.dtype | None = None) -> float:
    """The difference of a network from PyTorch's in float32, on photos together and on one alone.

    Args:
        network: as an engine runs it.
        pytorch: the same in PyTorch, on the CPU: images [B, 3, H, W] to logits [B, C].
        photos: uint8 [N, 3, H, W].
        dtype: the engine's, None for float32; of a lower precision the engine may be as far from float32 as twice what
            PyTorch's autocast is.

    Raises:
        InputError: it is more than that, and `TOLERANCE`.
    """
    x = (photos.float() / 255).contiguous(memory_format=torch.channels_last)  # [N, 3, H, W]
    worst, allowed = 0.0, TOLERANCE
    for batch in (x, x[:1]):
        expected = pytorch(batch).float()
        worst = max(worst, difference(network(batch), expected, sigmoid=False))
        if dtype is not None and len(batch) == len(x):
            with torch.autocast("cpu", dtype):
                allowed += 2 * difference(pytorch(batch).float(), expected, sigmoid=False)
    if worst > allowed:
        raise InputError(
            f"{network.path.name}: other numbers than PyTorch's, by {worst:.3g}; expected at most {allowed:.3g}"
        )
    return worst
