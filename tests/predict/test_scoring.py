"""csl.predict.scoring: probabilities in float32, every image once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from csl import InputError
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.labels import Annotations, LabelMatrix
from csl.predict.scoring import autocast_dtype, gather_scores, score, to_input


class HalfLogits(nn.Module):
    """Answers every batch with float16 logits, as autocast does on a GPU."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits.expand(len(x), -1)


@pytest.fixture
def annotations(tmp_path):
    for i in range(5):
        Image.new("RGB", (8, 8), (i * 50, 0, 255)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    return Annotations(paths, LabelMatrix.from_dense(np.zeros((5, 1), np.int8)), ["a"])


def test_sigmoid_is_taken_in_float32(annotations):
    logits = torch.linspace(5, 9, 2000).half().unique()
    loader = create_loader(ImageDataset(annotations, EvalTransform(8)), 2, 0)
    scores = score([HalfLogits(logits)], loader, torch.device("cpu"))
    assert scores.probabilities.dtype == np.float32
    assert len(np.unique(scores.probabilities[0, 0])) == len(logits)
    assert len(logits.sigmoid().unique()) < len(logits) / 2  # what half precision would have left
    assert scores.indices.tolist() == list(range(5))


def test_input_is_channels_last_in_zero_to_one():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    x = to_input(images, torch.device("cpu"))
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x, images / 255)


def test_auto_precision_on_a_cpu_is_what_it_computes_in(monkeypatch):
    for found, dtype in ((None, None), ("avx512_bf16", torch.bfloat16)):
        monkeypatch.setattr("csl.machine.precision.cpu_bf16", lambda found=found: found)
        assert autocast_dtype("auto", torch.device("cpu")) is dtype
    assert autocast_dtype("bf16", torch.device("cpu")) is torch.bfloat16


class Table(nn.Module):
    """Answers each image by a row of logits of its own: that of its red channel."""

    def __init__(self, classes, seed=0):
        super().__init__()
        self.rows = torch.randn(256, classes, generator=torch.Generator().manual_seed(seed))

    def forward(self, x):
        return self.rows[(x[:, 0, 0, 0] * 255).round().long()]


def test_bad_images_leave_no_row(annotations):
    for i in (0, 3):
        Path(annotations.images[i]).write_bytes(b"")
    loader = create_loader(ImageDataset(annotations, EvalTransform(8)), 2, 0)
    networks = [Table(7), Table(7, seed=1)]
    scores = gather_scores(score(networks, loader, torch.device("cpu")))
    assert scores.indices.tolist() == [1, 2, 4]
    assert [image.index for image in scores.bad] == [0, 3]
    for network, found in zip(networks, scores.probabilities, strict=True):
        expected = network.rows[[50, 100, 200]].sigmoid().numpy()
        # Not equal: of other places in a processor's vectors, whose ends round otherwise.
        np.testing.assert_allclose(found, expected, rtol=3e-7, atol=0)


SCORED = """
import resource
import numpy as np, torch
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.transforms import EvalTransform
from csl.errors import InputError
from csl.labels import Annotations, LabelMatrix
from csl.machine import distributed
from csl.predict.scoring import gather_scores, score

class Drawn(ImageDataset):
    def resized(self, index):
        if index in (0, 3, 40, 41):
            raise InputError("cut short")
        return np.full((8, 8, 3), index % 256, np.uint8)

class Grey(torch.nn.Module):
    def forward(self, x):
        return x[:, :1, 0, 0].expand(-1, 4000)

def scored(images):
    annotations = Annotations([""] * images, LabelMatrix.from_entries([], [], [], (images, 1)), ["a"])
    loader = create_loader(Drawn(annotations, EvalTransform(8)), 16, 0, shared=True)
    return gather_scores(score([Grey(), Grey()], loader, torch.device("cpu")))

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with distributed.process_group("cpu"):
    scored(64)
    before = peak()
    scores = scored(3000)
    if scores is not None:
        print((peak() - before) / scores.probabilities.nbytes)
        assert scores.probabilities.shape == (2, 2996, 4000)
        assert scores.indices.tolist() == [i for i in range(3000) if i not in (0, 3, 40, 41)]
        assert [image.index for image in scores.bad] == [0, 3, 40, 41]
        grey = torch.from_numpy(scores.indices % 256).float().div(255).sigmoid().numpy()
        for column in (0, 1234, 3999):
            np.testing.assert_allclose(scores.probabilities[:, :, column], np.stack([grey, grey]), rtol=1e-6)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_memory_holds_the_scores_once(processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1"}
    job |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCORED],
            env=os.environ | job | {"RANK": f"{rank}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    assert float(outputs[0]) <= 1.2  # times the result, on the process that has it


def test_float16_on_a_cpu_is_one_line():
    with pytest.raises(InputError, match="--amp fp16: .* on a CPU, expected bf16 or off"):
        autocast_dtype("fp16", torch.device("cpu"))
    assert autocast_dtype("bf16", torch.device("cpu")) == torch.bfloat16
