"""csl.data.photo_cache: the same pixels next time, and nothing that is stale, partial or lost."""

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from csl.data import photo_cache
from csl.data import transforms as transforms_module
from csl.data.dataset import ImageDataset
from csl.data.loader import create_loader
from csl.data.photo_cache import PhotoCache, open_cache
from csl.data.transforms import EvalTransform, TrainTransform
from csl.errors import MachineError
from csl.labels import Annotations, ImagePaths, LabelMatrix


@pytest.fixture
def annotations(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    paths = []
    for i in range(9):
        paths.append(str(tmp_path / "photos" / f"{i}.jpg"))
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(paths[-1])
    return Annotations(paths, LabelMatrix.from_dense(rng.integers(-1, 2, (9, 4))), list("abcd"))


@pytest.fixture
def decoded(monkeypatch):
    """The paths that have been decoded, in order."""
    paths = []
    real = transforms_module.load_pixels

    def load(path, *rest):
        paths.append(path)
        return real(path, *rest)

    monkeypatch.setattr(transforms_module, "load_pixels", load)
    return paths


def dataset_of(annotations, folder, transform=None, said=None, **options):
    transform = transform or EvalTransform(17)
    cache = open_cache(folder, annotations.images, transform, (said if said is not None else []).append)
    return ImageDataset(annotations, transform, cache=cache, **options)


def pixels(dataset):
    return [dataset.resized(row).copy() for row in range(len(dataset))]


def test_photos_are_decoded_once(annotations, tmp_path, decoded):
    plain = pixels(dataset_of(annotations, None))
    decoded.clear()
    first = pixels(dataset_of(annotations, tmp_path / "cache"))
    assert decoded == annotations.images
    second = pixels(dataset_of(annotations, tmp_path / "cache"))  # another object, as another run has
    assert decoded == annotations.images
    for a, b, c in zip(plain, first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("augment", ["original", "fast", "none"])
def test_batches_are_the_same_with_and_without(annotations, tmp_path, augment):
    def batches(cache):
        dataset = dataset_of(annotations, cache, TrainTransform((24, 16), augment), seed=3)
        loader = create_loader(dataset, 4, 0, shuffle_seed=3)
        loader.batch_sampler.set_epoch(1)
        return list(loader)

    for _ in range(2):
        for a, b in zip(batches(None), batches(str(tmp_path / "cache")), strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.indices, b.indices)
            assert (a.draws is None and b.draws is None) or torch.equal(a.draws, b.draws)


def test_augmenting_leaves_what_is_kept_alone(annotations, tmp_path):
    dataset = dataset_of(annotations, tmp_path / "cache", TrainTransform(24, "original"), seed=3)
    before = pixels(dataset)
    for epoch in range(3):
        for row in range(9):
            dataset[epoch, row, row].pixels.zero_()
    for a, b in zip(before, pixels(dataset), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_sizes_rules_and_lists_are_kept_apart(annotations, tmp_path):
    folder = tmp_path / "cache"
    names = {
        open_cache(folder, images, transform, lambda line: None).path.name
        for transform in (EvalTransform(17), EvalTransform(18), TrainTransform(17, "fast"), TrainTransform(17, "none"))
        for images in (annotations.images, annotations.images[:8])
    }
    assert len(names) == 6  # the training transform "none" resizes as the evaluation does
    as_arrays = ImagePaths.from_names(["a.jpg", "b.jpg"], "photos")
    assert PhotoCache(folder, as_arrays, (2, 2)).path != PhotoCache(folder, as_arrays.within("other"), (2, 2)).path


def test_a_changed_photo_is_decoded_anew(annotations, tmp_path, decoded):
    pixels(dataset_of(annotations, tmp_path / "cache"))
    decoded.clear()
    Image.fromarray(np.full((60, 50, 3), 200, np.uint8)).save(annotations.images[2])
    os.utime(annotations.images[4], ns=(1, 1))
    found = pixels(dataset_of(annotations, tmp_path / "cache"))
    assert decoded == [annotations.images[2], annotations.images[4]]
    assert np.abs(found[2].astype(int) - 200).max() <= 1
    pixels(dataset_of(annotations, tmp_path / "cache"))
    assert len(decoded) == 2


def test_a_photo_that_is_gone_or_bad_is_said_to_be(annotations, tmp_path):
    pixels(dataset_of(annotations, tmp_path / "cache"))
    os.remove(annotations.images[1])
    with open(annotations.images[5], "w") as file:
        file.write("no image")
    (batch,) = create_loader(dataset_of(annotations, tmp_path / "cache"), 9, 0)
    assert [bad.index for bad in batch.bad] == [1, 5]
    assert "no such file" in batch.bad[0].reason


@pytest.mark.parametrize("part", ["pixels", "record", "half the pixels"])
def test_a_write_that_was_cut_short_looks_like_none(annotations, tmp_path, decoded, part):
    dataset = dataset_of(annotations, tmp_path / "cache")
    expected = pixels(dataset)
    cache = dataset.cache
    decoded.clear()
    with open(cache.path, "r+b") as file:  # what a lost page leaves: zeros
        if part == "record":
            file.seek(3 * photo_cache._RECORD)
            file.write(bytes(photo_cache._RECORD))
        else:
            file.seek(cache.start + 3 * cache.photo_bytes)
            file.write(bytes(cache.photo_bytes // (2 if part == "half the pixels" else 1)))
    found = pixels(dataset_of(annotations, tmp_path / "cache"))
    assert decoded == [annotations.images[3]]
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_that_was_cut_off_is_filled_again(annotations, tmp_path, decoded):
    dataset = dataset_of(annotations, tmp_path / "cache")
    expected = pixels(dataset)
    os.truncate(dataset.cache.path, dataset.cache.start + 100)
    found = pixels(dataset)  # while it is open
    again = pixels(dataset_of(annotations, tmp_path / "cache"))
    for a, b, c in zip(expected, found, again, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_workers_fill_it_together(annotations, tmp_path, decoded):
    dataset = dataset_of(annotations, tmp_path / "cache")
    expected = pixels(dataset_of(annotations, None))
    list(create_loader(dataset, 2, 2))
    decoded.clear()
    for a, b in zip(expected, pixels(dataset), strict=True):
        np.testing.assert_array_equal(a, b)
    assert decoded == []
    clone = pickle.loads(pickle.dumps(SimpleNamespace(cache=dataset.cache))).cache  # as a spawned worker gets it
    assert clone.find(3, annotations.images[3]).pixels is not None


def fill_for_ever(annotations, folder, started):
    dataset = dataset_of(annotations, folder)
    while True:
        for row in range(9):
            kept = dataset.cache.find(row, annotations.images[row])
            dataset.cache.keep(row, kept.fingerprint, dataset.resized(row))
        started.set()


def test_two_processes_at_once_and_a_kill_leave_whole_photos(annotations, tmp_path):
    expected = pixels(dataset_of(annotations, None))
    context = multiprocessing.get_context("fork")
    started = context.Event()
    processes = [
        context.Process(target=fill_for_ever, args=(annotations, tmp_path / "cache", started)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert started.wait(60)
    dataset = dataset_of(annotations, tmp_path / "cache")
    for _ in range(20):
        for a, b in zip(expected, pixels(dataset), strict=True):
            np.testing.assert_array_equal(a, b)
        time.sleep(0.01)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    for a, b in zip(expected, pixels(dataset_of(annotations, tmp_path / "cache")), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_room_that_it_takes_is_said_first(annotations, tmp_path):
    said = []
    dataset = dataset_of(annotations, tmp_path / "cache", EvalTransform((300, 200)), said)
    assert len(said) == 1
    assert "9 photos of 300x200 take 1.6 MB, of which 0.0 MB are there" in said[0]
    pixels(dataset)
    dataset_of(annotations, tmp_path / "cache", EvalTransform((300, 200)), said)
    assert "of which 1.6 MB are there" in said[1]


def test_without_enough_room_it_goes_on_without(annotations, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(photo_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=photo_cache.RESERVE))
    said = []
    dataset = dataset_of(annotations, tmp_path / "cache", said=said)
    assert len(said) == 1
    assert said[0].endswith("are free: going on without keeping photos")
    for _ in range(2):
        assert len(pixels(dataset)) == 9
    assert len(decoded) == 18


def test_a_disk_that_fills_up_is_said_once(annotations, tmp_path, monkeypatch, decoded):
    dataset = dataset_of(annotations, tmp_path / "cache")
    real, calls = os.pwrite, []

    def full(descriptor, content, offset):
        calls.append(offset)
        if len(calls) == 5:  # the third photo: a part of it goes in
            return real(descriptor, content[:100], offset)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content, offset)

    monkeypatch.setattr(photo_cache.os, "pwrite", full)
    with pytest.warns(UserWarning, match="No space left on device; going on without keeping photos") as caught:
        first = pixels(dataset)
    assert len(caught) == 1
    assert len(calls) == 6  # nothing is tried after that
    decoded.clear()
    for a, b in zip(first, pixels(dataset), strict=True):
        np.testing.assert_array_equal(a, b)
    assert decoded == annotations.images[2:]


def test_a_file_system_without_room(annotations, tmp_path):
    """A real full disk: a limit on the size of files, which a process of its own gives itself."""
    code = (
        "import resource, signal, sys, warnings; import numpy as np\n"
        "from csl.data.photo_cache import PhotoCache\n"
        "cache = PhotoCache(sys.argv[1], sys.argv[2:], (10, 10))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (cache.start + 350, resource.RLIM_INFINITY))\n"
        "warnings.showwarning = lambda message, *_: print('warning:', message)\n"
        "for row, path in enumerate(sys.argv[2:]):\n"
        "    cache.keep(row, cache.find(row, path).fingerprint, np.full((10, 10, 3), row, np.uint8))\n"
        "print([cache.find(row, path).pixels is not None for row, path in enumerate(sys.argv[2:])])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cache", *annotations.images[:3]],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert out.splitlines()[1].endswith("File too large; going on without keeping photos")
    assert out.splitlines()[2:] == ["[True, False, False]"]


def test_a_folder_that_cannot_be_made_is_an_error(annotations, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="--cache .*file.*: cannot be written"):
        dataset_of(annotations, str(tmp_path / "file"))
