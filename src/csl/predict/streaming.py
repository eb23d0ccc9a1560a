"""Scores of many images as they come: the loader decodes ahead, and several copies of the network work at once."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from csl.data.dataset import BadImage
from csl.engines.exported import ExportedNetwork
from csl.machine.host_copy import HostCopy
from csl.predict.scoring import Scores, show_bar, to_input

MOST_COPIES = 4
"""Most batches that run at once on a CPU: each needs memory for its own activations."""


@dataclass(frozen=True)
class Scored:
    """The scores of one batch.

    Attributes:
        indices: int64 [B], rows of the images that could be read.
        probabilities: float32 [B, C].
        bad: the images that could not be read.
    """

    indices: np.ndarray
    probabilities: np.ndarray
    bad: tuple[BadImage, ...]

    @property
    def images(self) -> int:
        """Images of the batch, those that could not be read among them."""
        return len(self.indices) + len(self.bad)


def copies(model: nn.Module, device: torch.device) -> list[nn.Module]:
    """The network as often as it runs at once: on a CPU for each thread of PyTorch's; on a GPU twice, so that a batch is
    queued while the scores of the one before are waited for; else once.

    The parameters are there once. `torch.set_num_threads` and OMP_NUM_THREADS limit the number.
    """
    exported = isinstance(model, ExportedNetwork)
    count = {"cpu": min(torch.get_num_threads(), MOST_COPIES), "cuda": 1 if exported else 2}.get(device.type, 1)
    if count < 2 or model._compiled_call_impl is not None:  # compiled for all threads
        return [model]
    if exported:
        return model.copies(count)
    return [model] * count  # PyTorch's have no state between two calls


def stream(
    networks: Sequence[nn.Module], loader: DataLoader, device: torch.device, amp_dtype: torch.dtype | None = None
) -> Iterator[Scored]:
    """Probabilities of every image of `loader`, batch by batch in its order; the same numbers as `csl.predict.scoring.score`.

    Memory does not grow with the number of images: at most two batches for each network are waiting.

    Args:
        networks: in eval mode on `device`; as many batches are under way at once.
        loader: yields `csl.data.dataset.Batch`.
        device: where the networks are.
        amp_dtype: autocast's precision, None for float32.
    """
    free: SimpleQueue[nn.Module] = SimpleQueue()
    for network in networks:
        free.put(network.eval())
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        len(networks), initializer=torch.set_num_threads, initargs=(max(1, threads // len(networks)),)
    )
    waiting = deque()
    try:
        for batch in loader:
            waiting.append(pool.submit(_score, batch, free, device, amp_dtype))
            while waiting and (waiting[0].done() or len(waiting) >= 2 * len(networks)):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # later threads would inherit the pool's number


def collected(parts: Iterator[Scored], num_images: int, progress: str | None = None) -> Scores:
    """The scores of `stream` as `csl.predict.scoring.score` gives them; memory holds them once.

    Args:
        parts: of `num_images` images.
        progress: label of the progress bar, None for no bar.
    """
    whole, indices, bad, done = None, [], [], 0
    with tqdm(total=num_images, desc=progress, unit="img", leave=False, disable=not show_bar(progress)) as bar:
        for part in parts:
            bad.extend(part.bad)
            bar.update(part.images)
            if not len(part.indices):
                continue
            if whole is None:
                whole = np.empty((1, num_images, part.probabilities.shape[1]), np.float32)
            whole[0, done : done + len(part.indices)] = part.probabilities
            done += len(part.indices)
            indices.append(part.indices)
    if whole is None:
        return Scores(np.empty((1, 0, 0), np.float32), np.empty(0, np.int64), bad)
    return Scores(whole[:, :done], np.concatenate(indices), bad, whole)


@torch.inference_mode()
def _score(batch, free, device, amp_dtype):
    """Score a batch on a thread of the pool; inference mode and autocast hold for one thread only."""
    if not len(batch):
        return Scored(np.empty(0, np.int64), np.empty((0, 0), np.float32), batch.bad)
    network = free.get()
    try:
        with torch.autocast(device.type, amp_dtype or torch.bfloat16, enabled=amp_dtype is not None):
            logits = network(to_input(batch.images, device))  # [B, C]
        probabilities = HostCopy(torch.sigmoid(logits.float())).values().numpy()
    finally:
        free.put(network)
    return Scored(batch.indices.numpy(), probabilities, batch.bad)
