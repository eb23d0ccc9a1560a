"""csl.cli.parsing: what the commands make of the process."""

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
from csl.cli import parsing

def main(flags):
    import torch
    def use(times):
        for _ in range(times):
            torch.zeros(2 * 2**20)  # 8 MiB
    use(10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(50)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

sys.exit(parsing.run(main, parsing.create_parser("an example"), []))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_a_tensor_that_comes_and_goes_keeps_its_pages():
    done = subprocess.run([sys.executable, "-c", STEPS], check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) < 8 * 2**20 / os.sysconf("SC_PAGESIZE")  # taken from the system each time: 50 times as many
