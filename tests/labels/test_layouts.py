"""Folders as annotation tools write them: which file is of which split, and where its images are."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csl.errors import InputError
from csl.labels import read_annotations
from csl.labels.inspection import inspect
from csl.labels.options import DataOptions
from csl.labels.paths import split_in
from csl.labels.read import read_split
from csl.runs.config import TrainConfig
from csl.training.data import load_data

CASE = Path(__file__).parents[3] / "shared" / "cases" / "roboflow_coco"


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(file)


def content(name, classes=("cat", "dog", "bird"), count=4):
    """A file of `count` images, the last without annotation; image k shows class k."""
    return {
        "images": [{"id": k, "file_name": f"{name}_{k}.jpg"} for k in range(count)],
        "annotations": [{"image_id": k, "category_id": 10 + k, "iscrowd": 1} for k in range(count - 1)],
        "categories": [{"id": 10 + k, "name": one} for k, one in enumerate(classes)],
    }


def write(file, found):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found))


# tool: {split: (label file, folder of its images)}
TOOLS = {
    "Roboflow": {s: (f"{s}/_annotations.coco.json", s) for s in ("train", "valid", "test")},
    "CVAT": {s: (f"annotations/instances_{s}.json", f"images/{s}") for s in ("Train", "Validation")},
    "CVAT, a task a split": {
        s: (f"{s}/annotations/instances_default.json", f"{s}/images/default") for s in ("train", "val")
    },
    "CVAT, one folder": {s: (f"annotations/instances_{s}.json", "images") for s in ("train", "VAL")},
    "FiftyOne": {s: (f"{s}/labels.json", f"{s}/data") for s in ("train", "validation", "test")},
    "any name": {"train": ("my_train.json", "images"), "val": ("labels_val2.json", "images")},
    "any name, folders": {s: (f"{s}_v3.json", f"images/{s}") for s in ("train", "valid")},
    "years": {s: (f"instances_{s}2023.json", s) for s in ("train", "val")},
    "labels": {s: (f"labels/{s}.json", f"images/{s}") for s in ("train", "val")},
}


@pytest.mark.parametrize("tool", TOOLS)
def test_folders_of_tools(tmp_path, tool):
    for split, (file, images) in TOOLS[tool].items():
        write(tmp_path / file, content(split))
        for k in range(4):
            photo(tmp_path / images / f"{split}_{k}.jpg")
    (tmp_path / "README.dataset.txt").write_text("# animals > 2024-05-01\nProvided by a user\nLicense: CC BY 4.0\n")
    write(tmp_path / "info.json", {"name": "animals", "classes": ["cat"]})
    for split, (file, images) in TOOLS[tool].items():
        found = read_annotations(tmp_path, split=split)
        assert found.source == str(tmp_path / file)
        assert found.images == [str(tmp_path / images / f"{split}_{k}.jpg") for k in range(3)]
        assert found.labels.to_dense().tolist() == np.eye(3, dtype=int).tolist()
        assert found.skipped == 1


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_default.json", "images/default"),
        ("annotations/instances_default.json", "images"),
        ("labels.json", "data"),
        ("result.json", "images"),
        ("whatever.json", "."),
    ],
)
def test_a_file_of_no_split(tmp_path, file, images):
    write(tmp_path / file, content("x"))
    photo(tmp_path / images / "x_0.jpg")
    for split in (None, "train"):
        assert read_annotations(tmp_path, split=split).images[0] == str(tmp_path / images / "x_0.jpg")
    report, lines = inspect(DataOptions(data=str(tmp_path)))
    assert report["splits"]["all"]["positives"] == 3
    assert any("(1 images without annotations left out); 1 of 3 photos are there" in line for line in lines)
    with pytest.raises(InputError, match=f"no COCO file of the val split, expected .*; found {file}"):
        read_annotations(tmp_path, split="val")


def test_what_a_file_given_by_itself_is_of(tmp_path):
    for name, split in (("val.json", "val"), ("labels.json", "all")):
        write(tmp_path / name, content("x"))
        assert list(inspect(DataOptions(data=str(tmp_path / name)))[0]["splits"]) == [split]


def test_two_files_of_one_split_are_asked_about(tmp_path):
    for name in ("train/a.json", "train/b.json"):
        write(tmp_path / name, content("x"))
    with pytest.raises(InputError, match=r"found train/a.json, train/b.json, expected one of the train split"):
        read_annotations(tmp_path)


def test_a_file_of_no_split_is_not_for_training_where_another_is_of_one(tmp_path):
    for name in ("all.json", "my_val.json"):
        write(tmp_path / name, content("x"))
    with pytest.raises(InputError, match=r"no COCO file of the train split, .*found all.json, my_val.json"):
        read_annotations(tmp_path, split="train")


def test_a_table_beside_a_json_of_another_name_is_read_as_before(tmp_path):
    (tmp_path / "attributes.csv").write_text("filename,hat\na.jpg,1\nb.jpg,0\n")
    write(tmp_path / "photos.json", content("x"))
    assert read_annotations(tmp_path).classes == ["hat"]


def test_lvis_by_another_name_is_not_read_as_coco(tmp_path):
    found = content("x")
    for image in found["images"]:
        image["neg_category_ids"] = []
    write(tmp_path / "minival" / "lvis_train.json", found)
    write(tmp_path / "lvis_v0.5_train.json", found)
    assert (read_annotations(tmp_path).labels.to_dense() == 0).sum() == 0


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("my_train", "train"), ("labels_val2", "val"), ("instancesTrain2017", "train"), ("instances_TEST", "test"),
        ("dev-set", "val"), ("trainval", None), ("train_test", None), ("restrained", None), ("2017", None),
    ],
)  # fmt: skip
def test_words_for_splits(name, split):
    assert split_in(name) == split


def test_the_root_of_an_export_is_no_class():
    if not CASE.exists():
        pytest.skip(f"not here: {CASE}")
    for split, truth in json.loads((CASE / "truth.json").read_text())["splits"].items():
        found = read_annotations(CASE, split=split)
        dense = found.labels.to_dense()
        assert [Path(image).name for image in found.images] == truth["images"]
        assert found.classes == truth["classes"]
        assert [int((dense == value).sum()) for value in (1, 0, -1)] == [
            truth[name] for name in ("positives", "negatives", "unknown")
        ]
        for image, positives in truth["first"].items():
            assert [found.classes[c] for c in np.flatnonzero(dense[truth["images"].index(image)])] == positives
        assert "category 0 'object' has no annotations and is the supercategory of the others: left out" in found.notes


def test_training_and_whoever_reads_by_its_classes_has_one_order_and_says_what_differs(tmp_path):
    write(tmp_path / "train/labels.json", content("train"))
    write(tmp_path / "validation/labels.json", content("val", ("dog", "Cat", "fish")))
    for folder in ("train/data/train_0.jpg", "validation/data/val_0.jpg"):
        photo(tmp_path / folder)
    said = []
    data = load_data(TrainConfig(data=str(tmp_path)), said.append)
    assert data.val.classes == data.train.classes == ["cat", "dog", "bird"]
    assert data.val.labels.to_dense().tolist() == [[0, 1, -1], [1, 0, -1], [0, 0, -1]]
    source = tmp_path / "validation/labels.json"
    assert said.count(f"{source} lacks 1 of 3 classes, unknown in its images: 'bird'") == 1
    assert said.count(f"{source} has 1 other classes, left out: 'fish'") == 1
    again = read_split(DataOptions(data=str(tmp_path)), "val", data.train.classes)
    assert again.labels == data.val.labels
    assert inspect(DataOptions(data=str(tmp_path)))[0]["notes"] == said[1:3]
