"""Loaders: which samples, in which order, by which workers."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from csl.data.dataset import ImageDataset, collate


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index): a permutation of the samples that depends on (seed, epoch) alone, from any step on.

    Args:
        num_samples: N.
        batch_size: B.
        seed: of the permutation; None for the order of the file.
        drop_last: leave out an incomplete last batch, unless it is the only one.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int | None = None, drop_last: bool = False):
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        full = num_samples // batch_size
        self.num_batches = full if drop_last and full else -(-num_samples // batch_size)
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next iteration is that of `epoch`, from its batch `start` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.num_batches - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.num_samples)
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for batch in range(self.start, self.num_batches):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(row)) for row in rows]


def create_loader(
    dataset: ImageDataset, batch_size: int, workers: int, shuffle_seed: int | None = None, drop_last: bool = False
) -> DataLoader:
    """A loader of `Batch`es over `dataset`; its `batch_sampler` is an `EpochBatches`. The workers live on between epochs."""
    return DataLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), batch_size, shuffle_seed, drop_last),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # its own, or every iteration would draw from the generator that dropout uses
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole process group: the parent finishes its step, for which it needs its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def default_workers(most: int = 8) -> int:
    """One worker a core this process may use, at most `most`; none where a single core is all there is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 else min(most, cores)
