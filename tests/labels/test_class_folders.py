"""Folders of photos as Hugging Face and torchvision have them: a table a split, and a folder a class."""

import json
from pathlib import Path

import pytest
from PIL import Image

from csl.errors import InputError
from csl.labels import read_annotations
from csl.labels.read import recognised


def photos(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)


def named(annotations):
    return [Path(image).relative_to(annotations.folder).as_posix() for image in annotations.images]


def test_a_folder_a_class_in_a_folder_a_split(tmp_path):
    photos(tmp_path, "train/cat/1.jpg", "train/cat/more/2.PNG", "train/guinea pig/1.jpg", "validation/dog/1.jpg")
    (tmp_path / "train/cat/notes.txt").touch()
    train, val = (read_annotations(tmp_path, split=split) for split in ("train", "val"))
    assert train.classes == val.classes == ["cat", "dog", "guinea pig"]
    assert named(train) == ["train/cat/1.jpg", "train/cat/more/2.PNG", "train/guinea pig/1.jpg"]
    assert train.labels.to_dense().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert named(val) == ["validation/dog/1.jpg"]
    assert val.labels.to_dense().tolist() == [[0, 1, 0]]
    assert all(Path(image).is_file() for image in train.images)
    assert train.notes == ("a photo's folder is its class; unlisted: negative",)
    assert read_annotations(tmp_path, split="val", unlisted="unknown").labels.to_dense().tolist() == [[-1, 1, -1]]
    with pytest.raises(InputError, match="no folder of the test split, expected test with a folder for each class"):
        read_annotations(tmp_path, split="test")
    with pytest.raises(InputError, match=r"minus_one: .* was read as a folder a class, which does not take it"):
        read_annotations(tmp_path, minus_one="negative")


def test_class_folders_without_splits_are_for_training(tmp_path):
    photos(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
    photos(tmp_path, "no_label/3.jpg")  # as CVAT calls it
    (tmp_path / "empty").mkdir()
    assert read_annotations(tmp_path).labels.to_dense().tolist() == [[1, 0], [0, 1], [0, 1]]
    with pytest.raises(InputError, match="no folder of the val split"):
        read_annotations(tmp_path, split="val")


@pytest.mark.parametrize(
    "names",
    [
        ("images/1.jpg",), ("train/images/1.jpg", "valid/images/1.jpg"), ("train/images/1.jpg", "train/masks/1.jpg"),
        ("train/1.jpg", "val/1.jpg"), ("cat/1.jpg",),
    ],
)  # fmt: skip
def test_other_folders_of_photos_are_no_classes(tmp_path, names):
    photos(tmp_path, *names)
    assert not recognised(tmp_path)


METADATA = {
    "csv": lambda rows: "file_name,labels\n" + "".join(f'{name},"{json.dumps(one)}"\n'.replace('""', '"').replace(
        json.dumps(one), json.dumps(one).replace('"', '""')) for name, one in rows),
    "jsonl": lambda rows: "".join(json.dumps({"file_name": name, "labels": one}) + "\n" for name, one in rows),
}  # fmt: skip


@pytest.mark.parametrize("suffix", METADATA)
@pytest.mark.parametrize("words", [("cat", "sea lion", "dog"), (0, 3, 7)])
def test_a_table_in_the_folder_of_each_split(tmp_path, suffix, words):
    one, two, three = words
    photos(tmp_path, "train/1.jpg", "train/2.jpg", "train/sub/3.jpg", "validation/1.jpg", "test/1.jpg")
    train = [("1.jpg", [one, two]), ("2.jpg", [three]), ("sub/3.jpg", [])]
    for split, rows in (("train", train), ("validation", [("1.jpg", [two])]), ("test", [("1.jpg", [one])])):
        (tmp_path / split / f"metadata.{suffix}").write_text(METADATA[suffix](rows))
    found = read_annotations(tmp_path, split="train")
    assert found.classes == sorted(map(str, words))
    place = {name: k for k, name in enumerate(found.classes)}
    expected = [[0, 0, 0] for _ in train]
    for row, (_, listed) in zip(expected, train, strict=True):
        for word in listed:
            row[place[str(word)]] = 1
    assert found.labels.to_dense().tolist() == expected
    for split, positive in (("val", two), ("test", one)):
        part = read_annotations(tmp_path, split=split)
        assert part.classes == found.classes
        assert [part.classes[c] for c in part.labels.to_dense()[0].nonzero()[0]] == [str(positive)]
        assert all(Path(image).is_file() for image in part.images)
    assert read_annotations(tmp_path / "validation" / f"metadata.{suffix}", split="val").classes == found.classes


def test_one_table_of_photos_in_the_folders_of_splits(tmp_path):
    photos(tmp_path, "train/1.jpg", "train/2.jpg", "validation/1.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,hat\ntrain/1.jpg,1\ntrain/2.jpg,0\nvalidation/1.jpg,1\n")
    assert len(read_annotations(tmp_path, split="train")) == 2
    (val,) = read_annotations(tmp_path, split="val").images
    assert Path(val) == tmp_path / "validation/1.jpg"
    with pytest.raises(InputError, match="no rows of the test split, found 'file_name' with only train, val"):
        read_annotations(tmp_path, split="test")
