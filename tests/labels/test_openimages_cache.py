"""The cache of OpenImages labels, and labels that are mapped from it."""

import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from csl.errors import InputError
from csl.labels import ImagePaths, read_openimages
from csl.labels import cache as array_cache
from csl.labels.cache import ArrayCache
from csl.labels.openimages import reader as openimages

NAME = "train-annotations-human-imagelabels.csv"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose labels are cached however small, and a cache folder of the user."""
    monkeypatch.setattr(openimages, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    data = tmp_path / "data"
    data.mkdir()
    rows = ["ImageID,Source,LabelName,Confidence", "a,v,/m/1,1", "a,v,/m/2,0", "b,v,/m/2,1", "b,v,/m/1,3"]
    (data / NAME).write_text("\n".join(rows) + "\n")
    (data / "class-descriptions.csv").write_text("/m/1,Cat\n/m/2,Dog\n")
    return data


def read(folder, **options):
    """Annotations, and the warnings; those on the file's one malformed row left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        annotations = read_openimages(folder, **options)
    messages = [str(one.message) for one in caught]
    assert sum("confidence '3', expected 0 or 1" in message for message in messages) == 1
    return annotations, [message for message in messages if "left out" not in message]


def caches(folder):
    return sorted(path for path in folder.iterdir() if path.name.endswith(".cache"))


def test_the_second_reading_is_from_the_cache(folder, monkeypatch):
    first, said = read(folder)
    assert said == []
    [cache] = caches(folder)
    stat = (folder / NAME).stat()
    assert cache.name.startswith(f"{NAME}.{stat.st_size}-{stat.st_mtime_ns}.")
    monkeypatch.setattr(openimages, "_read", None)
    second, _ = read(folder)
    assert second.labels == first.labels
    assert list(second.images) == list(first.images)
    assert (second.classes, second.keys, second.skipped) == (first.classes, first.keys, first.skipped)
    with pytest.raises(InputError, match="line 5: confidence '3'"):
        read_openimages(folder, strict_labels=True)


def test_both_readings_are_mapped_and_travel_by_name(folder):
    for annotations in (read(folder)[0], read(folder)[0]):
        for array in (annotations.labels.indices, annotations.labels.values, annotations.images.data):
            assert isinstance(array.base, np.memmap)
        labels, images = pickle.loads(pickle.dumps((annotations.labels, annotations.images)))
        assert labels == annotations.labels
        assert list(images) == list(annotations.images)
        assert isinstance(labels.values, np.memmap)
    assert b".npy" in pickle.dumps(annotations.labels)
    selected = pickle.loads(pickle.dumps(annotations.select([1])))  # a copy of its own
    assert selected.labels.to_dense().tolist() == [[-1, 1]]
    assert b".npy" not in pickle.dumps(selected.labels)


def test_a_stale_cache_is_rebuilt(folder):
    read(folder)
    [old] = caches(folder)
    with open(folder / NAME, "a") as file:
        file.write("c,v,/m/1,1\n")
    assert len(read(folder)[0]) == 3
    [new] = caches(folder)
    assert new != old
    os.utime(folder / NAME, ns=(0, 10**9))
    read(folder)
    assert len(caches(folder)) == 1
    assert caches(folder) != [new]


def test_what_a_killed_writer_left_is_cleared_away(folder):
    read(folder)
    [cache] = caches(folder)
    with subprocess.Popen(["true"]) as dead:
        pass
    left = cache.with_name(f".{cache.name}.{dead.pid}.abc.tmp")
    at_work = cache.with_name(f".{cache.name}.{os.getppid()}.abc.tmp")
    for half in (left, at_work):
        half.mkdir()
    os.utime(folder / NAME, ns=(0, 10**9))
    read(folder)
    assert not left.exists()
    assert at_work.exists()


def test_other_classes_are_another_cache(folder):
    read(folder)
    read(folder, classes=["/m/2", "/m/1"])
    assert len(caches(folder)) == 2
    assert read(folder)[0].keys == ["/m/1", "/m/2"]


@pytest.mark.parametrize("damage", ["cut", "missing", "facts", "values"])
def test_a_broken_cache_is_rebuilt(folder, damage):
    first, _ = read(folder)
    [cache] = caches(folder)
    if damage == "cut":
        content = (cache / "values.npy").read_bytes()
        (cache / "values.npy").unlink()  # the first reading has it mapped
        (cache / "values.npy").write_bytes(content[:-2])
    elif damage == "missing":
        (cache / "indptr.npy").unlink()
    elif damage == "facts":
        (cache / "facts.json").write_text('{"arrays": [')
    else:
        (cache / "values.npy").unlink()
        np.save(cache / "values.npy", np.array([1, 0, 7], np.int8))
    assert read(folder)[0].labels == first.labels
    assert caches(folder) == [cache]
    assert array_cache._load(cache).arrays["values"].tolist() == [1, 0, 1]


def refuse(monkeypatch, *folders):
    """Make folders read-only, for root too."""
    save = array_cache._save

    def maybe_save(folder, *rest):
        if any(folder.is_relative_to(one) for one in folders):
            raise PermissionError(13, "Permission denied")
        save(folder, *rest)

    monkeypatch.setattr(array_cache, "_save", maybe_save)


def test_a_read_only_folder(folder, monkeypatch):
    refuse(monkeypatch, folder)
    first, [said] = read(folder)
    assert f"{NAME}: cached in {folder.parent / 'home' / 'csl'}" in said
    assert f"({folder}: Permission denied)" in said
    assert "\n" not in said
    assert caches(folder) == []
    monkeypatch.setattr(openimages, "_read", None)
    second, said = read(folder)
    assert said == []
    assert second.labels == first.labels


def test_nowhere_to_write(folder, monkeypatch):
    refuse(monkeypatch, folder.parent)
    for _ in range(2):
        annotations, [said] = read(folder)
        assert f"{NAME}: nothing is cached" in said
        assert annotations.labels.to_dense().tolist() == [[1, 0], [-1, 1]]


def test_no_cache(folder, monkeypatch):
    read(folder, cache=False)
    monkeypatch.setattr(openimages, "_CACHED_FROM", 1 << 24)
    read(folder)
    assert caches(folder) == []


def test_nothing_is_cached_where_reading_fails(folder):
    with pytest.raises(InputError):
        read_openimages(folder, strict_labels=True)
    assert [path.name for path in folder.iterdir() if "cache" in path.name] == []


def test_writers_at_once(folder):
    cache = ArrayCache(folder / NAME, ["test"])
    wait = threading.Barrier(8)

    def write():
        wait.wait()
        cache.save({"a": np.arange(1000)}, {"n": 1})
        assert cache.load().arrays["a"].tolist() == list(range(1000))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in folder.iterdir() if "cache" in path.name] == [cache.folders[0].name]


def test_two_processes_at_once(folder):
    code = (
        "import sys, csl.labels.openimages.reader as o; o._CACHED_FROM = 0;"
        "print(o.read_openimages(sys.argv[1]).labels.to_dense().tolist())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["[[1, 0], [-1, 1]]"] * 2
    assert len([path for path in folder.iterdir() if "cache" in path.name]) == 1


def test_image_paths():
    names = ["a", "bé/c", "", "/absolute/d"]
    paths = ImagePaths.from_names(names, "folder", ".jpg")
    assert list(paths) == ["folder/a.jpg", "folder/bé/c.jpg", "folder/.jpg", "/absolute/d.jpg"]
    assert len(paths) == 4
    assert paths[-1] == "/absolute/d.jpg"
    assert list(paths[1:3]) == list(paths)[1:3]
    assert list(paths.select([3, 0, 0])) == [paths[3], paths[0], paths[0]]
    assert list(paths.within("x")) == ["x/a.jpg", "x/bé/c.jpg", "x/.jpg", "/absolute/d.jpg"]
    assert paths.index("folder/a.jpg") == 0
    assert "nowhere" not in paths
    assert paths.nbytes == 1 + 5 + 11 + 5 * 4
    assert repr(paths) == "ImagePaths(4 in 'folder')"
    assert len(ImagePaths.from_names([])) == 0
    for row in (4, -5):
        with pytest.raises(IndexError, match=f"image {row} of 4"):
            paths[row]
    with pytest.raises(InputError, match="offsets that do not rise from 0 to 2"):
        ImagePaths(np.zeros(2, np.uint8), np.array([0, 2, 1, 2]))
