"""csl.predict.scoring: probabilities in float32, every image once."""

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
from csl.predict.scoring import autocast_dtype, score, to_input


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


def test_auto_precision_on_a_cpu_is_float32():
    assert autocast_dtype("auto", torch.device("cpu")) is None
    assert autocast_dtype("bf16", torch.device("cpu")) is torch.bfloat16


def test_float16_on_a_cpu_is_one_line():
    with pytest.raises(InputError, match="--amp fp16: .* on a CPU, expected bf16 or off"):
        autocast_dtype("fp16", torch.device("cpu"))
    assert autocast_dtype("bf16", torch.device("cpu")) == torch.bfloat16
