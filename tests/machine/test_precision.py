"""csl.machine.precision: what a processor computes in, as the operating system tells it."""

from pathlib import Path

import pytest
import torch

from csl.machine.precision import cpu_bf16, preferred_precision
from csl.predict.scoring import autocast_dtype

FLAGS = Path("/proc/cpuinfo")


@pytest.mark.skipif(not FLAGS.exists() or not hasattr(torch.cpu, "get_capabilities"), reason="nothing to compare with")
def test_bf16_is_found_where_the_system_knows_it():
    flags = FLAGS.read_text().split()
    assert (cpu_bf16() is not None) == any(name in flags for name in ("amx_bf16", "avx512_bf16", "svebf16", "bf16"))


def test_auto_is_what_the_device_prefers_and_says_why():
    dtype, why = preferred_precision(torch.device("cpu"))
    assert autocast_dtype("auto", torch.device("cpu")) == dtype
    assert why
    assert "\n" not in why
