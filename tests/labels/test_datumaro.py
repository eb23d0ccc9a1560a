"""read_datumaro: labels of any type, names of images, errors."""

import json

import pytest
from PIL import Image

from csl.errors import InputError
from csl.labels import read_annotations

CONTENT = {
    "info": {},
    "categories": {"label": {"labels": [{"name": "cat", "parent": ""}, {"name": "dog"}, {"name": "images"}]}},
    "items": [
        {"id": "a", "annotations": [{"type": "label", "label_id": 1}, {"type": "caption"}], "image": {"path": "a.jpg"}},
        {"id": "b/c", "annotations": [{"type": "bbox", "label_id": 0}, {"type": "mask", "label_id": 2}], "media": {}},
        {"id": "d", "annotations": []},
    ],
}


def write(file, content=CONTENT):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "split", "images"),
    [("train", "train", "images/train"), ("Val", "val", "images/Val"), ("default", None, "images/default"),
     ("training", "train", "images"), ("test", "test", "images")],
)  # fmt: skip
def test_a_folder(tmp_path, name, split, images):
    write(tmp_path / "annotations" / f"{name}.json")
    (tmp_path / images).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / images / "a.jpg")
    found = read_annotations(tmp_path, split=split)
    assert found.classes == ["cat", "dog", "images"]
    assert found.images == [str(tmp_path / images / name) for name in ("a.jpg", "b/c")]
    assert found.labels.to_dense().tolist() == [[0, 1, 0], [1, 0, 1]]
    assert found.skipped == 1
    kept = read_annotations(tmp_path, split=split, keep_unlabelled_images=True)
    assert kept.labels.to_dense().tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert kept.notes == ("1 images without annotations are kept: negative in every class",)


def test_an_image_without_a_path_is_called_as_its_id(tmp_path):
    write(tmp_path / "annotations" / "train.json")
    (tmp_path / "images" / "b").mkdir(parents=True)
    for name in ("a.jpg", "b/c.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / name)
    assert read_annotations(tmp_path).images == [str(tmp_path / "images" / name) for name in ("a.jpg", "b/c.png")]


def changed(label, **more):
    return CONTENT | {"items": [{"id": "a", "annotations": [{"label_id": label}]}], **more}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(3), r"items\[0\] \(id 'a'\) has label_id 3, expected 0 to 2"),
        (changed("cat"), "has label_id 'cat'"),
        (changed(True), "has label_id True"),
        (changed([1]), r"has label_id \[1\]"),
        (changed(None), "found 1 images, none of them annotated"),
        (changed(1, categories={"label": {}}), "no list of labels under 'categories', 'label', 'labels'"),
        (changed(0, categories={"label": {"labels": [{}]}}), r"categories\[0\] \(id 0\) has no key 'name'"),
        (CONTENT | {"items": [{}]}, r"items\[0\] \(id None\) has no key 'id'"),
        (CONTENT | {"items": [{"id": 1, "annotations": 3}]}, "has label_id 3"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path, content, message):
    write(tmp_path / "annotations" / "train.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_annotations(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "annotations" / "train.json"))
