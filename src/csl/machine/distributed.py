"""The processes of one job, as `torchrun` starts them: ranks, reductions, messages, and a shared end.

Every function here works in a process of its own, too, where it costs nothing. With several processes each of them
has to make the same calls in the same order, unless a function says otherwise. An error on one process ends all: it
leaves, the others notice that their peer is gone (or are ended by torchrun), and one of them says why.
"""

import ctypes
import importlib
import inspect
import os
import pickle
import re
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from csl.errors import InputError, Stopped

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for a living peer, which may be reading or checking data for all of them meanwhile. A peer that
is gone is noticed at once."""

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST = re.compile(r"gloo|nccl|connection|socket|store|timed? ?out", re.IGNORECASE)
_FAILED = "csl/failed"

_control = None  # a gloo group beside NCCL: flags and messages never wait for a GPU


# ------------------------------------------------------------------------------------------------------------ who is who


def started() -> bool:
    """Whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank in the job; 0 without a job."""
    return dist.get_rank() if started() else 0


def world_size() -> int:
    """The number of processes in the job; 1 without a job."""
    return dist.get_world_size() if started() else 1


def local_world_size() -> int:
    """The number of the job's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if started() else 1


def is_main() -> bool:
    """Whether this is rank 0, the process that prints and writes."""
    return rank() == 0


def on_rank0(say: Callable[..., None]) -> Callable[..., None]:
    """`say` on rank 0; on the other ranks a function that prints nothing."""
    return say if is_main() else _silence


def _silence(*_, **__):
    pass


def restarts() -> int:
    """How often torchrun (`--max-restarts`) has restarted the job's processes after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def job() -> str | None:
    """On rank 0 a name of the job, the same after a restart of its processes; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None or name != "none":
        return name
    return f"{socket.gethostname()}:{os.getppid()}"  # torchrun itself lives on when it restarts its processes


# ----------------------------------------------------------------------------------------------------- sums and messages


def barrier() -> None:
    """Wait until every process calls this."""
    all_reduce_sum(torch.zeros(1))


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor of the same shape and dtype over all processes, in place; returns it."""
    if world_size() > 1:
        dist.all_reduce(tensor, group=_group_for(tensor))
    return tensor


def all_reduce_max(*values: int) -> list[int]:
    """The maximum over all processes of each value: how they agree that something happened to any of them."""
    if world_size() == 1:
        return list(values)
    agreed = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(agreed, dist.ReduceOp.MAX, group=_control)
    return agreed.tolist()


def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite these tensors with rank 0's, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0, group=_group_for(tensor))


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, in the order of ranks, on every process. Tensors in them should be on the CPU."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def gather_objects_on_rank0(value: Any) -> list[Any] | None:
    """The values of all processes, in the order of ranks, on rank 0; None on the other ranks."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size() if is_main() else None
    dist.gather_object(value, values, dst=0, group=_control)
    return values


def send_to_rank0(tensor: torch.Tensor) -> None:
    """Send a CPU tensor to rank 0, which waits for it in `receive`."""
    dist.send(tensor, dst=0, group=_control)


def receive(tensor: torch.Tensor, source: int) -> None:
    """Overwrite a CPU tensor with the one of its shape and dtype that rank `source` sends."""
    dist.recv(tensor, src=source, group=_control)


def broadcast_object(value: Any = None) -> Any:
    """Rank 0's value, on every process; the values of the other ranks are ignored."""
    if world_size() == 1:
        return value
    box = [value if is_main() else None]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def data_parallel(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model for training, which averages gradients over the processes as they are computed; as it is in one process."""
    if world_size() == 1:
        return model
    # Those of 1x1 filters have two names for the same order in memory.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    known = inspect.signature(DistributedDataParallel).parameters
    sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # the old name
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{sync_buffers: False},  # before an evaluation is enough
    )


@contextmanager
def rank0_first() -> Iterator[None]:
    """Run the block on rank 0 first, then on the other ranks, which find the files that it wrote."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def _group_for(tensor):
    return _control if tensor.device.type == "cpu" else None


# --------------------------------------------------------------------------------------------------- beginning and end


@contextmanager
def process_group(device_name: str | None = None) -> Iterator[None]:
    """Join the job that torchrun's environment describes, NCCL on GPUs and gloo on CPUs; nothing without torchrun.

    A process with a GPU takes that of its LOCAL_RANK. Leaving the block by an error tells the others.

    Args:
        device_name: "cpu" for gloo even where there are GPUs; None or "cuda" for a GPU where there is one.

    Raises:
        InputError: more processes than GPUs.
        Stopped: in place of an error that is another process's, or follows from one.
    """
    if not dist.is_available() or dist.is_initialized() or not all(name in os.environ for name in _TORCHRUN):
        yield
        return
    global _control
    _end_with_torchrun()
    on_gpu = torch.cuda.is_available() and (device_name is None or device_name.startswith("cuda"))
    if on_gpu:
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if here > gpus:
            raise InputError(f"{here} processes on a machine of {gpus} GPUs, expected no more, or --device cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    # Its functions keep the group of the moment of their import as a default. A group that is kept is not closed by
    # destroy_process_group, and its threads may abort the process while the interpreter ends.
    importlib.import_module("torch.distributed.nn.functional")
    store, number, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    # torchrun's store outlives its processes: those of a restart must not find the addresses of the dead.
    store = dist.PrefixStore(f"csl/{restarts()}", store)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=TIMEOUT)
    _control = dist.new_group(backend="gloo", timeout=TIMEOUT) if on_gpu else None
    try:
        yield
        dist.destroy_process_group()
    except SystemExit:
        raise
    except BaseException as error:
        # No farewell to a group that may be waiting for a lost peer: this process is about to end.
        leaving = _after_failure(error, store, size)
        if leaving is error:
            raise
        raise leaving from None
    finally:
        _control = None


def _end_with_torchrun():
    """Ask Linux for a SIGTERM when torchrun dies: else a job started anew would find this process still writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _after_failure(error, store, size):
    """The error to leave with: the first process to fail keeps its error, the others raise `Stopped`."""
    if size == 1:
        return error
    try:
        first = store.add(_FAILED, 1) == 1
    except RuntimeError:  # the store went with the process that had it
        first = False
    if not first or isinstance(error, Stopped):
        return Stopped("")
    if _is_loss(error):
        reason = re.sub(r"^\[[^]]*\] *", "", str(error))  # without the place in gloo's code
        return Stopped(f"lost another process of the job ({reason.splitlines()[0].split('. ')[0][:120]})")
    return error


def _is_loss(error):
    """Whether an error comes from a collective operation whose peer is gone."""
    if isinstance(error, pickle.UnpicklingError):  # a message cut short
        return True
    return isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))
