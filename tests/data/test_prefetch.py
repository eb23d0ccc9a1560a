"""csl.data.prefetch: batches pass through on a CPU, and are copied ahead on a GPU."""

import numpy as np
import pytest
import torch
from PIL import Image

from csl.data.dataset import BadImage, Batch, ImageDataset
from csl.data.loader import create_loader
from csl.data.prefetch import on_device
from csl.data.transforms import TrainTransform
from csl.labels import Annotations, LabelMatrix

CPU = torch.device("cpu")


def batches(count=6, size=16):
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        yield Batch(
            torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2),
            torch.full((4, 2), i % 2, dtype=torch.int8),
            torch.arange(4 * i, 4 * i + 4),
            (BadImage(i, "why"),),
            torch.rand(4, 5, generator=generator),
        )


@pytest.fixture
def loader(tmp_path):
    paths = []
    for i in range(10):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((20, 20, 3), 20 * i, np.uint8)).save(paths[-1])
    annotations = Annotations(paths, LabelMatrix.from_dense(np.zeros((10, 2), np.int8)), ["a", "b"])
    return create_loader(ImageDataset(annotations, TrainTransform(8, "fast"), seed=0), 4, 1, shuffle_seed=0)


def same(a, b):
    assert torch.equal(a.images.cpu(), b.images)
    assert torch.equal(a.targets.cpu(), b.targets)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.draws.cpu(), b.draws)
    assert a.bad == b.bad


def test_a_cpu_gets_the_batches_themselves():
    made = list(batches())
    for given, found in zip(made, on_device(made, CPU), strict=True):
        assert found is given


def test_a_loader_can_be_left_and_begun_again(loader):
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        for batch in on_device(loader, CPU):
            assert len(batch) in (2, 4)
            break
    loader.batch_sampler.set_epoch(1)
    whole = list(on_device(loader, CPU))
    assert sorted(torch.cat([batch.indices for batch in whole]).tolist()) == list(range(10))


def test_an_error_of_the_loader_arrives():
    def broken():
        yield from batches(2)
        raise RuntimeError("a worker died")

    found = on_device(broken(), CPU)
    next(found), next(found)
    with pytest.raises(RuntimeError, match="a worker died"):
        next(found)


def test_batches_move_as_a_whole():
    (batch,) = batches(1)
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for t in (moved.images, moved.targets, moved.draws)} == {"meta"}
    assert moved.indices is batch.indices  # for messages, which must not wait for a GPU
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    none = Batch(batch.images, batch.targets, batch.indices).to(torch.device("meta"))
    assert none.draws is None
    assert none.bad == ()


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [True, False])
def test_a_gpu_gets_the_same_values_while_it_works(pinned):
    device = torch.device("cuda")
    made = list(batches(12, size=256))
    weight = torch.rand(2048, 2048, device=device)
    found = []
    for batch in on_device((b.pin_memory() if pinned else b for b in made), device):
        for _ in range(20):  # work that is still going on when the next batch is copied
            weight = torch.softmax(weight @ weight, dim=1)
        found.append((batch.images.clone(), batch.targets.clone(), batch.draws.clone(), batch.indices))
        del batch
    for given, (images, targets, draws, indices) in zip(made, found, strict=True):
        same(Batch(images, targets, indices, given.bad, draws), given)


@pytest.mark.gpu
def test_pinned_batches_keep_their_layout():
    (batch,) = batches(1)
    pinned = batch.pin_memory()
    assert pinned.images.is_pinned()
    assert pinned.images.is_contiguous(memory_format=torch.channels_last)
    same(pinned, batch)
