"""Defer SIGINT and SIGTERM, so that training ends its step and saves its state before it stops."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Interrupted(Exception):
    """Training stopped on a signal, after its state was saved."""

    def __init__(self, signal_number: int, saved: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}, state saved in {saved}")
        self.signal_number, self.saved = signal_number, saved


class DeferredSignals:
    """Records the first SIGINT or SIGTERM in `number`; a second one has its usual effect.

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
        owner = os.getpid()
        previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

        def note(number, frame):
            self.number = number
            signal.signal(number, previous[number])
            if os.getpid() == owner:  # and not a process forked from this one
                self.say(f"{signal.Signals(number).name}: finishing this step, then saving")

        try:
            for number in previous:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
