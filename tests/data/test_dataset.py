"""csl.data: draws that depend on (seed, epoch, index) alone, batches that survive a bad file."""

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from csl.data.checking import find_bad_images
from csl.data.dataset import ImageDataset
from csl.data.loader import EpochBatches, create_loader
from csl.data.transforms import EvalTransform, TrainTransform
from csl.labels import Annotations, LabelMatrix


@pytest.fixture
def annotations(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(10):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(paths[-1])
    return Annotations(paths, LabelMatrix.from_dense(rng.integers(-1, 2, (10, 4))), list("abcd"))


def batches(loader, epoch, start=0):
    loader.batch_sampler.set_epoch(epoch, start)
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_do_not_depend_on_workers_or_start(annotations, workers):
    dataset = ImageDataset(annotations, TrainTransform(32), seed=5)
    whole = batches(create_loader(dataset, 3, 0, shuffle_seed=5), epoch=2)
    loader = create_loader(dataset, 3, workers, shuffle_seed=5)
    again, rest = batches(loader, 2), batches(loader, 2, start=2)
    assert [b.indices.tolist() for b in again] == [b.indices.tolist() for b in whole]
    for a, b in [*zip(again, whole, strict=True), *zip(rest, whole[2:], strict=True)]:
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)
    other = batches(loader, 3)
    assert sorted(sum((b.indices.tolist() for b in other), [])) == list(range(10))
    assert [b.indices.tolist() for b in other] != [b.indices.tolist() for b in whole]


def test_batches_hold_uint8_images_and_tri_state_targets(annotations):
    (batch, *_) = create_loader(ImageDataset(annotations, EvalTransform((32, 48))), 4, 0)
    assert batch.images.shape == (4, 3, 32, 48)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.dtype == torch.int8
    assert np.array_equal(batch.targets.numpy(), annotations.labels.to_dense()[:4])


def test_drop_last_keeps_a_single_small_batch():
    assert [len(b) for b in EpochBatches(10, 4, seed=0, drop_last=True)] == [4, 4]
    assert [len(b) for b in EpochBatches(3, 4, seed=0, drop_last=True)] == [3]
    assert [len(b) for b in EpochBatches(10, 4)] == [4, 4, 2]


def test_a_bad_file_is_named_and_the_rest_of_the_batch_arrives(annotations):
    with open(annotations.images[1], "w") as file:
        file.write("not an image")
    assert [bad.index for bad in find_bad_images(annotations.images, progress=False)] == [1]
    (batch,) = create_loader(ImageDataset(annotations, EvalTransform(32)), 10, 0)
    assert batch.indices.tolist() == [0, *range(2, 10)]
    assert batch.bad[0].index == 1
    assert annotations.images[1] in batch.bad[0].reason


def test_the_check_of_all_images_takes_no_memory_for_each(annotations):
    find_bad_images(annotations.images, progress=False)
    peaks = []
    for count in (1000, 4000):
        tracemalloc.start()
        assert find_bad_images(annotations.images * (count // 10), progress=False) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 300_000  # of a queue of all images it was 1,900 bytes each; the list of paths is 8


def test_a_share_of_the_images_is_checked_and_named_by_its_rows(annotations):
    for row in (3, 4, 6):
        with open(annotations.images[row], "w") as file:
            file.write("not an image")
    found = find_bad_images(annotations.images, progress=False, rows=range(1, 10, 3))
    assert [(bad.index, bad.reason.partition(": ")[0]) for bad in found] == [(4, annotations.images[4])]


def test_iterating_leaves_the_global_generator_alone(annotations):
    loader = create_loader(ImageDataset(annotations, EvalTransform(32)), 4, 0)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)
