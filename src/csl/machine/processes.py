"""The cores that this process may use, and work spread over processes or threads."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from signal import SIG_IGN, SIGINT, signal
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

_AHEAD = 4  # chunks for each worker that are under way; the pools' own `map` queues all at once, at 2 kB each


def available_cores() -> int:
    """The number of cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, chunksize: int = 1, threads: bool = False
) -> Iterator[Result]:
    """Yield function(item) of every item, in order. Memory does not grow with their number: few are read ahead.

    Args:
        function, items: what can be pickled, for processes.
        workers: number of processes; with 0 or 1 this process does the work.
        chunksize: items that a worker is sent at a time.
        threads: whether the workers are threads of this process.
    """
    if workers < 2:
        yield from map(function, items)
        return
    items, waiting = iter(items), deque()
    with ThreadPoolExecutor(workers) if threads else ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        try:
            while chunk := list(islice(items, chunksize)):
                waiting.append(pool.submit(_of_each, function, chunk))
                if len(waiting) == _AHEAD * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _of_each(function, items):
    return list(map(function, items))


def _start_worker():
    """Leave Ctrl-C, which reaches the whole process group, to the parent; processes, not threads, share the cores."""
    signal(SIGINT, SIG_IGN)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
