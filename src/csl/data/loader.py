"""Loaders: batches of samples in their order, read by worker processes."""

import atexit
import multiprocessing.util
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from csl.data.dataset import ImageDataset, Key, collate
from csl.errors import InputError
from csl.machine import distributed
from csl.machine.draws import generator
from csl.machine.processes import available_cores


class EpochBatches(Sampler[list[Key]]):
    """Batches of a permutation of the samples that depends on (seed, epoch) alone, from any step on.

    With weights an epoch is N draws with replacement instead, which depend on (seed, epoch) just as well.

    A step's samples are the next `global_batch` of the permutation, however many processes share them: 2 processes with
    batches of 4, or one that accumulates 2 batches of 4, have the samples of one process with a batch of 8. The last step
    has what is left, cut evenly into as few batches as hold it.

    Args:
        num_samples: N.
        batch_size: B, of one process at a time.
        seed: of the permutation; None for the order of the file.
        grad_accum: A, batches of a process in a step.
        rank, world_size: whose batches these are, of W processes.
        weights: float [N], how likely each sample is to be drawn; only with a seed.

    Attributes:
        global_batch: A * W * B, samples of a step.
        num_batches: steps of an epoch, the same for all ways to share a global batch.
        left_out: samples of an epoch's last step that are not seen, 0 mostly.
        smallest: samples of the smallest batch that has any.

    Raises:
        InputError: fewer samples than the parts that a step is cut into.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int | None = None,
        grad_accum: int = 1,
        rank: int = 0,
        world_size: int = 1,
        weights: np.ndarray | None = None,
    ):
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.weights = weights
        self.grad_accum, self.rank, self.world_size = grad_accum, rank, world_size
        if num_samples < grad_accum * world_size:
            raise InputError(
                f"{num_samples} images in an epoch, expected one or more for each of {world_size} processes x "
                f"{grad_accum} batches of a step (--grad_accum)"
            )
        self.global_batch = grad_accum * world_size * batch_size
        full, rest = divmod(num_samples, self.global_batch)
        # Batch norm takes no batch of one image where a channel has one pixel: one image left is no step. Where sharing
        # out more would give a batch of one, the batches are empty and the trainer passes over the step, which counts: a
        # run may go on with another number of processes.
        parts = world_size * -(-rest // (world_size * batch_size))
        too_few = rest < 2 or rest // parts < min(2, batch_size)
        self.left_out = rest if full and too_few else 0
        self.num_batches = full + (rest > 1 or not full)
        self.smallest = batch_size if full else rest // parts
        if rest > self.left_out:
            self.smallest = min(self.smallest, rest // parts)
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next iteration is that of `epoch`, from its step `start` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return sum(map(self._batches_of, range(self.start, self.num_batches)))

    def _batches_of(self, step):
        """Batches of each process in a step."""
        samples = min(self.global_batch, self.num_samples - self.left_out - step * self.global_batch)
        return max(1, -(-samples // (self.world_size * self.batch_size)))

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.arange(self.num_samples)
        if self.seed is not None:
            rng = generator("order", self.seed, self.epoch)
            if self.weights is None:
                rng.shuffle(order)
            else:
                shares = self.weights.astype(np.float64)
                order = rng.choice(self.num_samples, self.num_samples, p=shares / shares.sum())
        for step in range(self.start, self.num_batches):
            end = min((step + 1) * self.global_batch, self.num_samples - self.left_out)
            places = np.arange(step * self.global_batch, end)
            parts = np.array_split(places, self._batches_of(step) * self.world_size)  # of B each, but for the last step
            for part in parts[self.rank :: self.world_size]:
                yield [Key(self.epoch, int(place), int(order[place])) for place in part]


class StridedBatches(Sampler[list[Key]]):
    """Batches in the order of the file: of every W batches each process has one, and every sample is in exactly one.

    A batch is the same whatever the number of processes, so that its scores are the same to the last bit.

    Args:
        num_samples: N.
        batch_size: B.
        rank, world_size: whose batches these are, of W processes.

    Attributes:
        own_samples: number of samples in these batches.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1):
        self.num_samples, self.batch_size = num_samples, batch_size
        self.starts = range(rank * batch_size, num_samples, world_size * batch_size)
        self.own_samples = sum(min(batch_size, num_samples - start) for start in self.starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in self.starts:
            yield [Key(0, row, row) for row in range(start, min(start + self.batch_size, self.num_samples))]


def create_loader(
    dataset: ImageDataset,
    batch_size: int,
    workers: int,
    shuffle_seed: int | None = None,
    grad_accum: int = 1,
    shared: bool = False,
    weights: np.ndarray | None = None,
) -> DataLoader:
    """A loader of `Batch`es over `dataset`, for training where there is a seed; its workers live on between epochs.

    Args:
        dataset: N samples.
        batch_size: of one process at a time.
        workers: processes that decode; 0 for this one.
        shuffle_seed: its `batch_sampler` is an `EpochBatches` of that seed; None for `StridedBatches`.
        grad_accum, weights: as `EpochBatches` takes them.
        shared: over the processes of the job (`csl.machine.distributed`), each of which gets its part; else all of it.
    """
    rank, world_size = (distributed.rank(), distributed.world_size()) if shared else (0, 1)
    if shuffle_seed is None:
        batches = StridedBatches(len(dataset), batch_size, rank, world_size)
    else:
        batches = EpochBatches(len(dataset), batch_size, shuffle_seed, grad_accum, rank, world_size, weights)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # its own, or every iteration would draw from the generator that dropout uses
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and the end of a job reach all processes: the parent finishes its step, for which it needs its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register  # after `util` registered its own, and so before it
def _end_workers() -> None:
    """Kill the workers of loaders that are in use as Python ends: `multiprocessing` would wait for them after a SIGTERM."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def default_workers(most: int = 8) -> int:
    """One worker per core, at most `most`, and none on a single core. The processes of a job share the cores."""
    cores = max(1, available_cores() // distributed.local_world_size())
    return 0 if cores == 1 else min(most, cores)
