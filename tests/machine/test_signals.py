"""Signals are deferred: the first is noted, one told twice is one, a later one has its usual effect."""

import os
import signal
import subprocess
import sys

import pytest

from csl.machine.signals import DeferredSignals

TOLD = """
import signal, sys, time
from csl.machine.signals import SAME, DeferredSignals
signals = DeferredSignals(lambda line: print(line, flush=True))
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a job that a shell put into the background ignores it
with signals.deferred():
    number = int(sys.argv[1])
    assert set(SAME) == {signal.SIGINT, signal.SIGTERM}
    SAME[signal.SIGTERM] = 1.0  # not to wait for ten
    for wait in (0, 0, 1.0):
        time.sleep(wait)
        signal.raise_signal(number)  # in this thread: another's would be handled some time after
        print("goes on", signals.number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_told_twice_is_one_and_a_later_one_has_its_usual_effect(number):
    ended = subprocess.run([sys.executable, "-c", TOLD, str(int(number))], capture_output=True, text=True, timeout=60)
    goes_on = f"goes on {int(number)}"
    assert ended.stdout.splitlines() == [f"{number.name}: finishing this step, then saving", goes_on, goes_on]
    assert ended.returncode == -number  # also after Python's own KeyboardInterrupt


def test_each_signal_is_noted_and_the_handlers_are_put_back():
    before, said = signal.getsignal(signal.SIGTERM), []
    signals = DeferredSignals(said.append)
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # within a second, but another one
        assert signals.number == signal.SIGTERM
    assert len(said) == 2
    assert signal.getsignal(signal.SIGTERM) is before
