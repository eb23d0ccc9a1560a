"""The cores that this process may use, and work spread over processes."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from signal import SIG_IGN, SIGINT, signal
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def available_cores() -> int:
    """The number of cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunksize: int = 1
) -> Iterator[Result]:
    """Yield function(item) of every item, in order.

    Args:
        function, items: what can be pickled.
        workers: number of processes; with 0 or 1 this process does the work.
        chunksize: items that a process is sent at a time.
    """
    if workers < 2:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunksize)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker():
    """Leave Ctrl-C, which reaches the whole process group, to the parent; processes, not threads, share the cores."""
    signal(SIGINT, SIG_IGN)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
