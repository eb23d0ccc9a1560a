"""The workers of a loader outlive the signals of a job, and not the process that they work for."""

import subprocess
import sys

import pytest

from csl.garments import make_garments

LEFT = """
import sys
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.labels import read_annotations
loader = create_loader(ImageDataset(read_annotations(sys.argv[1], split="train"), EvalTransform(32)), 2, 2)
batches = iter(loader)
next(batches)
{end}
"""


@pytest.mark.parametrize(("end", "status"), [("pass", 0), ("raise ValueError", 1)])
def test_a_process_ends_while_its_workers_wait(tmp_path, end, status):
    data = make_garments(tmp_path / "set", num_train=12, num_val=2, size=40, progress=False)
    code = LEFT.format(end=end)
    ended = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == status, ended.stderr
