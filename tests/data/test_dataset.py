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
    whole = batches(create_loader(dataset, 4, 0, shuffle_seed=5), epoch=2)
    loader = create_loader(dataset, 4, workers, shuffle_seed=5)
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


@pytest.mark.parametrize(
    ("samples", "batch_size", "grad_accum", "processes", "expected"),  # images of each batch of the first process
    [
        (10, 4, 1, 1, [4, 4, 2]),
        (9, 4, 1, 1, [4, 4]),  # batch norm needs more than one image
        (8, 4, 1, 1, [4, 4]),
        (3, 4, 1, 1, [3]),
        (1, 4, 1, 1, [1]),  # all that there is
        (11, 4, 2, 1, [4, 4, 3]),  # in one batch of the two
        (14, 4, 2, 1, [4, 4, 3, 3]),
        (12, 4, 1, 2, [4, 2]),
        (11, 4, 1, 2, [4, 0]),  # a step for all numbers of processes, which the trainer passes over
        (9, 4, 1, 2, [4]),
        (5, 1, 2, 1, [1, 1, 1, 1]),
        (7, 2, 2, 1, [2, 2, 0]),
        (27, 1, 3, 4, [1] * 6 + [0]),
        (32, 1, 3, 4, [1] * 8),
    ],
)
def test_the_last_step_has_what_is_left(samples, batch_size, grad_accum, processes, expected):
    parts = [EpochBatches(samples, batch_size, 0, grad_accum, rank, processes) for rank in range(processes)]
    assert [len(batch) for batch in parts[0]] == expected
    assert len(parts[0]) == len(expected)
    seen = [key.row for part in parts for batch in part for key in batch]
    assert len(set(seen)) == len(seen) == samples - parts[0].left_out
    whole = EpochBatches(samples, parts[0].global_batch, 0)
    assert {part.num_batches for part in parts} == {whole.num_batches}
    assert whole.left_out == (samples % whole.global_batch == 1 and samples > 1)


@pytest.mark.parametrize("augment", ["original", "flip_affine", "fast"])
def test_an_image_drawn_several_times_is_augmented_anew_each_time(annotations, augment):
    weights = np.full(10, 1e-6)
    weights[3] = 1  # every draw of an epoch, or nearly
    dataset = ImageDataset(annotations, TrainTransform(32, augment), seed=5)

    def made(workers=0, start=0):
        loader = create_loader(dataset, 3, workers, shuffle_seed=5, weights=weights)
        return [
            (row, image.numpy().tobytes() + (b"" if batch.draws is None else batch.draws[i].numpy().tobytes()))
            for batch in batches(loader, 1, start)
            for i, (row, image) in enumerate(zip(batch.indices.tolist(), batch.images, strict=True))
        ]

    whole = made()
    assert [row for row, _ in whole].count(3) == len(whole) == 9  # of ten, as one is no last step
    assert len({image for _, image in whole}) == 9
    assert made(workers=2) == whole
    assert made(start=2) == whole[6:]


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
