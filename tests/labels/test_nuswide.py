"""read_nuswide: the official text files and the tutorial's JSON."""

import copy
import json
import tempfile
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csl.errors import InputError
from csl.labels import LabelMatrix, read_annotations, read_nuswide

CONCEPTS = ["airport", "animal", "sky"]
LABELS = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]])
NAMES = ["actor\\0001_2124494179.jpg", "actor\\0002_174174086.jpg", "zoo\\0003_1.jpg"]
CONTENT = {
    "samples": [
        {"image_name": "51353_b.jpg", "image_labels": ["sky", "animal"]},
        {"image_name": "7_a.jpg", "image_labels": []},
    ],
    "labels": CONCEPTS,
}


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(file)
    return file


def official(folder, labels=LABELS, names=NAMES, split="Train", concepts=CONCEPTS, place="."):
    write(folder / place / "Concepts81.txt", "\n".join(concepts) + "\n")
    write(folder / "ImageList" / f"{split}Imagelist.txt", "\r\n".join(names) + "\r\n")
    for column, name in enumerate(concepts):
        lines = "".join(f"{value}\r\n" for value in labels[:, column])
        write(folder / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{split}.txt", lines)
    return folder


@pytest.mark.parametrize("place", [".", "ConceptsList"])
def test_the_official_form(tmp_path, place):
    official(tmp_path, place=place)
    official(tmp_path, LABELS[2:], ["zoo\\0004_2.jpg"], "Test", place=place)
    train = read_nuswide(tmp_path)
    assert train.images == [
        str(tmp_path / "Flickr" / "actor" / "0001_2124494179.jpg"),
        str(tmp_path / "Flickr" / "zoo" / "0003_1.jpg"),
    ]
    assert train.classes == CONCEPTS
    assert train.labels.to_dense().tolist() == [[0, 1, 1], [1, 0, 1]]
    assert train.labels.fill == 0
    assert train.skipped == 1
    assert train.source == str(tmp_path / "Groundtruth" / "TrainTestLabels")
    assert read_annotations(tmp_path).labels == train.labels
    kept = read_annotations(tmp_path, keep_unlabelled_images=True)
    np.testing.assert_array_equal(kept.labels.to_dense(), LABELS)
    assert kept.skipped == 0
    for split in ("val", "test"):
        assert read_nuswide(tmp_path, split=split).labels.to_dense().tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("place", ["Flickr/zoo", "images/zoo", "Images/zoo", "zoo", "Flickr", "images"])
def test_where_the_official_images_are(tmp_path, place):
    image = photo(official(tmp_path) / place / "0003_1.jpg")
    assert read_nuswide(tmp_path).images[1] == str(image)
    assert read_nuswide(tmp_path, images=tmp_path / "x").images[1] == str(tmp_path / "x" / "zoo" / "0003_1.jpg")
    photo(tmp_path / "x" / "0003_1.jpg")
    assert read_nuswide(tmp_path, images=tmp_path / "x").images[1] == str(tmp_path / "x" / "0003_1.jpg")


TRAIN_SKY = "Groundtruth/TrainTestLabels/Labels_sky_Train.txt"
OFFICIAL_ERRORS = {
    "no list": ("ImageList/TrainImagelist.txt", None, r"cannot be read \(No such file"),
    "empty list": ("ImageList/TrainImagelist.txt", "\n", "line 1: found nothing, expected the name of an image"),
    "blank line": ("ImageList/TrainImagelist.txt", "a\n\nb\n", "line 2: found nothing"),
    "no concepts": ("Concepts81.txt", None, r"cannot be read \(No such file"),
    "concept twice": ("Concepts81.txt", "sky\nsky\n", r"'sky' stands at labels\[0\] and labels\[1\]"),
    "no labels": (TRAIN_SKY, None, r"cannot be read \(No such file"),
    "word": (TRAIN_SKY, "0\nyes\n1\n", "line 2: found 'yes', expected 0 or 1"),
    "unknown": (TRAIN_SKY, "0\n-1\n1\n", "line 2: found '-1', expected 0 or 1"),
    "empty": (TRAIN_SKY, "", "line 1: found '', expected 0 or 1"),
    "short": (TRAIN_SKY, "0\n1\n", "found 2 lines, expected 3, one per image of the list"),
    "binary": (TRAIN_SKY, b"\xe9", "not UTF-8 text at byte 0"),
}


@pytest.mark.parametrize("case", OFFICIAL_ERRORS)
def test_errors_of_the_official_form(tmp_path, case):
    name, content, message = OFFICIAL_ERRORS[case]
    file = official(tmp_path) / name
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_nuswide(tmp_path)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_no_image_with_a_concept(tmp_path):
    with pytest.raises(InputError, match="found 3 images, none of them annotated"):
        read_nuswide(official(tmp_path, np.zeros_like(LABELS)))


@pytest.mark.parametrize("prefix", ["small_", ""])
def test_the_form_of_the_tutorial(tmp_path, prefix):
    write(tmp_path / "train.json", '{"samples": [], "labels": []}')
    file = write(tmp_path / f"{prefix}train.json", CONTENT)
    write(tmp_path / f"{prefix}test.json", {**CONTENT, "samples": CONTENT["samples"][:1]})
    for path in (tmp_path, file):
        train = read_nuswide(path)
        assert train.images == [str(tmp_path / "images" / name) for name in ("51353_b.jpg", "7_a.jpg")]
        assert train.classes == CONCEPTS
        assert train.labels.to_dense().tolist() == [[0, 1, 1], [0, 0, 0]]
        assert train.labels.fill == 0
        assert read_annotations(path).source == str(file)
    for split in ("val", "test"):
        assert len(read_annotations(tmp_path, split=split)) == 1
    photo(tmp_path / "7_a.jpg")
    assert read_nuswide(tmp_path).images[0] == str(tmp_path / "51353_b.jpg")
    assert read_nuswide(tmp_path, images="x").images[0] == "x/51353_b.jpg"


def changed(position, **fields):
    content = copy.deepcopy(CONTENT)
    content["samples"][position].update(fields)
    return content


TUTORIAL_ERRORS = {
    "broken": ('{"samples": [\n1,,', "line 2: not valid JSON"),
    "list": ("[]", "found a JSON list, expected an object with 'samples', 'labels'"),
    "no labels": ({"samples": []}, "no list under the key 'labels', found the keys 'samples'"),
    "nothing": ({"samples": [], "labels": []}, "found no samples, expected at least one"),
    "unknown": (changed(1, image_labels=["cat"]), r"samples\[1\] \(7_a.jpg\) has the label 'cat', expected one of 'la"),
    "number": (changed(1, image_labels=[3]), r"samples\[1\] \(7_a.jpg\) has the label 3"),
    "text": (changed(1, image_labels="sky"), r"samples\[1\] \(7_a.jpg\) has image_labels 'sky', expected a list"),
    "no name": (changed(0, image_name=""), r"samples\[0\] has no 'image_name'"),
    "no object": ({**CONTENT, "samples": [3]}, r"samples\[0\] has no 'image_name'"),
    "label twice": ({**CONTENT, "labels": ["sky", "sky"]}, r"'sky' stands at labels\[0\] and labels\[1\]"),
    "label a number": ({**CONTENT, "labels": [1]}, r"labels\[0\] is 1, expected a name"),
}


@pytest.mark.parametrize("case", TUTORIAL_ERRORS)
def test_errors_of_the_tutorials_form(tmp_path, case):
    content, message = TUTORIAL_ERRORS[case]
    file = write(tmp_path / "small_train.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_nuswide(tmp_path)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"no NUS-WIDE labels of the test split, expected Groundtruth.*found nothing"):
        read_nuswide(tmp_path, split="test")


SETS = arrays.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 1))


@settings(deadline=None, max_examples=30)
@given(SETS)
def test_written_labels_read_back_in_both_forms(dense):
    concepts = [f"c{column}" for column in range(dense.shape[1])]
    names = [f"f\\{row}.jpg" for row in range(len(dense))]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        samples = [
            {"image_name": name, "image_labels": [concepts[c] for c in np.flatnonzero(row)]}
            for name, row in zip(names, dense, strict=True)
        ]
        tutorial = read_nuswide(write(folder / "a.json", {"samples": samples, "labels": concepts}))
        assert tutorial.labels == LabelMatrix.from_dense(dense, fill=0)
        text = read_nuswide(official(folder, dense, names, "Train", concepts), keep_unlabelled_images=True)
        assert text.labels == tutorial.labels
