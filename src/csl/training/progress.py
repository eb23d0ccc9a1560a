"""The progress of an epoch: a bar on a terminal, else a line now and then, and the rate in images a second."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tqdm import tqdm

from csl.predict.scoring import show_bar

QUIET_SECONDS = 30.0
"""A line is due after this time at the latest, however many steps `print_freq` leaves between lines."""

STEADY_SECONDS, STEADY_STEPS = 30.0, 3
"""After which the rate of an epoch is no longer that of its start: workers begin, and libraries choose their ways."""


class EpochProgress:
    """Counts the images of one epoch and shows a bar on a terminal.

    Args:
        label: of the bar.
        steps: of the epoch.
        done: steps that an earlier process did, where training resumes in the middle of the epoch.

    Attributes:
        rate: images per second since the beginning, over all processes.
    """

    def __init__(self, label: str, steps: int, done: int):
        self.images, self.rate, self._steps = 0, 0.0, 0
        self._started = self._said = time.perf_counter()
        self._bar = tqdm(total=steps, initial=done, desc=label, unit="step", leave=False, disable=not show_bar())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, images: int) -> None:
        """Count one step with this many images."""
        self.images += images
        self._steps += 1
        self.rate = self.images / (time.perf_counter() - self._started)
        self._bar.update()
        self._bar.set_postfix_str(f"{self.rate:.1f} img/s")

    def is_steady(self) -> bool:
        """Whether the rate tells how long the rest takes."""
        seconds = time.perf_counter() - self._started
        return self.images > 0 and self._steps >= STEADY_STEPS and seconds > STEADY_SECONDS

    def line_is_due(self, step: int, print_freq: int) -> bool:
        """Whether to print a line after this step, as there is no bar and `print_freq` steps or `QUIET_SECONDS` passed."""
        now = time.perf_counter()
        due = not show_bar() and (step % print_freq == 0 or now - self._said > QUIET_SECONDS)
        if due:
            self._said = now
        return due

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of the rate."""
        begun = time.perf_counter()
        yield
        self._started += time.perf_counter() - begun
