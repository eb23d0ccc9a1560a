"""Networks over a loader: probabilities for every image, once."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl.data.dataset import BadImage

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


@dataclass(frozen=True)
class Scores:
    """Probabilities of the images that could be read.

    Attributes:
        probabilities: float32 [M, N, C], one block for each of the M networks.
        indices: int64 [N], rows of the annotations.
        bad: the images left out.
    """

    probabilities: np.ndarray
    indices: np.ndarray
    bad: list[BadImage]


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, or the first CUDA device, or the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The low precision of autocast, None for none. "auto": bfloat16 where a GPU has it, else float16; none on a CPU."""
    if amp != "auto":
        return AMP[amp]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def to_input(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 [B, 3, H, W] on the host to float32 in [0, 1] on the device, channels-last."""
    images = images.to(device, non_blocking=True)
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


@torch.inference_mode()
def score(
    models: Sequence[nn.Module],
    loader: DataLoader,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    progress: str | None = None,
) -> Scores:
    """Probabilities of every image of `loader` under each network, which is left in eval mode.

    The sigmoid is taken in float32, whatever the autocast: half precision would merge scores that differ.

    Args:
        models: networks on `device`.
        loader: yields `csl.data.dataset.Batch`.
        device: where the networks are.
        amp_dtype: autocast's precision, None for float32.
        progress: label of the progress bar, None for no bar.
    """
    for model in models:
        model.eval()
    blocks: list[list[np.ndarray]] = [[] for _ in models]
    indices, bad = [], []
    with tqdm(total=len(loader.dataset), desc=progress, unit="img", leave=False, disable=not show_bar(progress)) as bar:
        for batch in loader:
            bad.extend(batch.bad)
            bar.update(len(batch) + len(batch.bad))
            if not len(batch):
                continue
            x = to_input(batch.images, device)  # [B, 3, H, W]
            for model, block in zip(models, blocks, strict=True):
                with torch.autocast(device.type, amp_dtype or torch.bfloat16, enabled=amp_dtype is not None):
                    logits = model(x)  # [B, C]
                block.append(torch.sigmoid(logits.float()).cpu().numpy())
            indices.append(batch.indices.numpy())
    if not indices:
        return Scores(np.empty((len(models), 0, 0), np.float32), np.empty(0, np.int64), bad)
    return Scores(np.stack([np.concatenate(block) for block in blocks]), np.concatenate(indices), bad)


def show_bar(progress: str | None = "") -> bool:
    """Whether a progress bar is wanted and there is a terminal to show it; a log file gets lines instead."""
    return progress is not None and sys.stderr.isatty()
