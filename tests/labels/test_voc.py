"""read_voc: text files and XML, difficult objects, layouts, errors."""

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csl.errors import InputError
from csl.labels import LabelMatrix, read_annotations, read_voc
from csl.labels.voc import CLASSES

CASES = Path(__file__).parents[3] / "shared" / "cases"
OBJECTS = {  # (name, difficult)
    "000005": [("chair", 0), ("chair", 1), ("dog", 1)],
    "000007": [("car", 0)],
    "000009": [],
}
CAR, CHAIR, DOG = (CLASSES.index(name) for name in ("car", "chair", "dog"))


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def xml(file, objects):
    parts = "".join(
        f"  <object>\n    <name>{name}</name>\n    <difficult>{difficult}</difficult>\n    <part><name>head</name></part>\n"
        "    <bndbox><xmin>1</xmin></bndbox>\n  </object>\n"
        for name, difficult in objects
    )
    return write(file, f"<annotation>\n  <filename>{file.stem}.jpg</filename>\n{parts}</annotation>\n")


def voc(folder, objects=OBJECTS, split="train"):
    write(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in objects))
    for name, found in objects.items():
        xml(folder / "Annotations" / f"{name}.xml", found)
    return folder


def class_file(folder, name, lines, split="train"):
    return write(folder / "ImageSets" / "Main" / f"{name}_{split}.txt", "".join(f"{line}\n" for line in lines))


def class_lines(names, labels):
    """Lines as VOC writes them: -1 is negative, 0 difficult."""
    text = {1: " 1", 0: "-1", -1: " 0"}
    return [f"{name} {text[label]}" for name, label in zip(names, labels.tolist(), strict=True)]


def check(annotations, folder):
    assert annotations.images == [str(folder / "JPEGImages" / f"{name}.jpg") for name in OBJECTS]
    assert list(annotations.classes) == list(CLASSES)
    expected = np.zeros((3, 20), np.int8)
    expected[0, CHAIR], expected[0, DOG], expected[1, CAR] = 1, -1, 1
    np.testing.assert_array_equal(annotations.labels.to_dense(), expected)
    assert annotations.labels.fill == 0


@pytest.mark.parametrize("root", ["VOC2007", "VOCdevkit/VOC2012", "."])
def test_objects(tmp_path, root):
    folder = voc(tmp_path / root)
    photo = folder / "JPEGImages" / "000005.jpg"
    photo.parent.mkdir()
    Image.new("RGB", (8, 6)).save(photo)
    for path in (tmp_path, folder, folder / "ImageSets" / "Main" / "train.txt", tmp_path / root.split("/")[0]):
        check(read_voc(path), folder)
        check(read_annotations(path, attributes=None), folder)
    Image.open(read_voc(tmp_path).images[0]).verify()
    assert read_voc(tmp_path, images="x").images[0] == "x/000005.jpg"
    assert read_voc(tmp_path).source == str(folder / "ImageSets" / "Main" / "train.txt")


def test_text_files_agree_with_objects(tmp_path):
    voc(tmp_path)
    dense = read_voc(tmp_path).labels.to_dense()
    for column, name in enumerate(CLASSES):
        class_file(tmp_path, name, class_lines(OBJECTS, dense[:, column]))
    for file in (tmp_path / "Annotations").iterdir():
        file.unlink()
    check(read_voc(tmp_path), tmp_path)


def test_splits(tmp_path):
    voc(tmp_path, {"1": []}, "trainval")
    voc(tmp_path, {"2": [], "3": []}, "test")
    assert [len(read_voc(tmp_path, split=split)) for split in (None, "train", "val", "test")] == [1, 1, 2, 2]
    voc(tmp_path, {"4": [], "5": [], "6": []}, "train")
    voc(tmp_path, {"7": [], "8": [], "9": [], "10": []}, "val")
    assert [len(read_voc(tmp_path, split=split)) for split in (None, "train", "val", "test")] == [3, 3, 4, 2]


def test_other_classes(tmp_path):
    voc(tmp_path, {"1": [("zebra", 0)]}, "train")
    voc(tmp_path, {"2": [("apple", 0), ("car", 1)]}, "val")
    for split, labels in (("train", [0, 0, 1]), ("val", [1, -1, 0])):
        annotations = read_voc(tmp_path, split=split)
        assert annotations.classes == ["apple", "car", "zebra"]
        assert annotations.labels.to_dense().tolist() == [labels]


BOMB = '<!DOCTYPE a [<!ENTITY b "ha">]>\n<annotation><object><name>&b;</name></object></annotation>'
XML = "Annotations/000007.xml"
LIST = "ImageSets/Main/train.txt"
DOG_FILE = "ImageSets/Main/dog_train.txt"
ERRORS = {
    "entities": (XML, "<?xml version='1.0'?>\n" + BOMB, "line 2: found a document type"),
    "wide entities": (XML, BOMB.encode("utf-16"), "line 1: found a document type"),
    "undeclared entity": (XML, "<annotation>\n&b;</annotation>", "line 2: not valid XML: undefined entity"),
    "not closed": (XML, "<annotation>\n<object>\n", "line 3: not valid XML: no element found"),
    "empty": (XML, "", "not valid XML: no element found"),
    "no name": (XML, "<annotation><object/></annotation>", "object 1: it has no name"),
    "no xml": (XML, None, "no such file, expected it for '000007' of .*train.txt"),
    "no image": (LIST, "\n", "found no image, expected one per line"),
    "climbs": (LIST, "000005\n\n../000007\n", "line 3: found '../000007', expected the plain name of an image"),
    "twice": (LIST, "000005\n000005\n", "line 2: found '000005' for the second time"),
    "binary": (LIST, b"\xe9", "not UTF-8 text at byte 0"),
    "value": (DOG_FILE, "000005 1\n000007 2\n", "line 2: found '000007 2', expected an image and 1, 0 or -1"),
    "no value": (DOG_FILE, "000005 1\n000007\n", "line 2: found '000007', expected an image and 1, 0 or -1"),
    "unlisted": (DOG_FILE, "000005 1\n8 1\n", "line 2: found '8' not in the list of images"),
    "repeated": (DOG_FILE, "000005 1\n000005 1\n", "line 2: found '000005' for the second time"),
    "missing": (DOG_FILE, "000005 1\n000009 1\n", "no line for '000007', expected one per image of the list"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file_and_the_line(tmp_path, case):
    name, content, message = ERRORS[case]
    file = voc(tmp_path) / name
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_voc(tmp_path)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_folders_without_a_list(tmp_path):
    with pytest.raises(
        InputError, match=r"no Pascal VOC file of the train split, expected ImageSets/Main/train.txt.*found nothing"
    ):
        read_voc(tmp_path)
    voc(tmp_path / "VOC2007")
    with pytest.raises(InputError, match=r"no Pascal VOC file of the val split, expected ImageSets/Main/val.txt"):
        read_voc(tmp_path, split="val")
    voc(tmp_path / "VOC2012")
    with pytest.raises(InputError, match=r"found VOC2007, VOC2012, expected the path of the one to read"):
        read_voc(tmp_path)


def photos(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name)
    return [str(folder / name) for name in names]


def test_photos_are_what_the_xml_says_or_what_is_there(tmp_path):
    files = photos(tmp_path / "JPEGImages", "a.png", "my photo.JPG", "000001.jpg", "IMG_7.png")
    photos(tmp_path / "images", "a.jpg")  # not the one that the XML names
    for name, filename in (("a", "a.png"), ("my photo", "my photo.jpg"), ("000001", "x.png"), ("7", "IMG_7.png")):
        write(
            tmp_path / "Annotations" / f"{name}.xml",
            f"<annotation><filename>{filename}</filename><object><name>dog</name></object></annotation>",
        )
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\nmy photo\n./JPEGImages/000001.jpg\n7\n")
    assert list(map(os.path.normpath, read_annotations(tmp_path).images)) == files
    write(tmp_path / "ImageSets" / "Main" / "dog_train.txt", "a 1\nmy photo  -1\n000001.jpg 1\n7 1\n")
    with pytest.raises(InputError, match="'JPEGImages/000001', expected one per|000001' not in the list"):
        read_voc(tmp_path)
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\nmy photo\n000001.jpg\n7\n")
    assert read_voc(tmp_path).labels.to_dense().tolist() == [[1], [0], [1], [1]]


def test_odd_values_of_difficult_are_said_once(tmp_path):
    found = {
        "1": [("car", "Unspecified"), ("dog", "True")],
        "2": [("car", "Unspecified"), ("dog", "no")],
        "3": [("dog", "")],
    }
    annotations = read_voc(voc(tmp_path, found))
    assert annotations.labels.to_dense().tolist() == [[1, -1], [1, 1], [0, 1]]
    assert annotations.notes[0] == "<difficult> is 'Unspecified' in 2 objects: these count as not difficult"


@pytest.mark.parametrize("name", ["default", "Train"])
def test_lists_as_cvat_names_them(tmp_path, name):
    voc(tmp_path, split=name)
    write(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\ncar:1,2,3::\n")
    assert len(read_annotations(tmp_path, split="train")) == 3
    with pytest.raises(InputError, match="no Pascal VOC file of the val split"):
        read_annotations(tmp_path, split="val")
    voc(tmp_path, {"000011": []}, "Validation")
    assert len(read_annotations(tmp_path, split="val")) == 1


@pytest.mark.parametrize(
    ("xmls", "images"), [("Annotations", "JPEGImages"), ("annotations", "images"), ("VOC2007/Annotations", "images")]
)
def test_without_lists_every_xml_is_for_training(tmp_path, xmls, images):
    root = (tmp_path / xmls).parent
    files = photos(root / images, "a.png", "b.png")
    for file in files:
        xml(tmp_path / xmls / f"{Path(file).stem}.xml", [("zebra", 0)])
    annotations = read_annotations(tmp_path)
    assert annotations.images == files
    assert annotations.labels.to_dense().tolist() == [[1], [1]]
    with pytest.raises(
        InputError, match=r"no images of the val split, as there are no lists \(ImageSets/Main/val.txt\)"
    ):
        read_annotations(tmp_path, split="val")
    write(tmp_path / "labels.csv", "filename,hat\na.png,1\nb.png,0\n")  # a table says more
    assert read_annotations(tmp_path).classes == ["hat"]


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases of the shared folder are not there")
def test_voc_as_labelimg_writes_it(tmp_path):
    shutil.copytree(CASES / "voc_png", tmp_path, dirs_exist_ok=True)
    files = photos(tmp_path / "JPEGImages", "img1.png", "img2.png")
    train, val = (read_annotations(tmp_path, split=split) for split in ("train", "val"))
    assert train.images + val.images == files
    assert train.classes == val.classes == ["dog", "person"]
    assert [part.labels.to_dense().tolist() for part in (train, val)] == [[[1, 0]], [[0, 1]]]
    assert train.notes == val.notes == ()


LABELS = arrays.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.integers(-1, 1))


@settings(deadline=None, max_examples=30)
@given(LABELS)
def test_written_labels_read_back_in_both_forms(dense):
    objects = {
        f"{row:06}": [(CLASSES[column], int(value < 0)) for column, value in enumerate(values) if value]
        for row, values in enumerate(dense)
    }
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        found = read_voc(voc(folder, objects)).labels
        padded = np.pad(dense, [(0, 0), (0, 20 - dense.shape[1])])
        assert found == LabelMatrix.from_dense(padded, fill=0)
        for column in range(dense.shape[1]):
            text = {1: "1", 0: "-1", -1: "0"}
            class_file(
                folder,
                CLASSES[column],
                [f"{n}  {text[v]}" for n, v in zip(objects, dense[:, column].tolist(), strict=False)],
            )
        assert read_voc(folder).labels == LabelMatrix.from_dense(dense, fill=0)
