"""read_attributes: what becomes a class, layouts, errors with their lines, real files."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import LabelMatrix, parse_attributes, read_attributes, read_coco
from csl.labels.table import Table


def write(folder, text, name="attributes.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(tmp_path, text, **options):
    return read_attributes(write(tmp_path, text), **options)


def test_a_column_of_integers_is_a_group(tmp_path):
    annotations = read(tmp_path, "filename,sleeve_length\na.jpg,2\nb.jpg,#N/A\nc.jpg,0\n")
    assert annotations.classes == ["Sleeve Length 0", "Sleeve Length 1", "Sleeve Length 2"]
    assert annotations.groups == {"sleeve_length": slice(0, 3)}
    assert annotations.labels.to_dense().tolist() == [[0, 0, 1], [-1, -1, -1], [1, 0, 0]]
    assert annotations.images == [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]


def test_a_column_of_strings_is_a_group_by_falling_frequency(tmp_path):
    annotations = read(tmp_path, "filename,colour\na,Red\nb,Blue\nc,Green\nd,Green\ne,\n")
    assert annotations.classes == ["colour:Green", "colour:Blue", "colour:Red"]
    assert annotations.labels.to_dense().argmax(axis=1).tolist() == [2, 1, 0, 0, 0]
    assert annotations.labels[4].tolist() == [-1, -1, -1]


def test_a_column_of_zeros_and_ones_is_one_class(tmp_path):
    annotations = read(tmp_path, "filename,scarf,tie,hat\na,1,0,-1\nb,0,0,\nc,,0,NA\nd,1.0,0,nan\n")
    assert annotations.classes == ["scarf", "tie", "hat"]
    assert annotations.groups == {"scarf": slice(0, 1), "tie": slice(1, 2), "hat": slice(2, 3)}
    assert annotations.labels.to_dense().T.tolist() == [[1, 0, -1, 1], [0, 0, 0, 0], [-1, -1, -1, -1]]


@pytest.mark.parametrize(
    "unknown",
    [
        "#N/A", "N/A", "n/a", "NA", "nan", "NaN", "None", "null", "NULL", "<NA>", "#VALUE!", "?", "unknown", "-", "", "-1",
        "-1.0", "  ", " -1 ",
    ],
)  # fmt: skip
def test_unknown_cells(tmp_path, unknown):
    text = f"filename,neck,tie,colour\na,{unknown},{unknown},{unknown}\nb,2,1,red\n"
    annotations = read(tmp_path, text, minus_one="unknown" if "-1" in unknown else None)
    assert annotations.labels.to_dense().tolist() == [[-1, -1, -1, -1, -1], [0, 0, 1, 1, 1]]
    spelt = unknown.strip() or "empty"
    assert all(f"unknown: {spelt} (1)" in column.why for column in annotations.columns if column.role == "class")


def test_integers_with_a_decimal_point(tmp_path):
    annotations = read(tmp_path, "filename,neck\na,3.0\nb,1\nc,3\n")
    assert annotations.classes == [f"Neck {value}" for value in range(4)]
    assert annotations.labels.to_dense().argmax(axis=1).tolist() == [3, 1, 3]


def test_integers_that_are_far_between_are_strings(tmp_path):
    text = "filename,size\na,128\nb,64.0\nc,64\n"
    assert read(tmp_path, text).classes == ["size:64", "size:128"]
    assert len(read(tmp_path, text, attributes={"size": 200}).classes) == 200
    assert len(read(tmp_path, "filename,size\na,49\nb,0\n").classes) == 50


def test_attributes_fix_the_size(tmp_path):
    annotations = read(tmp_path, "filename,neck,tie\na,1,1\nb,0,0\n", attributes=parse_attributes("neck:7, tie:2"))
    assert annotations.classes == [*(f"Neck {value}" for value in range(7)), "Tie 0", "Tie 1"]
    assert annotations.labels[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 1]


def test_ignored_columns_and_the_table(tmp_path):
    text = "filename, tie ,title,split\na, 1 ,Nice tie,train\nb,#N/A,No tie,valid\n"
    for ignored in (["title"], "title", "split, title"):
        annotations = read(tmp_path, text, ignore_columns=ignored)
        assert annotations.classes == ["tie"]
    assert annotations.table.columns.tolist() == ["filename", "tie", "title", "split"]
    assert annotations.table.tie.tolist() == [" 1 ", "#N/A"]  # as written
    with pytest.raises(
        InputError, match="--ignore_columns: no column 'other' in .*, found filename, tie, title, split"
    ):
        read(tmp_path, text, ignore_columns=["other", "title"])
    second = read(tmp_path, text, ignore_columns=["title"], split="val")
    assert second.table.to_dict("records") == [{"filename": "b", "tie": "#N/A", "title": "No tie", "split": "valid"}]


def test_spaces_blank_lines_byte_order_mark_and_trailing_commas(tmp_path):
    text = "\ufefffilename , neck,\n a.jpg , 1,\n\n   \nb.jpg,2\n\n"
    annotations = read(tmp_path, text)
    assert [image[-5:] for image in annotations.images] == ["a.jpg", "b.jpg"]
    assert annotations.classes == ["Neck 0", "Neck 1", "Neck 2"]


def test_windows_line_ends_and_quoted_cells(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'filename,colour\r\n"a, b.jpg","red, dark"\r\nc.jpg,blue\r\n')
    annotations = read_attributes(tmp_path / "a.csv")
    assert annotations.classes == ["colour:blue", "colour:red, dark"]
    assert annotations.images[0].endswith("a, b.jpg")


# Splits and layouts


def test_the_split_column(tmp_path):
    text = "filename,neck,split\na,2,train\nb,0,Validation\nc,1,val\nd,5,test\n"
    assert len(read(tmp_path, text)) == 4
    for split, rows in (("train", [2]), ("val", [0, 1]), ("valid", [0, 1]), ("test", [5])):
        annotations = read(tmp_path, text, split=split)
        assert annotations.labels.to_dense().argmax(axis=1).tolist() == rows
        assert len(annotations.classes) == 6  # of all rows, whatever the split


def test_without_a_split_column_a_file_is_for_training(tmp_path):
    write(tmp_path, "filename,neck\na,2\nb,3\n")
    for path in (tmp_path, tmp_path / "attributes.csv"):
        assert len(read_attributes(path)) == len(read_attributes(path, split="train")) == 2
        with pytest.raises(InputError, match=r"no 'split' column; expected that column or a file attributes_val.csv"):
            read_attributes(path, split="val")
    write(tmp_path, "filename,neck\nc,1\n", "attributes_val.csv")
    assert len(read_attributes(tmp_path, split="val")) == 1


@pytest.mark.parametrize("prefix", ["attributes_", ""])
def test_one_file_per_split_takes_its_classes_from_the_training_file(tmp_path, prefix):
    write(tmp_path, "filename,neck\na.jpg,4\nb.jpg,1\n", f"{prefix}train.csv")
    val = write(tmp_path, "filename,neck\nc.jpg,2\n", f"{prefix}val.csv")
    assert len(read_attributes(tmp_path)) == 2
    for annotations in (
        read_attributes(tmp_path, split="val"),
        read_attributes(val),
        read_attributes(val, split="val"),
    ):
        assert annotations.labels.to_dense().tolist() == [[0, 0, 1, 0, 0]]
    with pytest.raises(InputError, match=r"no CSV of the test split, expected attributes_test.csv"):
        read_attributes(tmp_path, split="test")
    with pytest.raises(InputError, match=r"val.csv: no rows of the train split"):
        read_attributes(val, split="train")
    write(tmp_path, "filename,neck\nc.jpg,2\nd.jpg,5\n", f"{prefix}val.csv")
    with pytest.raises(InputError, match=r"val.csv, line 3, column 'neck': found '5', expected 0 to 4 .*training file"):
        read_attributes(tmp_path, split="val")
    assert len(read_attributes(tmp_path, split="val", attributes={"neck": 7}).classes) == 7


def test_the_only_csv_with_file_names_is_read(tmp_path):
    write(tmp_path, "filename,tie\na,1\n", "labels.csv")
    write(tmp_path, "Classes,avg_pred\ntie,0.1\n", "prior.csv")
    assert read_attributes(tmp_path).source == str(tmp_path / "labels.csv")
    write(tmp_path, "filename,tie\na,1\n", "more.csv")
    with pytest.raises(InputError, match=r"found labels.csv, more.csv, expected one table"):
        read_attributes(tmp_path)


@pytest.mark.parametrize("folder", ["images", "train", "images_split/train/images", "."])
def test_the_image_folder_is_where_the_first_image_is(tmp_path, folder):
    (tmp_path / "images").mkdir()
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "a.jpg").touch()
    assert read(tmp_path, "filename,tie\na.jpg,1\n").images == [str(tmp_path / folder / "a.jpg")]


def test_the_image_folder_where_no_image_is(tmp_path):
    assert read(tmp_path, "filename,tie\na.jpg,1\n").images == [str(tmp_path / "a.jpg")]
    (tmp_path / "images").mkdir()
    assert read(tmp_path, "filename,tie\na.jpg,1\n").images == [str(tmp_path / "images" / "a.jpg")]
    assert read(tmp_path, "filename,tie\na.jpg,1\n", images="x").images == ["x/a.jpg"]


def test_the_layout_of_prepared_images(tmp_path):
    for split in ("train", "val"):
        write(tmp_path, "filename,neck\na.jpg,2\n", f"attributes_{split}.csv")
        folder = tmp_path / "images_split" / split / "images"
        folder.mkdir(parents=True)
        (folder / "a.jpg").touch()
        assert read_attributes(tmp_path, split=split).images == [str(folder / "a.jpg")]
    augmented = tmp_path / "images_augmented" / "train" / "images"
    augmented.mkdir(parents=True)
    (augmented / "a.jpg").touch()
    assert read_attributes(tmp_path, split="train").images == [str(augmented / "a.jpg")]
    assert read_attributes(tmp_path, split="val").images == [str(folder / "a.jpg")]


# Against the classes of a training run

RUN = "filename,neck,colour,tie\na,2,red,1\nb,0,blue,0\nc,1,red,#N/A\n"


def run_of(tmp_path):
    run = read(tmp_path, RUN)
    return {"classes": run.classes, "groups": run.groups}


def test_another_file_is_read_against_a_run(tmp_path):
    run = run_of(tmp_path)
    annotations = read(tmp_path, "filename,new,tie,colour,neck\nx,9,0,blue,1.0\ny,9,-1,,\n", **run)
    assert annotations.classes == ["Neck 0", "Neck 1", "Neck 2", "colour:red", "colour:blue", "tie"]
    assert annotations.groups == run["groups"]
    assert annotations.labels.to_dense().tolist() == [[0, 1, 0, 0, 1, 0], [-1, -1, -1, -1, -1, -1]]
    again = read(tmp_path, RUN, attributes={"neck": 3}, **run)
    assert again.labels == read(tmp_path, RUN).labels


def test_a_run_of_yes_no_columns_needs_no_groups(tmp_path):
    assert read(tmp_path, "filename,hat,tie\na,0,1\n", classes=["tie", "hat"]).labels[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,neck,colour,tie\na,1,red,1\nb,3,red,1\n", "line 3, column 'neck': found '3', expected 0 to 2"),
        (
            "filename,neck,colour,tie\na,1,pink,1\n",
            "line 2, column 'colour': found 'pink', expected one of 'red', 'blue'",
        ),
        ("filename,neck,colour,tie\na,1,red,2\n", "line 2, column 'tie': found '2', expected 0 or 1"),
        ("filename,neck,colour\na,1,red\n", "line 1: no column 'tie', expected it as in the training file"),
    ],
)
def test_values_that_a_run_does_not_know(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text, **run_of(tmp_path))


def test_only_the_rows_of_the_split_must_fit_a_run(tmp_path):
    text = "filename,neck,colour,tie,split\na,1,red,1,train\nb,8,red,1,val\n"
    run = run_of(tmp_path)
    assert len(read(tmp_path, text, split="train", **run)) == 1
    with pytest.raises(InputError, match="line 3, column 'neck': found '8'"):
        read(tmp_path, text, split="val", **run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": {"neck": 4}}, "--attributes: found neck:4, expected .* integer with classes"),
        ({"attributes": {"tie": 2}}, "--attributes: found tie:2, expected .* yes/no"),
        ({"attributes": {"hat": 2}}, "--attributes: no column 'hat' in .*attributes.csv, found filename, neck"),
        ({"groups": {"neck": slice(0, 3)}}, "groups: they end at class 3, expected all 6"),
        ({"groups": {"neck": slice(1, 6)}}, "groups: 'neck' has classes 1 to 5 of 6, expected 0 on"),
        ({"groups": {"neck": slice(0, 6)}}, "groups: class 'Neck 0' of attribute 'neck' has another name"),
    ],
)
def test_a_run_that_does_not_agree_with_itself(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, RUN, **{**run_of(tmp_path), **changes})


# Errors

ERRORS = {
    "empty file": ("", "attributes.csv: found an empty file"),
    "header only": ("filename,neck\n", "found a header without rows"),
    "no filename": (
        "thing,neck\na,1\n",
        "line 1: no 'filename' column, found 'thing', 'neck'; .*--filename_column NAME",
    ),
    "1 and -1 without 0": ("filename,tie\na,1\nb,-1\n", "'tie' and 0 more hold -1, .* --minus_one negative or"),
    "shares of votes": ("filename,tie\na,0.25\nb,0.75\n", "'tie' holds numbers between 0 and 1.*--vote_threshold"),
    "empty filename": ("filename,neck\na,1\n\n ,2\nb,1\n", "line 4, column 'filename': found nothing"),
    "two columns": ("filename,neck,neck\na,1,1\n", "line 1: found two columns named 'neck'"),
    "unnamed column": (",filename,neck\n7,a,1\n", "line 1: column 1 has no name"),
    "no attribute": ("filename,split\na,train\n", "line 1: found no attribute among filename, split"),
    "cut short": ('filename,neck,hem\n"a\nb",1,2\n\nc,1', "line 5: found 2 cells and the end of the file, expected 3"),
    "long row": ("filename,neck\na,1\nb,1,2\n", "line 3: found 3 cells, expected 2 as in line 1"),
    "open quote": ('filename,neck\n"a,1\n', "line 2: not a CSV: unexpected end of data, expected quotes in pairs"),
    "split": (
        "filename,neck,split\na,1,train\nb,2,later\n",
        "line 3, column 'split': found 'later', expected one of train",
    ),
    "negative": ("filename,neck\na,3\nb,-2\n", "line 3, column 'neck': found '-2', expected 0 or more"),
    "nothing but identifiers": (
        "filename,id\n" + "".join(f"{row}.jpg,{row}\n" for row in range(100)),
        r"no column holds labels: id \(counts the rows\); expected some, or --columns NAMES says which do",
    ),
    "same class twice": (
        "filename,sleeve_length,sleeve length\na,2,3\n",
        "line 1: columns 'sleeve_length' and 'sleeve length' both have a class 'Sleeve Length 0'",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file_and_the_line(tmp_path, case):
    text, message = ERRORS[case]
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, text)
    assert str(tmp_path / "attributes.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_other_errors(tmp_path):
    text = "filename,neck,split\na,1,train\nb,7,train\nc,v,train\n"
    with pytest.raises(InputError, match=r"line 3, column 'neck': found '7', expected 0 to 6 \(--attributes neck:7\)"):
        read(tmp_path, text, attributes={"neck": 7})
    with pytest.raises(InputError, match="line 4, column 'neck': found 'v', expected 0 to 7"):
        read(tmp_path, text, attributes={"neck": 8})
    with pytest.raises(InputError, match=r"--attributes: no column 'necks' in .*attributes.csv, did you mean 'neck'"):
        read(tmp_path, text, attributes={"necks": 8})
    with pytest.raises(InputError, match="no rows of the val split, found 'split' with only train"):
        read(tmp_path, text, split="val")
    with pytest.raises(InputError, match="none: no such file or folder"):
        read_attributes(tmp_path / "none")
    (tmp_path / "attributes.csv").write_bytes(b"filename,colour\na,caf\x81\n")
    with pytest.raises(InputError, match=r"attributes.csv: no text at byte"):
        read_attributes(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no CSV of the train split, .*found nothing"):
        read_attributes(tmp_path / "empty")


@pytest.mark.parametrize("text", ["", "neck", "neck:", ":7", "neck:0", "neck:-1", "neck:x", "neck:7,", "neck:1.5"])
def test_sizes_that_are_none(text):
    with pytest.raises(InputError, match=r"--attributes: found .*, expected NAME:SIZE"):
        parse_attributes(text)


def test_sizes():
    assert parse_attributes("neck:7, sleeve_length:4,a:b:2") == {"neck": 7, "sleeve_length": 4, "a:b": 2}
    with pytest.raises(InputError, match="--attributes: found 'neck' twice"):
        parse_attributes("neck:7,neck:8")


# Round trips


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_labels_written_as_attributes_read_back(tmp_path_factory, data):
    num_rows = data.draw(st.integers(1, 8))
    sizes = data.draw(st.dictionaries(st.sampled_from(["neck", "sleeve_length", "x:y"]), st.integers(2, 5), min_size=1))
    cells, dense = {"filename": [f"{row}.jpg" for row in range(num_rows)]}, []
    for name, size in sizes.items():
        values = data.draw(st.lists(st.integers(-1, size - 1), min_size=num_rows, max_size=num_rows))
        unknown = data.draw(st.sampled_from(["#N/A", "", "-1"]))
        cells[name] = [unknown if value < 0 else str(value) for value in values]
        dense.append([[-1] * size if value < 0 else np.eye(size)[value] for value in values])
    file = tmp_path_factory.mktemp("round") / "attributes.csv"
    pd.DataFrame(cells).to_csv(file, index=False)

    annotations = read_attributes(file, attributes=sizes)
    assert {column.role for column in annotations.columns} == {"image", "attribute"}
    assert annotations.labels == LabelMatrix.from_dense(np.concatenate(dense, axis=1))
    again = read_attributes(file, classes=annotations.classes, groups=annotations.groups)
    assert again.labels == annotations.labels
    assert again.groups == annotations.groups
    pd.testing.assert_frame_equal(annotations.table, pd.DataFrame(cells), check_dtype=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 0, -1, ""]), min_size=3, max_size=3), min_size=1, max_size=8))
def test_a_generic_csv_reads_back(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("generic") / "labels.csv"
    frame = pd.DataFrame(rows, columns=["cat", "dog", "traffic light"], dtype=object)
    frame.insert(0, "filename", [f"{row}.jpg" for row in range(len(rows))])
    frame.to_csv(file, index=False)
    said = "unknown" if any(-1 in row for row in rows) else None
    annotations = read_attributes(file, roles=dict.fromkeys(frame.columns[1:], "class"), minus_one=said)
    assert annotations.classes == ["cat", "dog", "traffic light"]
    dense = np.array([[-1 if value == "" else value for value in row] for row in rows])
    assert annotations.labels == LabelMatrix.from_dense(dense)


# Real data


def test_real_street_photos_have_the_published_share_of_unknowns(real):
    annotations = read_attributes(real("clothing_attributes.zip"))
    assert len(annotations) == 1856
    assert len(annotations.classes) == 3 + 3 + 7 + 23
    assert annotations.classes[2:7] == ["Neck 2", "Sleeve Length 0", "Sleeve Length 1", "Sleeve Length 2", "Category 0"]
    dense = annotations.labels.to_dense()
    unknown = {name: (dense[:, group] == -1).all(axis=1).mean() for name, group in annotations.groups.items()}
    groups = [name for name, group in annotations.groups.items() if group.stop - group.start > 1]
    assert sorted(round(100 * unknown[name]) for name in groups) == [4, 29, 41]
    yes_no = [unknown[name] for name in annotations.groups if name not in groups]
    assert len(yes_no) == 23
    assert round(100 * np.mean(yes_no), 1) == 7.6
    assert annotations.summary() == "1,856 images, 36 classes: 17.8 % positive, 66.7 % negative, 15.5 % unknown"
    assert len(read_attributes(real("clothing_attributes.zip"), split="val")) == 381


def test_real_product_photos_agree_in_both_forms(real):
    folder = real("fashion80.zip")
    (title,) = (one for one in read_attributes(folder / "attributes.csv").columns if one.name == "title")
    assert (title.role, title.why[:33]) == ("ignored", "free text or identifiers: 23,674 ")
    for split in ("train", "val"):
        coco = read_coco(folder, split=split)
        csv = read_attributes(folder / "attributes.csv", split=split, ignore_columns=["title"])
        assert len(csv.classes) == 249
        rows = {image: row for row, image in enumerate(csv.images)}
        columns = [csv.classes.index(name) for name in coco.classes]
        shared = csv.labels[[rows[image] for image in coco.images]][:, columns]
        np.testing.assert_array_equal(shared, coco.labels.to_dense())


def test_a_file_is_parsed_once_until_it_changes(tmp_path):
    path = tmp_path / "attributes.csv"
    path.write_text("filename,hat\na.jpg,1\n")
    assert len(Table.read(path)) == 1
    path.write_text("filename,cap\na.jpg,1\n")  # at once, and of the same size
    assert Table.read(path).columns == ["filename", "cap"]
    os.utime(path, (10**9, 10**9))
    assert Table.read(path) is Table.read(path)
    path.write_text("filename,hat\na.jpg,1\nb.jpg,0\n")
    assert len(Table.read(path)) == 2
