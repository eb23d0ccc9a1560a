"""Tar shards: what loose files give they give, to us and to webdataset, and nothing that a stranger's tar could want."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csl import __main__ as tools
from csl.data.checking import find_bad_images
from csl.data.dataset import ImageDataset
from csl.data.images import check_image, identity, load_pixels, load_rgb, open_image
from csl.data.loader import create_loader
from csl.data.shards import find_member
from csl.data.transforms import EvalTransform, TrainTransform
from csl.data.write_shards import write_shards
from csl.errors import InputError
from csl.garments import make_garments
from csl.labels import Annotations, LabelMatrix, read_annotations
from csl.labels.class_set import ClassSet
from csl.labels.shard_index import META, load_index, meta_json, sample_json
from csl.labels.shards import expand, is_pattern
from csl.runs.config import TrainConfig
from csl.training.experiment import train


def quiet(line):
    pass


def make_annotations(folder, labels, **options):
    """Small images in every format, one for each row of labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for i in range(len(labels)):
        path = folder / f"im.{i}{('.jpg', '.png', '.JPEG', '')[i % 4]}"
        Image.fromarray(rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)).save(
            path, "PNG" if i % 4 in (1, 3) else "JPEG"
        )
        paths.append(str(path))
    return Annotations(paths, labels, [f"class {c}" for c in range(labels.num_classes)], **options)


@pytest.fixture
def loose(tmp_path):
    labels = LabelMatrix.from_dense(np.random.default_rng(1).integers(-1, 2, (11, 5)))
    return make_annotations(tmp_path / "loose", labels)


@pytest.fixture
def shards(loose, tmp_path):
    write_shards(
        {"train": loose.select(range(7)), "val": loose.select(range(7, 11))}, tmp_path / "out", None, 3, say=quiet
    )
    return tmp_path / "out"


def one_line(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the same as loose files ---


def test_labels_images_and_bytes_equal_those_of_loose_files(loose, shards):
    assert sorted(path.name for path in shards.glob("*.tar")) == [f"shards-{i:06d}.tar" for i in range(5)]
    found = read_annotations(shards, split="train")
    assert found.labels == loose.labels.select(range(7))
    assert (list(found.classes), list(found.keys), found.groups) == (list(loose.classes), list(loose.keys), None)
    for ours, theirs in zip(found.images, loose.images, strict=False):
        with open_image(ours, found.roots) as file:
            assert file.read() == Path(theirs).read_bytes()
        np.testing.assert_array_equal(load_pixels(ours, found.roots), load_pixels(theirs))
        np.testing.assert_array_equal(np.asarray(load_rgb(ours, found.roots)), np.asarray(load_rgb(theirs)))
    everything = read_annotations(shards)
    assert everything.labels == loose.labels
    pattern = read_annotations(f"{shards}/shards-{{000003..000004}}.tar", split="val")
    assert pattern.labels == loose.labels.select(range(7, 11))
    assert list(pattern.images) == list(read_annotations(shards, split="val").images)
    assert read_annotations(shards / "shards-000001.tar").labels == loose.labels.select(range(3, 6))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_labels_come_back(tmp_path_factory, data):
    images, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    cells = st.lists(st.sampled_from([-1, 0, 1]), min_size=images * classes, max_size=images * classes)
    dense = np.array(data.draw(cells)).reshape(images, classes)
    labels = LabelMatrix.from_dense(dense, fill=data.draw(st.sampled_from([-1, 0, 1])))
    folder = tmp_path_factory.mktemp("any")
    groups = {"all": slice(0, classes)} if data.draw(st.booleans()) else None
    weights = np.array(data.draw(st.lists(st.floats(0.125, 8, width=32), min_size=images, max_size=images)), np.float32)
    loose = make_annotations(folder / "loose", labels, groups=groups, weights=weights)
    write_shards({"train": loose}, folder / "out", None, data.draw(st.integers(1, 4)), say=quiet)
    found = read_annotations(folder / "out", split="train")
    assert found.labels == labels
    assert found.labels.fill == labels.fill
    np.testing.assert_array_equal(found.labels.to_dense(), dense)
    assert found.groups == groups
    if (weights != 1).any():
        np.testing.assert_array_equal(found.weights, weights)
    shutil.rmtree(folder)


def test_real_annotations_come_back(real, tmp_path):
    source = real("coco_mini.zip")
    parts = {split: read_annotations(source, split=split) for split in ("train", "val")}
    write_shards(parts, tmp_path / "out", shard_bytes=4_000_000, say=quiet)
    for split, loose in parts.items():
        found = read_annotations(tmp_path / "out", split=split)
        assert found.labels == loose.labels
        assert list(found.classes) == list(loose.classes)
        assert find_bad_images(found.images, progress=False, roots=found.roots) == []
        for row in range(0, len(loose), 9):
            np.testing.assert_array_equal(load_pixels(found.images[row]), load_pixels(loose.images[row]))
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tar")]
    assert len(sizes) > 4
    assert max(sizes) < 5_000_000
    summary = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert summary["images"] == {split: len(part) for split, part in parts.items()}
    assert sum(one["images"] for one in summary["shards"]) == sum(map(len, parts.values()))
    assert summary["labels"]["val"]["positive"] == parts["val"].labels.counts().positives.sum()


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_batches_and_draws_are_those_of_loose_files(loose, shards, workers):
    def epoch(annotations, start):
        dataset = ImageDataset(annotations, TrainTransform(10), seed=4)
        loader = create_loader(dataset, 2, workers, shuffle_seed=4)
        loader.batch_sampler.set_epoch(3, start)
        return list(loader)

    for start in (0, 2):
        ours, theirs = epoch(read_annotations(shards, split="train"), start), epoch(loose.select(range(7)), start)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.targets, b.targets)
            assert torch.equal(a.indices, b.indices)


def test_webdataset_reads_them(loose, shards):
    webdataset = pytest.importorskip("webdataset")

    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 11  # the class list is no sample
    for row, sample in enumerate(samples):
        image = next(sample[name] for name in ("jpg", "jpeg", "png") if name in sample)
        assert image == Path(loose.images[row]).read_bytes()
        content = json.loads(sample["json"])
        dense = loose.labels[row]
        assert content["positives"] == np.flatnonzero(dense == 1).tolist()
        assert content["negatives"] == np.flatnonzero(dense == 0).tolist()
        assert content["split"] == ("train" if row < 7 else "val")
        assert content["image"] == Path(loose.images[row]).name


def test_equal_data_gives_equal_shards(loose, shards, tmp_path):
    write_shards(
        {"train": loose.select(range(7)), "val": loose.select(range(7, 11))}, tmp_path / "again", None, 3, say=quiet
    )
    for path in shards.glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_an_index_is_made_where_there_is_none_and_kept(loose, shards, tmp_path):
    shards = shutil.copytree(shards, tmp_path / "without", ignore=shutil.ignore_patterns("*.cache"))

    def written():
        assert read_annotations(shards, split="train").labels == loose.labels.select(range(7))
        return {path: path.stat().st_mtime_ns for path in shards.rglob("*.cache/*")}

    first = written()
    assert first
    assert written() == first
    os.utime(shards / "shards-000000.tar", ns=(1, 1))
    assert written() != first


def test_the_tool_and_training_from_shards(tmp_path, capsys, monkeypatch):
    make_garments(tmp_path / "garments", num_train=24, num_val=12, size=32, progress=False)
    tool = ["prepare", "shards", "--data", str(tmp_path / "garments"), "--count", "10", "--out", str(tmp_path / "out")]
    assert tools.main(tool) == 0
    assert "24 train, 12 val images in 5 shards" in capsys.readouterr().out
    assert tools.main(tool) == 2
    assert "has shards already" in capsys.readouterr().err

    monkeypatch.setattr(
        "csl.training.experiment.summarise", lambda *_: None
    )  # pictures, which take longer than the rest
    said, results = [], []
    for data in (str(tmp_path / "garments"), f"{tmp_path}/out/shards-{{000000..000004}}.tar"):
        config = TrainConfig(
            data=data, model_name="test_resnet", image_size=32, epochs=1, batch_size=8, workers=0, augment="fast",
            path_dest=str(tmp_path / "run"), cache=str(tmp_path / "cache"), device="cpu",
        )  # fmt: skip
        results.append(train(config, say=said.append))
    assert results[0] == results[1]
    assert sum("24 photos of 32x32" in line for line in said) == 2
    assert len(list((tmp_path / "cache").glob("photos-32x32-*.cache"))) == 4


# --- paths of images in shards ---


def test_members_are_files_to_whoever_opens_an_image(shards, tmp_path):
    path = read_annotations(shards, split="train").images[0]
    assert path.startswith(str(shards / "shards-000000.tar/00000000_im"))
    assert check_image(path) is None
    with open_image(path) as file:
        whole = file.read()
        assert file.seek(0, os.SEEK_END) == len(whole)
        file.seek(-7, os.SEEK_CUR)
        assert (file.tell(), file.read(100)) == (len(whole) - 7, whole[-7:])
        file.seek(5)
        assert file.read(9) == whole[5:14]
    assert one_line(load_pixels, f"{shards}/shards-000000.tar/none.jpg").endswith("no such file")
    assert one_line(load_pixels, f"{shards}/none.tar/none.jpg").endswith("no such file")
    assert identity(path) != identity(read_annotations(shards, split="train").images[1])


def test_a_folder_may_be_called_like_a_tar(tmp_path):
    folder = tmp_path / "photos.tar"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "a.jpg")
    assert find_member(folder / "a.jpg") is None
    assert load_pixels(folder / "a.jpg").shape == (4, 4, 3)


def test_a_link_to_a_shard_elsewhere_is_refused(shards, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "shards-000000.tar").symlink_to(shards / "shards-000000.tar")
    found = read_annotations(tmp_path / "links" / "shards-000000.tar")
    (batch,) = create_loader(ImageDataset(found, EvalTransform(8)), 9, 0)
    assert len(batch.bad) == 3
    assert "outside of" in batch.bad[0].reason
    free = read_annotations(tmp_path / "links" / "shards-000000.tar", follow_links=True)
    (batch,) = create_loader(ImageDataset(free, EvalTransform(8)), 9, 0)
    assert len(batch) == 3


def test_a_shard_that_changes_under_a_run_is_noticed(shards):
    found = read_annotations(shards / "shards-000000.tar")
    load_pixels(found.images[0])
    content = bytearray((shards / "shards-000000.tar").read_bytes())
    (shards / "shards-000000.tar").write_bytes(content[512:] + bytes(512))
    assert "has changed" in one_line(load_pixels, found.images[0])


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a-{008..011}.tar", ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]),
        ("{x,y}/a-{0..1}.tar", ["x/a-0.tar", "x/a-1.tar", "y/a-0.tar", "y/a-1.tar"]),
        ("a.tar", ["a.tar"]),
    ],
)
def test_patterns(pattern, paths):
    assert expand(pattern) == paths
    assert is_pattern(pattern) == ("{" in pattern)


@pytest.mark.parametrize("pattern", ["a-{3..1}.tar", "a-{x}.tar", "a-{0..99999999}.tar", "{0..9999}{0..9999}.tar"])
def test_patterns_that_make_no_sense(pattern):
    assert pattern in one_line(expand, pattern)


def test_a_missing_shard_is_named(shards):
    assert "shards-000005.tar: no such file" in one_line(read_annotations, f"{shards}/shards-{{000000..000009}}.tar")
    os.remove(shards / "shards-000001.tar")
    assert "shards-000001.tar: no such file" in one_line(read_annotations, shards)


def test_a_split_that_is_not_there(shards):
    pattern = f"{shards}/shards-{{000000..000001}}.tar"
    with pytest.raises(InputError, match="no samples of the split val, found train"):
        read_annotations(pattern, split="val")


# --- tars of strangers ---


def stranger(path, members):
    """A tar of (name or TarInfo, content)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def photo():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file, "JPEG")
    return file.getvalue()


CLASSES = (META, meta_json(ClassSet(["a", "b"], ["a", "b"]), -1))
SAMPLE = [("k.jpg", photo()), ("k.json", sample_json("k.jpg", "train", [0], [1], None))]


def test_a_minimal_stranger_is_read(tmp_path):
    extra = [("README", b"hello"), ("__other__/x.txt", b"x"), ("folder/n.m.txt", b"x"), (SAMPLE[0][0], SAMPLE[0][1])]
    members = [CLASSES, extra[0], extra[1], (special("folder", tarfile.DIRTYPE), b""), *SAMPLE]
    found = read_annotations(stranger(tmp_path / "s.tar", members), split="train")
    assert found.labels[0].tolist() == [1, -1]
    assert load_pixels(found.images[0]).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([CLASSES, (special("k.jpg", tarfile.SYMTYPE, "/etc/passwd"), b""), SAMPLE[1]], "'k.jpg' is a link"),
        ([CLASSES, (special("k.jpg", tarfile.LNKTYPE, "other"), b""), SAMPLE[1]], "'k.jpg' is a link"),
        ([CLASSES, (special("k.jpg", tarfile.CHRTYPE), b""), SAMPLE[1]], "'k.jpg' is no plain file"),
        ([CLASSES, (special("k.jpg", tarfile.FIFOTYPE), b""), SAMPLE[1]], "'k.jpg' is no plain file"),
        ([CLASSES, SAMPLE[0]], "sample 'k' has jpg; expected json and one image"),
        ([CLASSES, SAMPLE[1]], "sample 'k' has json; expected json and one image"),
        ([CLASSES, ("k.png", b""), *SAMPLE], "sample 'k' has jpg, json, png"),
        ([CLASSES, SAMPLE[0], *SAMPLE], "'k.jpg' twice"),
        ([CLASSES, *SAMPLE, ("l.jpg", b"x"), ("l.json", b"{}"), *SAMPLE], "two images of the same name"),
        (SAMPLE, "expected __csl__/classes.json"),
        ([], "no __csl__/classes.json"),
        ([CLASSES, SAMPLE[0], ("k.json", b"{")], "not valid JSON"),
        ([CLASSES, SAMPLE[0], ("k.json", b"[" * 100_000)], "nested too deeply"),
        ([CLASSES, SAMPLE[0], ("k.json", b"[]")], "a JSON list, expected an object"),
        (
            [CLASSES, SAMPLE[0], ("k.json", b'{"positives": [2]}')],
            "positives: expected a list of class numbers, 0 to 1",
        ),
        ([CLASSES, SAMPLE[0], ("k.json", b'{"positives": [true]}')], "expected a list of class numbers"),
        ([CLASSES, SAMPLE[0], ("k.json", b'{"positives": [1], "unknown": [1]}')], "a class is listed twice"),
        ([CLASSES, SAMPLE[0], ("k.json", b'{"split": "other"}')], "split 'other', expected one of train, val, test"),
        ([CLASSES, SAMPLE[0], ("k.json", b'{"weight": NaN}')], "weight nan, expected a positive number"),
        ([(META, b'{"version": 2}'), *SAMPLE], "version 2, expected 1"),
        ([(META, b'{"version": 1, "classes": "ab"}'), *SAMPLE], "classes: expected a list of names"),
        ([(META, b'{"version": 1, "classes": ["a"], "fill": true}'), *SAMPLE], "fill True, expected 1, 0 or -1"),
        (
            [(META, b'{"version": 1, "classes": ["a"], "keys": [], "fill": 0}'), *SAMPLE],
            "0 keys, expected one for each",
        ),
        (
            [(META, b'{"version": 1, "classes": ["a"], "groups": [], "fill": 0}'), *SAMPLE],
            "groups is a list, expected",
        ),
    ],
)
def test_strangers_that_are_refused(tmp_path, members, message):
    assert message in one_line(read_annotations, stranger(tmp_path / "s.tar", members))


@pytest.mark.parametrize("name", ["../../k", "/etc/k", "a/../../../k"])
def test_names_never_touch_the_file_system(tmp_path, name):
    path = stranger(tmp_path / "s.tar", [CLASSES, (f"{name}.jpg", photo()), (f"{name}.json", SAMPLE[1][1])])
    before = sorted(tmp_path.rglob("*"))
    if name.startswith("/"):
        found = read_annotations(path)
        assert load_pixels(found.images[0]).shape == (8, 8, 3)  # a name in the tar, whatever it looks like
    else:
        assert "outside of the data folder" in one_line(read_annotations, path)
    assert [p for p in sorted(tmp_path.rglob("*")) if ".cache" not in str(p)] == before


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    assert "compressed, expected a plain tar" in one_line(read_annotations, tmp_path / "s.tar")


def test_a_tar_cut_short_anywhere_is_refused(tmp_path):
    whole = stranger(tmp_path / "whole.tar", [CLASSES, *SAMPLE]).read_bytes()
    end = whole.rstrip(b"\0")
    path = tmp_path / "s.tar"
    for length in [*range(0, len(end), 97), *range(512, len(end) + 1, 512)]:
        path.write_bytes(whole[:length])
        assert str(path) in one_line(load_index, path), length


@settings(deadline=None, max_examples=150)
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_a_damaged_tar_gives_labels_or_one_line(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(stranger(folder / "s.tar", [CLASSES, *SAMPLE, *SAMPLE[:0]]).read_bytes()[:6144])
    content[int(place * (len(content) - 1))] = value
    (folder / "s.tar").write_bytes(content)
    found = []
    try:
        found.append(load_index(folder / "s.tar"))
    except InputError as error:
        found.append(error)
    if isinstance(found[0], InputError):
        assert "\n" not in str(found[0])
    else:
        assert len(found[0]) <= 1
        assert ((found[0].members[:, 1:] >= 0) & (found[0].members[:, 1:] <= len(content))).all()
    shutil.rmtree(folder)


# --- writing ---


def test_an_unreadable_image_stops_or_is_skipped(loose, tmp_path):
    Path(loose.images[4]).write_text("no image")
    message = one_line(lambda: write_shards({"train": loose}, tmp_path / "out", None, 3, say=quiet))
    assert message.startswith(f"{loose.images[4]}: not an image")
    shutil.rmtree(tmp_path / "out")
    said = []
    summary = write_shards({"train": loose}, tmp_path / "out", None, 3, on_bad_image="skip", say=said.append)
    assert summary["images"] == {"train": 10}
    assert len(said) == 1
    good = np.setdiff1d(np.arange(11), [4])
    assert read_annotations(tmp_path / "out").labels == loose.labels.select(good)


def test_a_failed_write_leaves_whole_shards(loose, tmp_path):
    Path(loose.images[7]).unlink()
    one_line(lambda: write_shards({"train": loose}, tmp_path / "out", None, 3, say=quiet))
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tar")) == ["shards-000000.tar", "shards-000001.tar"]
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_shards_end_by_size(loose, tmp_path):
    write_shards({"train": loose}, tmp_path / "out", shard_bytes=1000, say=quiet)
    counts = [one["images"] for one in json.loads((tmp_path / "out" / "shards.json").read_text())["shards"]]
    assert sum(counts) == 11
    assert 1 < len(counts) < 11
