"""read_coco: layouts, order, errors, real files."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csl.errors import InputError
from csl.labels import NEGATIVE, read_coco

CONTENT = {
    "images": [
        {"id": 7, "file_name": "c.jpg"},
        {"id": 3, "file_name": "a.jpg"},
        {"id": 5, "file_name": "b.jpg"},
    ],
    "annotations": [
        {"image_id": 5, "category_id": 90},
        {"image_id": 7, "category_id": 1},
        {"image_id": 7, "category_id": 18, "iscrowd": 1},
        {"image_id": 7, "category_id": 1},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
}


def write(file, content=CONTENT):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(file)
    return file


def changed(section, position, **fields):
    """CONTENT with the fields of one entry changed; None removes a field."""
    content = json.loads(json.dumps(CONTENT))
    entry = content[section][position]
    entry.update(fields)
    content[section][position] = {key: value for key, value in entry.items() if value is not None}
    return content


def check(annotations, folder):
    assert list(annotations.images) == [str(folder / "c.jpg"), str(folder / "b.jpg")]
    assert list(annotations.classes) == ["toothbrush", "person", "dog"]
    assert annotations.labels.to_dense().tolist() == [[0, 1, 1], [1, 0, 0]]
    assert annotations.labels.fill == NEGATIVE
    assert annotations.skipped == 1
    assert annotations.groups is None


@pytest.mark.parametrize("year", ["2014", "2017", ""])
@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_folder(tmp_path, year, split):
    file = write(tmp_path / "annotations" / f"instances_{split}{year}.json")
    check(read_coco(tmp_path, split=split), tmp_path / f"{split}{year}")  # where the images should be
    assert read_coco(tmp_path, split=split).source == str(file)
    photo(tmp_path / f"{split}{year}" / "c.jpg")
    check(read_coco(file, split=split), tmp_path / f"{split}{year}")
    check(read_coco(str(tmp_path), split=split), tmp_path / f"{split}{year}")


@pytest.mark.parametrize("folder", [".", "images", "val"])
def test_plain_files(tmp_path, folder):
    write(tmp_path / "train.json", "not read")
    file = write(tmp_path / "val.json")
    photo(tmp_path / folder / "b.jpg")  # the first listed image, c.jpg, is missing
    check(read_coco(tmp_path, split="val"), tmp_path / folder)
    check(read_coco(tmp_path, split="validation"), tmp_path / folder)
    check(read_coco(file), tmp_path / folder)


def test_file_names_with_folders(tmp_path):
    write(tmp_path / "train.json", changed("images", 0, file_name="val2017/c.jpg"))
    photo(tmp_path / "images" / "val2017" / "c.jpg")
    assert read_coco(tmp_path).images[0] == str(tmp_path / "images" / "val2017" / "c.jpg")


def test_images_overrides(tmp_path):
    write(tmp_path / "train.json")
    photo(tmp_path / "c.jpg")
    check(read_coco(tmp_path, images=tmp_path / "elsewhere"), tmp_path / "elsewhere")
    check(read_coco(tmp_path, split=None, images=str(tmp_path / "elsewhere")), tmp_path / "elsewhere")


def test_unlabelled_images_are_kept_on_request(tmp_path):
    write(tmp_path / "train.json")
    annotations = read_coco(tmp_path, keep_unlabelled_images=True)
    assert [image[-5:] for image in annotations.images] == ["c.jpg", "a.jpg", "b.jpg"]
    assert annotations.labels.to_dense().tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert annotations.skipped == 0
    assert annotations.notes[:1] == ("1 images without annotations are kept: negative in every class",)


def test_ids_may_be_strings(tmp_path):
    content = changed("images", 0, id="seven")
    for annotation in content["annotations"][1:]:
        annotation["image_id"] = "seven"
    write(tmp_path / "train.json", content)
    check(read_coco(tmp_path), tmp_path)


def test_a_number_and_its_digits_are_one_id(tmp_path):
    content = changed("annotations", 0, image_id="5", category_id="90", segmentation={"counts": "a", "size": [1, 1]})
    write(tmp_path / "train.json", content)
    check(read_coco(tmp_path), tmp_path)
    content["images"][1]["id"] = "5"  # beside 5: which one is meant?
    write(tmp_path / "train.json", content)
    assert read_coco(tmp_path).labels.to_dense().tolist() == [[0, 1, 1], [1, 0, 0]]
    assert read_coco(tmp_path).images[1] == str(tmp_path / "a.jpg")


def with_above(*supercategories, names=("toothbrush", "person", "dog")):
    """CONTENT with these names and supercategories, and a first category `root`."""
    content = json.loads(json.dumps(CONTENT))
    for category, name, above in zip(content["categories"], names, supercategories[1:], strict=True):
        category.update(name=name, supercategory=above)
    content["categories"].insert(0, {"id": 0, "name": "root", "supercategory": supercategories[0]})
    return content


def test_a_root_without_annotations_is_left_out(tmp_path):
    write(tmp_path / "train.json", with_above("none", "root", "root", "root"))
    annotations = read_coco(tmp_path)
    check(annotations, tmp_path)
    assert annotations.notes[:1] == (
        "category 0 'root' has no annotations and is the supercategory of the others: left out",
    )


@pytest.mark.parametrize(
    "above",
    [
        ("none", "root", "root", "toy"),
        ("thing", "root", "root", "root"),
        ("none", *"abc"),
        ("none", "none", "dog", "dog"),
    ],
)
def test_what_is_no_root_is_a_class(tmp_path, above):
    write(tmp_path / "train.json", with_above(*above))
    assert read_coco(tmp_path).classes == ["root", "toothbrush", "person", "dog"]
    content = with_above("none", "root", "root", "root")
    content["annotations"].append({"image_id": 3, "category_id": 0})
    write(tmp_path / "train.json", content)
    assert read_coco(tmp_path).classes == ["root", "toothbrush", "person", "dog"]


def test_a_file_without_categories(tmp_path):
    write(tmp_path / "train.json", {**CONTENT, "categories": [], "annotations": []})
    assert read_coco(tmp_path, keep_unlabelled_images=True).labels.shape == (3, 0)


def test_categories_of_one_name_are_one_class_and_it_is_said(tmp_path):
    write(tmp_path / "train.json", with_above(None, "x", None, "y", names=("dog", "person", "dog ")))
    with pytest.raises(InputError, match=r"categories 90, 18 are all called 'dog', of the supercategories 'x', 'y'"):
        read_coco(tmp_path)
    write(tmp_path / "train.json", with_above(None, "x", None, "dog", names=("dog", "person", "dog ")))
    annotations = read_coco(tmp_path)
    assert annotations.classes == ["root", "dog", "person"]
    assert annotations.labels.to_dense().tolist() == [[0, 1, 1], [0, 1, 0]]
    assert annotations.notes[:1] == ("categories of one name are one class: 'dog' (90, 18)",)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(CONTENT), encoding="utf-8-sig")
    check(read_coco(tmp_path), tmp_path)


ERRORS = {
    "broken": ('{"images": [\n {"id": 1},,', "line 2: not valid JSON"),
    "empty": ("", "line 1: not valid JSON"),
    "list": ("[]", "found a JSON list, expected an object with 'images', 'annotations', 'categories'"),
    "no annotations": (
        {"images": [], "categories": []},
        "no list under the key 'annotations', found the keys 'images'",
    ),
    "not a list": ({**CONTENT, "categories": {}}, "no list under the key 'categories', found another type"),
    "no file name": (changed("images", 1, file_name=None), r"images\[1\] \(id 3\) has no key 'file_name'"),
    "empty file name": (changed("images", 1, file_name=""), r"images\[1\] has file_name ''"),
    "no image id": (changed("images", 1, id=None), r"images\[1\] \(id None\) has no key 'id'"),
    "no name": (changed("categories", 2, name=None), r"categories\[2\] \(id 18\) has no key 'name'"),
    "no reference": (changed("annotations", 2, image_id=None), r"annotations\[2\] .*has no key 'image_id'"),
    "not an object": ({**CONTENT, "annotations": [3]}, r"annotations\[0\] \(a int\) has no key 'image_id'"),
    "image twice": (changed("images", 2, id=7), r"id 7 stands at images\[0\] and images\[2\]"),
    "category twice": (changed("categories", 2, id=90), r"id 90 stands at categories\[0\] and categories\[2\]"),
    "unknown image": (
        changed("annotations", 1, image_id=8, id=12),
        r"annotations\[1\] \(id 12\) has image_id 8, expected an id of 'images'; 1 such annotation$",
    ),
    "unknown category": (changed("annotations", 0, category_id=2), "has category_id 2, expected an id of 'categories'"),
    "text for a number": (changed("annotations", 0, category_id="091"), "has category_id '091'"),
    "list for a number": (changed("annotations", 0, image_id=[5]), r"annotations\[0\] .* has image_id \[5\]"),
    "list as id": (changed("images", 0, id=[5]), r"images\[0\] has id \[5\]"),
    "nothing annotated": ({**CONTENT, "annotations": []}, "found 3 images, none of them annotated"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file_and_the_place(tmp_path, case):
    content, message = ERRORS[case]
    file = write(tmp_path / "train.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_coco(tmp_path)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_errors_where_there_is_no_file(tmp_path):
    with pytest.raises(InputError, match=r"none: no such file or folder"):
        read_coco(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"no COCO file of the val split, .*val.json; found a.txt"):
        read_coco(tmp_path, split="val")
    with pytest.raises(InputError, match="split: found 'both', expected one of train, val, test"):
        read_coco(tmp_path, split="both")


@pytest.mark.parametrize(("split", "images"), [("train", 80), ("val", 79)])
def test_real_coco(real, split, images):
    folder = real("coco_mini.zip")
    annotations = read_coco(folder, split=split)
    assert len(annotations) == images
    assert annotations.skipped == 0
    assert annotations.classes[:2] == ["person", "bicycle"]
    assert len(annotations.classes) == 80
    Image.open(annotations.images[0]).verify()

    content = json.loads((folder / "annotations" / f"instances_{split}2017.json").read_text())
    pairs = {(annotation["image_id"], annotation["category_id"]) for annotation in content["annotations"]}
    assert annotations.labels.counts().positives.sum() == len(pairs)
    categories = [category["id"] for category in content["categories"]]
    per_class = np.bincount([categories.index(category) for _, category in pairs], minlength=80)
    np.testing.assert_array_equal(annotations.labels.counts().positives, per_class)


def test_real_product_photos(real):
    folder = real("fashion80.zip")
    annotations = read_coco(folder, split="val")
    assert annotations.labels.shape == (8000, 80)
    assert annotations.labels.counts().positives.sum() == 45931
    assert annotations.images[0] == str(folder / "images" / "56125.jpg")


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=8), st.booleans(), st.randoms())
def test_written_labels_read_back(labels, keep, random):
    pairs = [(row, column) for row, found in enumerate(labels) for column in found for _ in range(random.randint(1, 2))]
    random.shuffle(pairs)
    content = {
        "images": [{"id": 100 - row, "file_name": f"{row}.jpg"} for row in range(len(labels))],
        "annotations": [
            {"id": number, "image_id": 100 - row, "category_id": 7 * column + 2, "iscrowd": random.randint(0, 1)}
            for number, (row, column) in enumerate(pairs)
        ],
        "categories": [{"id": 7 * column + 2, "name": f"c{column}"} for column in range(5)],
    }
    dense = [[int(column in found) for column in range(5)] for found in labels if keep or found]
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder) / "annotations" / "instances_train2017.json", content)
        if not dense:
            with pytest.raises(InputError):
                read_coco(file, keep_unlabelled_images=keep)
            return
        annotations = read_coco(file, keep_unlabelled_images=keep)
    assert annotations.labels.to_dense().tolist() == dense
    assert [Path(image).name for image in annotations.images] == [
        f"{row}.jpg" for row, found in enumerate(labels) if keep or found
    ]
    assert annotations.skipped == (0 if keep else sum(not found for found in labels))
