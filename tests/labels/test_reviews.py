"""Answers of people over labels: which count, of which images and classes, in every format, and what is said of them."""

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl import InputError, LabelMatrix, TrainConfig, train
from csl.labels import Annotations, ImagePaths, read_annotations
from csl.labels.options import DataOptions
from csl.labels.read import read_split, read_truth
from csl.labels.reviews import COLUMNS, classes_of, rows_of, with_reviews
from csl.training.data import load_data

START = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def write(file, rows):
    """A file of answers, each a second after the one before it."""
    cells = [[image, name, answer, "0.5", (START + timedelta(seconds=k)).isoformat()]
             for k, (image, name, answer) in enumerate(rows)]  # fmt: skip
    pd.DataFrame(cells, columns=COLUMNS).to_csv(file, index=False)
    return file


@pytest.fixture
def table(tmp_path):
    (tmp_path / "attributes.csv").write_text("filename,neck,hat\na.jpg,2,1\nb.jpg,#N/A,#N/A\nc.jpg,0,0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("answers", "neck"),
    [
        ([("b.jpg", "Neck 1", "yes")], {"b.jpg": [0, 1, 0]}),  # the values exclude each other
        ([("b.jpg", "Neck 1", "no")], {"b.jpg": [-1, 0, -1]}),  # the others stay open
        ([("b.jpg", "Neck 1", "unsure")], {}),
        ([("a.jpg", "Neck 2", "unsure")], {}),
        ([("a.jpg", "Neck 0", "yes")], {"a.jpg": [1, 0, 0]}),
        ([("a.jpg", "Neck 2", "no")], {"a.jpg": [-1, -1, 0]}),  # what only it excluded is open again
        ([("a.jpg", "Neck 0", "no"), ("a.jpg", "Neck 2", "no")], {"a.jpg": [0, -1, 0]}),
        ([("b.jpg", "Neck 0", "yes"), ("b.jpg", "Neck 1", "yes")], {"b.jpg": [0, 1, 0]}),  # the newest
        ([("b.jpg", "Neck 0", "yes"), ("b.jpg", "Neck 0", "no")], {"b.jpg": [0, -1, -1]}),
        ([("b.jpg", "Neck 0", "yes"), ("b.jpg", "Neck 0", "unsure")], {}),
    ],
)
def test_answers_to_an_attribute(table, answers, neck):
    plain = read_annotations(table)
    write(table / "reviews.csv", answers)
    found = read_annotations(table)
    expected = plain.labels.to_dense()
    for image, values in neck.items():
        expected[plain.names.index(image), plain.groups["neck"]] = values
    np.testing.assert_array_equal(found.labels.to_dense(), expected)
    assert found.images == plain.images
    assert read_annotations(table, reviews="none").labels == plain.labels


def test_labels_as_collected_are_those_without_what_answers_alone_tell(table):
    plain = read_annotations(table)
    assert plain.as_collected is plain.labels
    write(
        table / "reviews.csv", [("b.jpg", "Neck 1", "yes"), ("a.jpg", "Neck 0", "yes")]
    )  # unknown; and known, corrected
    found, expected = read_annotations(table), plain.labels.to_dense()
    expected[plain.names.index("a.jpg"), plain.groups["neck"]] = [1, 0, 0]
    np.testing.assert_array_equal(found.as_collected.to_dense(), expected)
    assert (found.labels.to_dense() != expected).any()
    rows = [plain.names.index("b.jpg")]
    np.testing.assert_array_equal(found.select(rows).as_collected.to_dense(), expected[rows])
    assert found.with_labels(plain.labels).as_collected is plain.labels
    write(table / "reviews.csv", [("b.jpg", "Neck 1", "unsure")])
    found = read_annotations(table)
    assert found.as_collected is found.labels


def test_what_is_said_of_answers(table):
    file = write(table / "answers.csv", [
        ("a.jpg", "Hat", "no"), ("b.jpg", "hat", "yes"), ("c.jpg", "hat", "no"), ("c.jpg", "Neck 1", "unsure"),
        ("a.jpg", "hat", "no"), ("b.jpg", "hat", "no"), ("z.jpg", "hat", "no"),
    ])  # fmt: skip
    found = read_annotations(table, reviews=file)  # by its columns no second table of labels
    assert found.notes[-1] == (
        f"{file}: 7 answers: 1 tell what was unknown, 1 agree with the labels, 1 contradict the labels and count in their "
        "place, 1 are unsure, 1 are answered again, 1 are of images of other splits or data, 1 are of other classes ('Hat')"
    )
    assert found.answers == 4


def test_times_decide_and_not_the_order_of_rows(table):
    (table / "reviews.csv").write_text(
        "image,class,answer,score,when\nb.jpg,hat,Yes,,2026-01-01T10:00:00+01:00\nb.jpg,hat,no,,2026-01-01T08:59\n"
    )
    assert read_annotations(table).labels[1][-1] == 1


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


def test_a_name_in_two_splits_is_told_by_its_folder(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        (tmp_path / f"{split}2017" / "a.jpg").touch()
        file = tmp_path / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(COCO))
    write(tmp_path / "reviews.csv", [("val2017/a.jpg", "dog", "yes"), ("b.jpg", "cat", "yes")])
    for options in (DataOptions(data=str(tmp_path)), DataOptions(data=f"{tmp_path}/./annotations/..")):
        assert read_split(options, "train").labels.to_dense().tolist() == [[1, 0], [1, 1]]
        assert read_split(options, "val").labels.to_dense().tolist() == [[1, 1], [1, 1]]
    write(tmp_path / "reviews.csv", [("val2017/a.jpg", "dog", "yes")])
    assert "1 answers: 1 are of images of other splits or data" in read_annotations(tmp_path, split="train").notes[-1]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_classes_on_their_own_as_a_loop_over_cells(tmp_path_factory, data):
    rows, columns = 5, 4
    labels = data.draw(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=columns, max_size=columns),
                                min_size=rows, max_size=rows))  # fmt: skip
    fill = data.draw(st.sampled_from([-1, 0]))
    answers = data.draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1),
                                           st.sampled_from(["yes", "no", "unsure"])), min_size=1, max_size=20))  # fmt: skip
    names = [f"{row}.jpg" for row in range(rows)]
    images = ImagePaths.from_names(names, "photos") if fill else [f"photos/{name}" for name in names]
    plain = Annotations(images, LabelMatrix.from_dense(labels, fill), list("abcd"), folder="photos", source="s")
    file = write(
        tmp_path_factory.mktemp("r") / "r.csv", [(names[row], "abcd"[c], answer) for row, c, answer in answers]
    )
    expected = [list(row) for row in labels]
    newest = {(row, c): answer for row, c, answer in answers}
    for (row, c), answer in newest.items():
        if answer != "unsure":
            expected[row][c] = 1 if answer == "yes" else 0
    assert with_reviews(plain, file, "elsewhere").labels.to_dense().tolist() == expected


def test_a_class_is_found_by_its_key_where_names_repeat():
    labels = LabelMatrix.from_dense([[1, 0, -1]])
    found = Annotations(["a.jpg"], labels, ["Bat", "Bat", "Cat"], keys=["/m/1", "/m/2", "/m/3"])
    assert classes_of(found, ["/m/1", "/m/2", "Bat", "Cat", "/m/3", "x"]).tolist() == [0, 1, -1, 2, 2, -1]
    assert rows_of(found, ["./a.jpg", "../a.jpg", "b.jpg"], "").tolist() == [0, -1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,class,answer\na.jpg,hat,yes\n", "r.csv, line 1: no column 'score', expected image,class,answer,score,when"),
        ("image,class,answer,score,when\na.jpg,hat,perhaps,,2026-01-01\n",
         "r.csv, line 2, column 'answer': found 'perhaps', expected yes, no, unsure"),
        ("image,class,answer,score,when\na.jpg,hat,yes,,soon\n", "r.csv, line 2, column 'when': found 'soon', expected a time"),
        ("image,class,answer,score,when\na.jpg,dog,yes,,2026-01-01\n", "none of its 1 answers is of a class of"),
        (None, "no such file"),
    ],
)  # fmt: skip
def test_files_that_are_no_answers_to_these_data_are_refused(table, text, message):
    file = table / "elsewhere" / "r.csv"
    file.parent.mkdir()
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as error:
        read_annotations(table, reviews=file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_of_classes_are_still_that_with_answers_beside_them(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    write(tmp_path / "reviews.csv", [("cat/1.jpg", "dog", "yes")])
    assert read_annotations(tmp_path).labels.to_dense().tolist() == [[1, 1], [0, 1]]


def test_a_table_that_is_called_so_is_none_of_answers(table):
    (table / "reviews.csv").write_text("place,stars\nx,5\n")
    assert "not used, as it holds no answers" in read_annotations(table).notes[-1]
    (table / "reviews.csv").write_text(",".join(COLUMNS) + "\n")
    assert read_annotations(table).notes[-1] == f"{table / 'reviews.csv'}: 0 answers"


def test_a_resumed_run_notices_new_answers_and_the_truth_takes_none(garments, no_pictures, tmp_path):
    data = shutil.copytree(garments, tmp_path / "photos")
    lines = []
    config = TrainConfig(
        data=str(data), model_name="test_resnet", image_size=32, batch_size=8, epochs=1, max_steps=1, workers=0, device="cpu",
        path_dest=str(tmp_path / "run"),
    )  # fmt: skip
    train(config, lines.append)
    options = DataOptions(data=str(data))
    before = read_annotations(data, split="train")
    truth = read_truth(options, "train", before)
    row = next(row for row in range(len(before)) if before.labels[row][0] == -1)
    write(data / "reviews.csv", [(f"images/{before.names[row]}", before.classes[0], "yes")])
    after = read_annotations(data, split="train")
    assert after.labels[row][0] == 1
    assert read_truth(options, "train", after) == truth
    with pytest.raises(InputError, match=r"the labels \(1 answers of reviews are among them, and were 0\) differ"):
        train(replace(config, resume=True), lines.append)
    for reviews, said in (("none", False), (None, True)):
        lines.clear()
        load_data(replace(config, reviews=reviews), lines.append)
        assert any("reviews.csv: 1 answers: 1 tell what was unknown" in line for line in lines) == said
