"""Defer SIGINT and SIGTERM, so that training ends its step and saves its state before it stops."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SAME = {signal.SIGINT: 1.0, signal.SIGTERM: 10.0}
"""Seconds within which a signal is the one before, told twice: by Slurm or systemd to all, by torchrun to its processes. The
second is seen once the operation under way returns, and a person presses Ctrl-C again after a second or two."""


class Interrupted(Exception):
    """Training stopped on a signal, after its state was saved."""

    def __init__(self, signal_number: int, saved: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}, state saved in {saved}")
        self.signal_number, self.saved = signal_number, saved


class DeferredSignals:
    """Records the first SIGINT or SIGTERM in `number`; a second one, `SAME` or more later, has its usual effect.

    Args:
        say: prints one line.

    Attributes:
        number: the number of the signal that was received, None before.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.number: int | None = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Record signals in the block instead of raising. Only the main thread may set handlers: others change nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner, first = os.getpid(), {}  # signal: when it came
        previous = {n: signal.getsignal(n) for n in SAME}

        def note(number, frame):
            if number in first:
                if time.monotonic() - first[number] >= SAME[number]:
                    signal.signal(number, previous[number])
                    signal.raise_signal(number)
                return
            self.number, first[number] = number, time.monotonic()
            if os.getpid() == owner:  # and not a process forked from this one
                self.say(f"{signal.Signals(number).name}: finishing this step, then saving")

        try:
            for number in previous:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
