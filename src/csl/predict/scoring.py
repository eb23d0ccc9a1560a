"""Probabilities of all images of a loader, under one or more networks."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.data.prefetch import on_device
from csl.errors import InputError, in_words
from csl.machine import distributed
from csl.machine.host_copy import HostCopy
from csl.machine.precision import preferred_precision

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


@dataclass(frozen=True)
class Scores:
    """Probabilities of the images that could be read.

    Attributes:
        probabilities: float32 [M, N, C], one block for each of the M networks.
        indices: int64 [N], rows of the annotations.
        bad: the images that could not be read.
        whole: the array that `probabilities` is the beginning of, on rank 0 with room for the images of all processes;
            None once these are gathered, or if no image could be read.
    """

    probabilities: np.ndarray
    indices: np.ndarray
    bad: list[BadImage]
    whole: np.ndarray | None = None


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, else a CUDA device, else the CPU; with several processes the GPU of the LOCAL_RANK.

    A GPU becomes the current one, as it is for everything that names no number.

    Raises:
        InputError: a device that is not there, or one GPU named for several processes.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ImportError) as error:  # each kind of device has errors of its own
        there = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise InputError(
            f"--device {name}: not there ({in_words(error, 120)}), expected one of {', '.join(['cpu', *there])}"
        ) from error
    if device.type != "cuda":
        return device
    if device.index is not None and distributed.world_size() > 1:
        raise InputError(f"--device {name}: one GPU for {distributed.world_size()} processes, expected cuda or cpu")
    if device.index is not None:
        torch.cuda.set_device(device)  # what names no GPU means this one: streams, events, Triton's launches
    return torch.device("cuda", torch.cuda.current_device())


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, None for float32; "auto" is `csl.machine.precision.preferred_precision`.

    Raises:
        InputError: another word, or float16 on a CPU, which has no fast operations of it.
    """
    if amp not in ("auto", *AMP):
        raise InputError(f"--amp {amp}: expected one of auto, {', '.join(AMP)}")
    if amp == "fp16" and device.type == "cpu":
        raise InputError("--amp fp16: far slower than float32 on a CPU, expected bf16 or off")
    return preferred_precision(device)[0] if amp == "auto" else AMP[amp]


def to_input(images: torch.Tensor, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Move uint8 [B, 3, H, W] to the device, as floats in [0, 1], channels-last."""
    images = images.to(device, non_blocking=True)
    if device.type == "cpu" or dtype == torch.float64:  # which an integer is not divided in
        return images.to(dtype, memory_format=torch.channels_last).div_(255)
    # One pass of a GPU; a CPU would take as many, and longer ones.
    return torch.div(images, 255, out=torch.empty_like(images, dtype=dtype, memory_format=torch.channels_last))


@torch.inference_mode()
def score(
    models: Sequence[nn.Module],
    loader: DataLoader,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    progress: str | None = None,
    after_batch: Callable[[], None] | None = None,
) -> Scores:
    """Probabilities of every image of `loader` under each network. The networks are left in eval mode.

    No process waits for another here; `gather_scores` joins the parts of a shared loader. The sigmoid is taken in
    float32 even under autocast: half precision would make different scores equal. Memory holds the result once.

    Args:
        models: networks on `device`.
        loader: yields `csl.data.dataset.Batch`es whose indices rise.
        device: where the networks are.
        amp_dtype: autocast's precision, None for float32.
        progress: label of the progress bar, None for no bar.
        after_batch: called after each batch; an exception that it raises ends the loop.
    """
    for model in models:
        model.eval()
    indices, bad, before = [], [], []
    whole, done = None, 0
    total = getattr(loader.batch_sampler, "own_samples", len(loader.dataset))  # this process's part of a shared loader
    room = len(loader.dataset) if distributed.is_main() else total
    with tqdm(total=total, desc=progress, unit="img", leave=False, disable=not show_bar(progress)) as bar:
        for batch in on_device(loader, device):
            bad.extend(batch.bad)
            bar.update(len(batch) + len(batch.bad))
            if not len(batch):
                continue
            x = to_input(batch.images, device)  # [B, 3, H, W]
            blocks = []
            for model in models:
                with torch.autocast(device.type, amp_dtype or torch.bfloat16, enabled=amp_dtype is not None):
                    logits = model(x)  # [B, C]
                blocks.append(HostCopy(torch.sigmoid(logits.float())))
            if whole is None:  # memory is taken when a row is written: rows that stay empty cost none
                whole = np.empty((len(models), room, logits.shape[1]), np.float32)
            _store(before)  # the batch before: the GPU works on this one, and the next is being copied to it
            before = [(whole[m, done : done + len(batch)], block) for m, block in enumerate(blocks)]
            done += len(batch)
            indices.append(batch.indices.numpy())
            if after_batch is not None:
                after_batch()
    _store(before)
    if whole is None:
        return Scores(np.empty((len(models), 0, 0), np.float32), np.empty(0, np.int64), bad)
    return Scores(whole[:, :done], np.concatenate(indices), bad, whole)


def _store(pairs):
    for rows, block in pairs:
        rows[:] = block.values().numpy()


def gather_scores(part: Scores) -> Scores | None:
    """The scores of all processes in the order of the images, on rank 0; None on the others.

    Rank 0 moves its rows to their places in the array that `score` has made, and receives those of the others a few at a
    time: besides the result it needs 8 MiB.
    """
    if distributed.world_size() == 1:
        return replace(part, whole=None)
    parts = distributed.gather_objects_on_rank0((part.indices, part.bad, part.probabilities.shape))
    if parts is None:
        for m, rows in _blocks(part.probabilities.shape):
            distributed.send_to_rank0(torch.from_numpy(part.probabilities[m, rows]))
        return None
    indices, bad, shapes = zip(*parts, strict=True)
    lengths = np.cumsum([len(each) for each in indices])
    indices = np.concatenate(indices)
    order = np.argsort(indices)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))  # the row of each image in the result
    whole = part.whole
    if whole is None:  # none of rank 0's images could be read
        whole = np.empty((len(part.probabilities), len(order), max(shape[2] for shape in shapes)), np.float32)
    for m, rows in reversed(list(_blocks(shapes[0]))):  # from the end: a row never moves up
        whole[m, places[rows]] = whole[m, rows].copy()
    for source, (shape, of_source) in enumerate(zip(shapes[1:], np.split(places, lengths[:-1])[1:], strict=True), 1):
        for m, rows in _blocks(shape):
            block = torch.empty(len(of_source[rows]), shape[2])
            distributed.receive(block, source)
            whole[m, of_source[rows]] = block.numpy()
    bad = sorted((image for each in bad for image in each), key=lambda image: image.index)
    return Scores(whole[:, : len(order)], indices[order], bad)


def _blocks(shape):
    """(network, slice of rows) of parts of at most 4 MiB (or a row) of probabilities [M, N, C], in order."""
    networks, images, classes = shape
    step = max(1, 2**20 // max(classes, 1))
    for m in range(networks):
        for first in range(0, images, step):
            yield m, slice(first, min(first + step, images))


def show_bar(progress: str | None = "") -> bool:
    """Whether to show a progress bar: `progress` is not None, this is rank 0, and stderr is a terminal."""
    return progress is not None and distributed.is_main() and sys.stderr.isatty()
