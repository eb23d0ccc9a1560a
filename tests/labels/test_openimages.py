"""read_openimages: both forms, class lists, malformed rows, folders."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from csl.errors import InputError
from csl.labels import LabelMatrix, read_annotations, read_class_descriptions, read_openimages
from csl.labels.openimages import stream

HEADER = "ImageID,Source,LabelName,Confidence"
ROWS = [
    "000002b66c9c498e,verification,/m/01g317,1",
    "000002b66c9c498e,verification,/m/0zvk5,0",
    "000002b97e5471a0,crowdsource-verification,/m/0zvk5,1",
    "000002b97e5471a0,verification,/m/0zvk5,1",
]
NAMES = "LabelName,DisplayName\n/m/0zvk5,Helmet\n/m/01g317,Person\n/m/0k4j,Car\n/m/0x,Helmet\n"
DESCRIPTIONS = "oidv6-class-descriptions.csv"
TRAINABLE = "oidv6-classes-trainable.txt"
TRAIN = "oidv6-train-annotations-human-imagelabels.csv"


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def official(file, rows=ROWS):
    return write(file, "\n".join([HEADER, *rows]) + "\n")


def photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(file)
    return file


@pytest.fixture
def folder(tmp_path):
    """The official layout: CSVs, descriptions, a list of classes, a picture per split."""
    official(tmp_path / TRAIN)
    official(tmp_path / "validation-annotations-human-imagelabels.csv", ["0001eeaf4aed83f9,verification,/m/0k4j,0"])
    official(tmp_path / "test-annotations-human-imagelabels.csv", ["000026e7ee790996,verification,/m/01g317,1"])
    write(tmp_path / DESCRIPTIONS, NAMES)
    write(tmp_path / TRAINABLE, "/m/0k4j\n/m/0zvk5\n\n/m/01g317\n")
    photo(tmp_path / "train" / "000002b66c9c498e.jpg")
    photo(tmp_path / "validation" / "0001eeaf4aed83f9.jpg")
    return tmp_path


def read_quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_openimages(*args, **options)


def test_the_official_form(folder):
    annotations = read_quietly(folder)
    assert list(annotations.images) == [
        str(folder / "train" / "000002b66c9c498e.jpg"),
        str(folder / "train" / "000002b97e5471a0.jpg"),
    ]
    assert annotations.classes == ["Car", "Helmet", "Person"]
    assert annotations.keys == ["/m/0k4j", "/m/0zvk5", "/m/01g317"]
    assert annotations.labels.to_dense().tolist() == [[-1, 0, 1], [-1, 1, -1]]
    assert annotations.labels.fill == -1
    assert annotations.source == str(folder / TRAIN)
    Image.open(annotations.images[0]).verify()


def test_every_split(folder):
    for path in (folder, folder / TRAIN):
        val = read_quietly(path, split="val")
        assert list(val.images) == [str(folder / "validation" / "0001eeaf4aed83f9.jpg")]
        assert val.labels.to_dense().tolist() == [[0, -1, -1]]
        test = read_quietly(path, split="test")
        assert list(test.images) == [str(folder / "test" / "000026e7ee790996.jpg")]
        assert test.labels.to_dense().tolist() == [[-1, -1, 1]]
        assert read_quietly(path, split=None).labels == read_quietly(folder).labels


@pytest.mark.parametrize("place", ["annotations", "labels", "metadata"])
def test_files_in_a_folder_of_their_own(folder, place):
    (folder / place).mkdir()
    (folder / TRAIN).rename(folder / place / "train-annotations-human-imagelabels.csv")
    annotations = read_quietly(folder)
    assert annotations.images[0] == str(folder / "train" / "000002b66c9c498e.jpg")
    assert annotations.classes == ["Car", "Helmet", "Person"]


@pytest.mark.parametrize("place", ["train", "images/train", "images", "."])
def test_where_the_images_are(folder, place):
    (folder / "train" / "000002b66c9c498e.jpg").unlink()
    image = photo(folder / place / "000002b97e5471a0.jpg")  # the first listed image is missing
    assert read_quietly(folder).images[1] == str(image)
    elsewhere = folder / "elsewhere"
    assert read_quietly(folder, images=elsewhere).images[1] == str(elsewhere / "train" / image.name)
    photo(elsewhere / image.name)
    assert read_quietly(folder, images=str(elsewhere)).images[1] == str(elsewhere / image.name)


def test_which_classes(folder):
    given_file = write(folder / "mine.txt", "/m/01g317\n/m/0zvk5")
    assert read_quietly(folder, classes_file=given_file).keys == ["/m/01g317", "/m/0zvk5"]
    one = read_quietly(folder, classes=["/m/01g317"])  # the others are described, so left out on purpose
    assert one.labels.to_dense().tolist() == [[1]]
    assert one.skipped == 1
    (folder / DESCRIPTIONS).rename(folder / "away")  # the trainable ones are known all the same
    with pytest.warns(UserWarning, match="classes are shown by their MIDs"):
        known = read_openimages(folder, classes=["/m/01g317"], strict_labels=True)
    assert known.labels.to_dense().tolist() == [[1]]
    (folder / "away").rename(folder / DESCRIPTIONS)
    (folder / TRAINABLE).unlink()
    found = read_quietly(folder)
    assert found.keys == ["/m/01g317", "/m/0zvk5"]
    assert found.labels.to_dense().tolist() == [[1, 0], [-1, 1]]
    test = read_quietly(folder, split="test")
    assert test.keys == found.keys
    assert test.labels.to_dense().tolist() == [[1, -1]]
    (folder / TRAIN).unlink()
    assert read_quietly(folder, split="test").keys == ["/m/01g317"]


def test_without_descriptions_mids_are_shown(folder):
    (folder / DESCRIPTIONS).unlink()
    with pytest.warns(UserWarning, match=f"no {DESCRIPTIONS} beside it, classes are shown by their MIDs"):
        annotations = read_openimages(folder)
    assert annotations.classes == annotations.keys


MALFORMED = {
    "confidence": ("a,v,/m/0k4j,0.7", "confidences neither 0 nor 1", "confidence '0.7', expected 0 or 1"),
    "no confidence": ("a,v,/m/0k4j,", "confidences neither 0 nor 1", "confidence '', expected"),
    "word": ("a,v,/m/0k4j,yes", "confidences neither 0 nor 1", "confidence 'yes'"),
    "class": ("a,v,/m/nowhere,1", "of an unknown class", "class '/m/nowhere', expected a MID of the class list"),
    "no image": (",v,/m/0k4j,1", "without an image", "image '', expected an ID"),
    "cells": ("a,v,/m/0k4j", "rows with another number of cells", "3 cells, expected 4"),
    "more cells": ("a,v,/m/0k4j,1,1", "rows with another number of cells", "5 cells, expected 4"),
    "both": (
        "000002b66c9c498e,v,/m/0zvk5,1",
        r"\(image, class\) pairs both positive and negative",
        r"image '000002b66c9c498e' is both positive and negative for Helmet \(/m/0zvk5\), expected one",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_rows_are_counted_or_stop_the_reading(folder, case):
    row, kind, found = MALFORMED[case]
    official(folder / TRAIN, [*ROWS[:2], "", row, *ROWS[2:]])
    with pytest.warns(UserWarning, match=rf"{TRAIN}: 1 labels left out \(1 {kind}\): line 5: {found}") as caught:
        annotations = read_openimages(folder)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    expected = [[-1, 0, 1], [-1, 1, -1]] if case != "both" else [[-1, -1, 1], [-1, 1, -1]]
    assert annotations.labels.to_dense().tolist() == expected
    with pytest.raises(InputError, match=rf"{TRAIN}, line 5: {found}"):
        read_openimages(folder, strict_labels=True)
    assert read_annotations(folder, split="test", strict_labels=True).labels.shape == (1, 3)


def test_many_malformed_rows(folder):
    rows = ["a,v,/m/0k4j", "a,v,/m/0k4j,5", "a,v,/m/nowhere,1"] * 4 + ROWS
    official(folder / TRAIN, rows)
    with pytest.warns(UserWarning, match="labels left out") as caught:
        annotations = read_openimages(folder)
    message = str(caught[0].message)
    assert "12 labels left out (4 rows with another number of cells, 4 confidences" in message
    assert [f"line {line}:" in message for line in (2, 3, 4, 5, 6, 7)] == [True] * 5 + [False]
    assert annotations.skipped == 1  # image a


def test_an_image_whose_only_labels_contradict_is_left_out(folder):
    official(folder / TRAIN, [*ROWS, "a,v,/m/0k4j,1", "b,v,/m/0k4j,1", "a,v,/m/0k4j,0"])
    with pytest.warns(UserWarning, match="line 8: image 'a' is both positive and negative for Car"):
        annotations = read_openimages(folder)
    assert [image[-5:] for image in annotations.images][2:] == ["b.jpg"]
    assert annotations.skipped == 1


ERRORS = {
    "no labels": (TRAIN, f"{HEADER}\n", "found no label of 3 classes, expected at least one"),
    "all malformed": (TRAIN, f"{HEADER}\na,v,/m/0k4j,7\n", "no label of 3 classes.*1 confidences neither .*line 2"),
    "header": (TRAIN, "image,label\na,b\n", "line 1: found 'image,label', expected ImageID, LabelName, Confidence"),
    "empty": (TRAIN, "", "line 1: found '', expected ImageID, LabelName, Confidence"),
    "not UTF-8": (TRAIN, f"{HEADER}\n\xe9,v,/m/0k4j,1\n".encode("latin-1"), "cannot be read as a CSV in UTF-8"),
    "class twice": (TRAINABLE, "/m/0k4j\n/m/1\n/m/0k4j\n", "lines 1 and 3: both are '/m/0k4j'"),
    "no class": (TRAINABLE, "\n", "found no class, expected one MID a line"),
    "classes in latin-1": (TRAINABLE, b"\xe9", "not UTF-8 text at byte 0"),
    "no name": (DESCRIPTIONS, "LabelName,DisplayName\n/m/1\n", "line 2: found '/m/1', expected LabelName,DisplayName"),
    "described twice": (DESCRIPTIONS, "/m/1,a\n/m/1,b\n", "lines 1 and 2: both describe '/m/1'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file_and_the_line(folder, case):
    name, content, message = ERRORS[case]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_openimages(folder)
    assert str(error.value).startswith(str(folder / name))
    assert "\n" not in str(error.value)


def test_errors_where_there_is_no_file(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        read_openimages(folder / "nowhere")
    with pytest.raises(InputError, match=r"mine.txt: cannot be read \(No such file"):
        read_openimages(folder, classes_file=folder / "mine.txt")
    with pytest.raises(InputError, match="split: found 'both'"):
        read_openimages(folder, split="both")
    (folder / "test-annotations-human-imagelabels.csv").unlink()
    with pytest.raises(InputError, match=r"no OpenImages labels of the test split, expected data.csv or oidv6-test-"):
        read_openimages(folder, split="test")
    with pytest.raises(InputError, match=r"labels of the train split, and no oidv6-test-"):
        read_openimages(folder / TRAIN, split="test")
    with pytest.raises(InputError, match=r"other.csv, line 1: found \['a', 'b'\], expected filepath, label"):
        read_openimages(write(folder / "other.csv", "a,b\n1,2\n"))


def test_a_byte_order_mark_and_windows_lines(folder):
    (folder / TRAIN).write_bytes(b"\xef\xbb\xbf" + "\r\n".join([HEADER, *ROWS]).encode())
    assert read_quietly(folder).labels.to_dense().tolist() == [[-1, 0, 1], [-1, 1, -1]]


CSL = """filepath,label,label_neg,split_name
train/a.jpg,"['/m/0k4j', '/m/0zvk5']","['/m/01g317']",train
train/b.jpg,['/m/01g317'],[],train
test/c.jpg,[],"['/m/0k4j', '/m/01g317']",val
"""


def check_csl(folder, negatives=True):
    train, val = read_quietly(folder), read_quietly(folder, split="val")
    assert list(train.images) == [str(folder / "train" / "a.jpg"), str(folder / "train" / "b.jpg")]
    assert train.labels.to_dense().tolist() == [[1, 1, 0 if negatives else -1], [-1, -1, 1]]
    assert val.labels.to_dense().tolist() == [[0, -1, 0]]
    assert train.classes == val.classes == ["Car", "Helmet", "Person"]


@pytest.fixture
def csl_folder(tmp_path):
    write(tmp_path / DESCRIPTIONS, NAMES)
    write(tmp_path / TRAINABLE, "/m/0k4j\n/m/0zvk5\n/m/01g317\n")
    write(tmp_path / "data.csv", CSL)
    return tmp_path


def test_the_form_of_csl(csl_folder):
    check_csl(csl_folder)
    photo(csl_folder / "images" / "train" / "b.jpg")
    assert read_quietly(csl_folder).images[0] == str(csl_folder / "images" / "train" / "a.jpg")
    assert read_quietly(csl_folder / "data.csv", images="x").images[0] == "x/train/a.jpg"
    (csl_folder / TRAINABLE).unlink()
    assert read_quietly(csl_folder, split="val").keys == ["/m/01g317", "/m/0k4j", "/m/0zvk5"]  # of the training rows


@pytest.mark.parametrize(
    "header", ["path,positive,negative,subset", "path,positive,negative,more,subset", "", "split_name,filepath"]
)
def test_columns_by_name_or_position(csl_folder, header):
    lines = CSL.splitlines()[1:]
    if "more" in header:
        lines = [line.replace(",train", ",7,train").replace(",val", ",7,val") for line in lines]
        lines = [line[:5].replace(",7", "") + line[5:] for line in lines]
    if header == "split_name,filepath":
        header = "split_name,filepath,label_neg,label"
        lines = [
            "train,train/a.jpg,\"['/m/01g317']\",\"['/m/0k4j', '/m/0zvk5']\"",
            "train,train/b.jpg,,['/m/01g317']",
            "val,test/c.jpg,\"['/m/0k4j', '/m/01g317']\",nan",
        ]
    write(csl_folder / "data.csv", "\n".join([header, *lines] if header else lines) + "\n")
    check_csl(csl_folder)


def test_three_columns_are_positives_only(csl_folder):
    text = "filepath,label,split_name\na.jpg,\"['/m/0k4j', '/m/0zvk5']\",train\nb.jpg,['/m/01g317'],train\n"
    for content in (text, text.replace("filepath,label,split_name", "a,b,c"), text.partition("\n")[2]):
        write(csl_folder / "data.csv", content)
        assert read_quietly(csl_folder).labels.to_dense().tolist() == [[1, 1, -1], [-1, -1, 1]]


CSL_MALFORMED = {
    "not a list": ("x.jpg,/m/0k4j,[],train", r"1 cells that are no list\): line 5: '/m/0k4j', expected a list"),
    "class": ("x.jpg,['/m/no'],['/m/0k4j'],train", r"1 of an unknown class\): line 5: class '/m/no', expected"),
    "both": ("train/b.jpg,[],['/m/01g317'],train", "line 5: image 'train/b.jpg' is both positive and negative for Per"),
    "split": ("x.jpg,[],['/m/01g317'],later", r"1 rows of no split\): line 5: split 'later', expected a split"),
    "cells": ("x.jpg,[],['/m/01g317']", "line 5: 3 cells, expected 4"),
}


@pytest.mark.parametrize("case", CSL_MALFORMED)
def test_malformed_rows_of_csl(csl_folder, case):
    row, found = CSL_MALFORMED[case]
    write(csl_folder / "data.csv", CSL + row + "\n\n")
    with pytest.warns(UserWarning, match=f"data.csv: 1 labels left out .*{found}"):
        annotations = read_openimages(csl_folder)
    assert annotations.labels[0].tolist() == [1, 1, 0]
    with pytest.raises(InputError, match=r"data.csv, line 5: "):
        read_openimages(csl_folder, strict_labels=True)


def test_a_split_that_is_not_there(csl_folder):
    with pytest.raises(InputError, match=r"data.csv: no rows of the test split, found train, val"):
        read_openimages(csl_folder, split="test")


def test_it_is_recognised(folder):
    options = {"attributes": None, "ignore_columns": (), "keep_unlabelled_images": False}
    for path in (folder, folder / "test-annotations-human-imagelabels.csv"):
        assert len(read_annotations(path, split="test", **options).keys) == 3
    write(folder / "data.csv", CSL)
    assert read_annotations(folder / "data.csv").source == read_annotations(folder).source == str(folder / "data.csv")


BOXES = HEADER + ",XMin,XMax,YMin,YMax\n"


def test_boxes_are_combined_with_the_labels_of_a_folder_or_read_alone_where_they_are_named(folder):
    boxes = write(folder / "train-annotations-bbox.csv", BOXES + "b,xclick,/m/0k4j,1,0,1,0,1\n" * 2
                  + "000002b66c9c498e,xclick,/m/0k4j,1,0,1,0,1\n000002b66c9c498e,xclick,/m/0zvk5,1,0,1,0,1\n")  # fmt: skip
    with pytest.warns(UserWarning, match=f"{TRAIN}: 1 labels left out .1 .image, class. pairs both .* line 3: image"):
        both = read_openimages(folder)
    assert [Path(image).stem for image in both.images] == ["b", "000002b66c9c498e", "000002b97e5471a0"]
    assert both.labels.to_dense().tolist() == [[1, -1, -1], [1, -1, 1], [-1, 1, -1]]
    assert both.notes == (f"{boxes}: the classes of an image's boxes are positive; that there is no box says nothing",)
    alone = read_annotations(boxes)
    assert alone.labels.to_dense().tolist() == [[1, -1, -1], [1, 1, -1]]
    assert len(read_quietly(folder / TRAIN)) == 2
    with pytest.raises(InputError, match="labels of the train split, and no oidv6-validation-annotations-bbox.csv"):
        read_annotations(boxes, split="val")


def test_malformed_boxes_are_counted_in_their_own_file(folder):
    boxes = write(folder / "train-annotations-bbox.csv", BOXES + "b,xclick,/m/0k4j,7,0,1,0,1\n")
    with pytest.warns(UserWarning, match="train-annotations-bbox.csv: 1 labels left out .* line 2: confidence '7'"):
        assert len(read_openimages(folder)) == 2
    with pytest.raises(InputError, match=f"{boxes}, line 2: confidence '7'"):
        read_openimages(folder, strict_labels=True)


@pytest.mark.filterwarnings("ignore:.*classes are shown by their MIDs")
def test_a_split_of_boxes_and_a_split_of_boxes_and_labels():
    folder = Path(__file__).parents[3] / "shared" / "cases" / "openimages_boxes"
    if not folder.exists():
        pytest.skip(f"not here: {folder}")
    assert read_annotations(folder, split="train").labels.to_dense().tolist() == [[1]]
    assert read_annotations(folder, split="val").labels.to_dense().tolist() == [[1], [0]]
    named = read_annotations(folder / "validation-annotations-bbox.csv", split="val")
    assert named.labels.to_dense().tolist() == [[1]]
    assert named.source.endswith("validation-annotations-bbox.csv")


def test_the_folders_of_fiftyone(tmp_path):
    for split, rows in (("train", ROWS), ("validation", ["0001eeaf4aed83f9,verification,/m/0zvk5,0"])):
        official(tmp_path / split / "labels" / "classifications.csv", rows)
        write(tmp_path / split / "metadata" / "classes.csv", NAMES)
    image = photo(tmp_path / "train" / "data" / "000002b97e5471a0.jpg")
    train, val = (read_quietly(tmp_path, split=split) for split in ("train", "val"))
    assert read_annotations(tmp_path).classes == train.classes == val.classes == ["Person", "Helmet"]
    assert list(train.images) == [str(image)]
    assert train.labels.to_dense().tolist() == [[-1, 1]]
    assert train.notes == (f"1 images are left out: {image.parent} has no photo of them",)
    assert list(val.images) == [str(tmp_path / "validation/data/0001eeaf4aed83f9.jpg")]
    assert val.labels.to_dense().tolist() == [[-1, 0]]
    boxes = write(tmp_path / "validation" / "labels" / "detections.csv", BOXES + "b,xclick,/m/01g317,1,0,1,0,1\n")
    assert read_quietly(tmp_path, split="val").labels.to_dense().tolist() == [[1, -1], [-1, 0]]
    assert read_quietly(boxes, split="val").labels.to_dense().tolist() == [[1]]
    named = read_quietly(tmp_path / "validation" / "labels" / "classifications.csv", split="val")
    assert (named.labels, named.classes) == (val.labels, val.classes)
    (tmp_path / "validation" / "labels" / "classifications.csv").unlink()
    assert read_quietly(tmp_path, split="val").classes == train.classes


def test_attributes_in_a_file_of_the_same_name_are_attributes(tmp_path):
    write(tmp_path / "data.csv", "filename,neck,split\na.jpg,2,train\n")
    assert list(read_annotations(tmp_path).groups) == ["neck"]


NAME = st.text(st.sampled_from("0123456789abcdefé-"), min_size=1, max_size=18)
LABELS = st.dictionaries(
    NAME, st.dictionaries(st.integers(0, 6), st.integers(0, 1), min_size=1), min_size=1, max_size=9
)
KEYS = [f"/m/0{number}" for number in range(7)]
ANY_FOLDER = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def matrix_of(labels):
    entries = [(row, column, value) for row, found in enumerate(labels.values()) for column, value in found.items()]
    return LabelMatrix.from_entries(*np.array(entries).T, (len(labels), len(KEYS)))


@ANY_FOLDER
@given(LABELS, st.randoms(use_true_random=False), st.integers(64, 400))
def test_written_official_labels_read_back(tmp_path, monkeypatch, labels, random, block):
    rows = [f"{name},v,{KEYS[column]},{value}" for name, found in labels.items() for column, value in found.items()]
    random.shuffle(rows)
    file = official(tmp_path / TRAIN, rows)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(stream, "_BLOCK", block)  # bytes at a time: lines of an image in several blocks
        annotations = read_openimages(file, classes=KEYS, images=tmp_path)
    order = list(dict.fromkeys(row.partition(",")[0] for row in rows))
    names = [image.rpartition("/")[2].removesuffix(".jpg") for image in annotations.images]
    assert names == order
    assert annotations.labels == matrix_of({name: labels[name] for name in order})


@ANY_FOLDER
@given(LABELS, st.integers(128, 400))
def test_written_csl_labels_read_back(tmp_path, monkeypatch, labels, block):
    lines = [
        f'{name},"{[KEYS[c] for c in found if found[c]]}","{[KEYS[c] for c in found if not found[c]]}",train'
        for name, found in labels.items()
    ]
    file = write(tmp_path / "data.csv", "\n".join(["filepath,label,label_neg,split_name", *lines]))
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(stream, "_BLOCK", block)
        annotations = read_openimages(file, classes=KEYS, images="x")
    assert [image.removeprefix("x/") for image in annotations.images] == list(labels)
    assert annotations.labels == matrix_of(labels)


@ANY_FOLDER
@given(
    st.lists(st.sampled_from(["good", "bad", "short", "blank", "long"]), min_size=1, max_size=40), st.integers(64, 200)
)
@example(kinds=["good", "good", "bad", "short"], block=64)
def test_line_numbers_across_blocks(tmp_path, monkeypatch, kinds, block):
    text = {"good": "a,v,/m/00,1", "bad": "a,v,/m/00,2", "short": "a,v", "blank": "", "long": "a,v,/m/00,1,1,1"}
    file = official(tmp_path / TRAIN, [*(text[kind] for kind in kinds), "z,v,/m/00,1"])
    wrong = [line for line, kind in enumerate(kinds, start=2) if kind in ("bad", "short", "long")]
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(stream, "_BLOCK", block)
        read_openimages(file, classes=KEYS)
        if wrong:
            with pytest.raises(InputError, match=f"line {wrong[0]}:"):
                read_openimages(file, classes=KEYS, strict_labels=True)
    messages = [str(one.message) for one in caught if "left out" in str(one.message)]
    assert len(messages) == bool(wrong)
    for line in wrong[:5]:
        assert f"line {line}: " in messages[0]


def test_real_descriptions(real, tmp_path):
    names = read_class_descriptions(real(DESCRIPTIONS))
    assert len(names) == 19_994
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    assert len(repeated) == 12
    keys = [key for key, name in names.items() if name == repeated[0]]
    (tmp_path / DESCRIPTIONS).symlink_to(real(DESCRIPTIONS))
    rows = [f"a,v,{keys[0]},1", f"b,v,{keys[1]},1", f"c,v,{keys[1]},1", f"c,v,{keys[1]},0"]
    official(tmp_path / TRAIN, rows)
    with pytest.warns(UserWarning, match=rf"for {repeated[0]} \({keys[1]}\)"):
        annotations = read_openimages(tmp_path)
    assert annotations.classes == [repeated[0]] * 2
    assert annotations.keys == sorted(keys)
    assert sorted(annotations.labels.to_dense().tolist()) == [[-1, 1], [1, -1]]
