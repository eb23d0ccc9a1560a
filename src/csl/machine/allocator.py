"""Settings of the memory allocator: a training step on a CPU frees and takes back gigabytes."""

import ctypes
import os
import sys

_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD of <malloc.h>


def prefer_large_pages() -> None:
    """Make PyTorch ask for huge pages, and glibc keep the free memory at the top of its heap. Call before the first tensor.

    Page faults are what a CPU step waits for between its convolutions. Linux with glibc alone; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch's CPU allocator when it first allocates
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
