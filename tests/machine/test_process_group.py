"""A job's process group is gone when its block ends: no thread of it is left that could abort the interpreter's end."""

import subprocess
import sys

import pytest
from killing import free_port

PROGRAM = """
from pathlib import Path
from csl.machine import distributed
with distributed.process_group("cpu"):
    import torch._dynamo  # as timm and the networks do, inside of the block
    distributed.barrier()
print(sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: names of threads in /proc")
def test_no_thread_outlives_the_block(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    job = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    result = subprocess.run([*job, str(program)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("[") == 2
    assert "gloo" not in result.stdout
