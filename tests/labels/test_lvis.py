"""read_lvis: federated labels, layouts, errors."""

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csl.errors import InputError
from csl.labels import LabelMatrix, read_annotations, read_lvis

POLYGON = [[1.5, 2, 3e1, 4.25, 5, 6]]
CONTENT = {
    "images": [
        {
            "id": 7,
            "coco_url": "http://images.cocodataset.org/train2017/000000000007.jpg",
            "neg_category_ids": [3, 2],
            "not_exhaustive_category_ids": [1],
        },
        {
            "id": 4,
            "coco_url": "http://images.cocodataset.org/val2017/000000000004.jpg",
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [2],
        },
        {
            "id": 9,
            "coco_url": "http://images.cocodataset.org/val2017/000000000009.jpg",
            "neg_category_ids": [1],
            "not_exhaustive_category_ids": [],
        },
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": POLYGON},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": POLYGON},
        {"id": 3, "image_id": 9, "category_id": 4, "segmentation": POLYGON},
    ],
    "categories": [
        {"id": 1, "name": "aerosol_can"},
        {"id": 2, "name": "air_conditioner"},
        {"id": 3, "name": "airplane"},
        {"id": 4, "name": "alarm_clock"},
    ],
}


def write(file, content=CONTENT):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def changed(section, position, **fields):
    """CONTENT with the fields of one entry changed; None removes a field."""
    content = copy.deepcopy(CONTENT)
    entry = {**content[section][position], **fields}
    content[section][position] = {key: value for key, value in entry.items() if value is not None}
    return content


@pytest.mark.parametrize("place", [".", "annotations"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_federated_labels(tmp_path, place, split):
    file = write(tmp_path / place / f"lvis_v1_{split}.json")
    for path in (tmp_path, file):
        annotations = read_lvis(path, split=split)
        assert annotations.images == [
            str(tmp_path / "train2017" / "000000000007.jpg"),
            str(tmp_path / "val2017" / "000000000009.jpg"),
        ]
        assert annotations.classes == ["aerosol_can", "air_conditioner", "airplane", "alarm_clock"]
        assert annotations.labels.to_dense().tolist() == [[1, 0, 0, -1], [0, -1, -1, 1]]
        assert annotations.labels.fill == -1
        assert annotations.skipped == 1
        assert annotations.source == str(file)
        assert read_annotations(path, split=split, attributes=None).labels == annotations.labels
    kept = read_annotations(tmp_path, split=split, keep_unlabelled_images=True)
    assert kept.labels.to_dense().tolist()[1] == [-1] * 4
    assert kept.skipped == 0


@pytest.mark.parametrize("place", [".", "annotations", "images", "coco", "annotations/coco"])
def test_where_the_images_are(tmp_path, place):
    write(tmp_path / "annotations" / "lvis_v1_train.json")
    image = tmp_path / place / "val2017" / "000000000009.jpg"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(image)
    assert read_lvis(tmp_path).images[1] == str(image)
    assert read_lvis(tmp_path, images="x").images[1] == "x/val2017/000000000009.jpg"


def test_file_names_where_there_are_no_addresses(tmp_path):
    content = changed("images", 0, coco_url=None, file_name="train2017/a.jpg")
    assert read_lvis(write(tmp_path / "a.json", content), images="x").images[0] == "x/train2017/a.jpg"


def test_lvis_beside_coco(tmp_path):
    write(tmp_path / "annotations" / "lvis_v1_train.json")
    coco = {**CONTENT, "images": [{"id": image["id"], "file_name": "a.jpg"} for image in CONTENT["images"]]}
    file = write(tmp_path / "annotations" / "instances_train2017.json", coco)
    assert read_annotations(tmp_path).labels.fill == -1
    assert read_annotations(file).labels.fill == 0


ERRORS = {
    "broken": ('{"images": [\n {"id": 1},,', "line 2: not valid JSON"),
    "broken behind polygons": (
        '{"annotations": [{"segmentation": [[1,\n2,\n3]]},\n{]',
        "line 4: not valid JSON",
    ),
    "no section": ({**CONTENT, "categories": None}, "no list under the key 'categories', found another type"),
    "no negatives": (
        changed("images", 1, neg_category_ids=None),
        r"images\[1\] \(id 4\) has no key 'neg_category_ids'",
    ),
    "a number": (
        changed("images", 1, neg_category_ids=3),
        r"images\[1\] \(id 4\) has neg_category_ids 3, expected a l",
    ),
    "unknown negative": (
        changed("images", 1, neg_category_ids=[3, 8]),
        r"images\[1\] \(id 4\) has 8 in neg_category_ids, expected an id of 'categories'",
    ),
    "list as negative": (changed("images", 1, neg_category_ids=[[3]]), r"has \[3\] in neg_category_ids"),
    "both": (
        changed("images", 2, neg_category_ids=[1, 4]),
        r"images\[2\] \(id 9\) has category 4 \(alarm_clock\) both drawn and in neg_category_ids, expected one; 1 such",
    ),
    "no address": (changed("images", 1, coco_url=None), r"images\[1\] \(id 4\) has no 'coco_url'"),
    "no id": (changed("images", 1, id=None), r"images\[1\] \(id None\) has no key 'id'"),
    "unknown image": (changed("annotations", 1, image_id=8), r"annotations\[1\] \(id 2\) has image_id 8"),
    "unknown category": (changed("annotations", 1, category_id=8), r"annotations\[1\] \(id 2\) has category_id 8"),
    "nothing": ({**CONTENT, "images": CONTENT["images"][1:2], "annotations": []}, "found 1 images, none of them anno"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file_and_the_place(tmp_path, case):
    content, message = ERRORS[case]
    file = write(tmp_path / "lvis_v1_train.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_lvis(tmp_path)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(
        InputError,
        match=r"no LVIS file of the val split, expected lvis_v1_val.json, annotations/lvis_v1_val.json; found nothing",
    ):
        read_lvis(tmp_path, split="val")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.dictionaries(st.integers(0, 5), st.integers(0, 1), min_size=1), min_size=1, max_size=8))
def test_written_labels_read_back(labels):
    entries = [(row, column, value) for row, found in enumerate(labels) for column, value in found.items()]
    content = {
        "images": [
            {"id": 10 + row, "coco_url": f"a/b/{row}.jpg", "neg_category_ids": [5 - c for c in found if not found[c]]}
            for row, found in enumerate(labels)
        ],
        "annotations": [
            {"id": number, "image_id": 10 + row, "category_id": 5 - column, "segmentation": POLYGON}
            for number, (row, column, value) in enumerate(entries)
            if value
        ],
        "categories": [{"id": 5 - column, "name": f"c{column}"} for column in range(6)],
    }
    with tempfile.TemporaryDirectory() as folder:
        annotations = read_lvis(write(Path(folder) / "a.json", content))
    assert annotations.labels == LabelMatrix.from_entries(*np.array(entries).T, (len(labels), 6))
