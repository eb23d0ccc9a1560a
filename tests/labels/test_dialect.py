"""The shape of a table's file: without a header, with a title above it."""

import pytest

from csl.errors import InputError
from csl.labels import read_annotations

ROWS = "00.jpg,1,0\n01.jpg,0,1\n02.jpg,1,1\n"
LABELS = [[1, 0], [0, 1], [1, 1]]


def read(folder, text, name="labels.csv"):
    """What is read of the folder and of the table in it, which are the same."""
    for number in range(3):
        (folder / f"0{number}.jpg").touch()
    (folder / name).write_text(text)
    found = [read_annotations(path) for path in (folder, folder / name)]
    assert found[0].labels == found[1].labels
    assert len(set(found[0].images)) == len(found[0]) == len(found[0].labels)
    return found[0]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (ROWS, LABELS), (ROWS.replace(",", ";"), LABELS), ("00.jpg,1,0\n", [[1, 0]]), (ROWS.replace(".jpg,", ".jpg, "), LABELS),
        ("0,00.jpg,1\n1,01.jpg,0\n2,02.jpg,1\n", [[1], [0], [1]]), ("00.jpg,1,0,train\n01.jpg,0,1,val\n", LABELS[:2]),
        ("00.jpg,cat\n01.jpg,dog\n02.jpg,cat\n", [[1, 0], [0, 1], [1, 0]]), (ROWS.replace(".jpg", ""), LABELS),
        ("a00,1,0,1\na01,0,1,1\n", [[1, 0, 1], [0, 1, 1]]),
    ],
)  # fmt: skip
def test_without_a_header_no_row_is_lost(tmp_path, text, labels):
    found = read(tmp_path, text)
    assert found.labels.to_dense().tolist() == labels
    assert any(note.startswith("labels.csv: no header, so the classes are numbered: class 0") for note in found.notes)


def test_lists_of_numbered_names_as_voc_has_them_lose_no_row(tmp_path):
    found = read(tmp_path, "00 1 -1\n01 -1 1\n02 0 1\n", "labels.txt")
    assert (found.classes, found.labels.to_dense().tolist()) == (["class 0", "class 1"], [[1, -1], [-1, 1], [0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS.replace(".jpg", "").replace("00,", "a,"), "line 1: found 'a', '1', '0', the labels of a photo"),
        (
            "00.jpg,10,20,30,40,cat\n01.jpg,10,20,30,40,dog\n",
            "line 1: no header, and numbers such as 10, 20, 30, .* in 4 ",
        ),
        ("Export,2024,,\nfilename,cat,dog,red\n00.jpg,1,0,0\n", r"line 1: column 3 has no name, .*\(what stands above"),
        ("filename,,\n00.jpg,1,0\n", "line 1: column 2 has no name"),
        ("Photos, May 2024\nfilename,cat,dog\n", "line 2: found 3 cells, expected 2 as in line 1"),
    ],
)
def test_what_may_be_a_header_or_not_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "01.jpg").touch()
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path / "labels.csv")


def test_a_first_row_that_names_a_photo_is_no_header(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "labels.csv").write_text("a,red,blue\nb,blue,red\nc,red,red\n")
    with pytest.raises(
        InputError, match="line 1: found 'a', 'red', 'blue', the labels of a photo.*--filename_column a"
    ):
        read_annotations(tmp_path)
    assert len(read_annotations(tmp_path / "labels.csv", filename_column="a")) == 2


TITLES = ["My export 2024,,\n", "My export 2024\n", "My export 2024\n\n", "# by me\n# in May\n", ",Animals,\n"]


@pytest.mark.parametrize("name", ["labels.csv", "labels.txt"])
@pytest.mark.parametrize("title", [*TITLES, "\n", ",,\n"])
def test_a_title_above_the_header_is_left_out_and_said(tmp_path, title, name):
    found = read(tmp_path, f"{title}filename,cat,dog\n{ROWS}", name)
    assert (found.classes, found.labels.to_dense().tolist()) == (["cat", "dog"], LABELS)
    said = [note for note in found.notes if "above the header stands" in note]
    assert len(said) == (title in TITLES)
    assert all(title.split("\n")[0] in note for note in said)


def test_a_row_of_a_table_with_a_title_is_named_by_its_line(tmp_path):
    with pytest.raises(InputError, match=r"labels.csv, line 5, column 'split': found 'x'"):
        read(tmp_path, "Title,,\n\nfilename,cat,split\n00.jpg,1,train\n01.jpg,0,x\n")


@pytest.mark.parametrize("header", ["filename,0,1", "0,1,2"])
def test_classes_that_are_called_by_numbers_are_a_header(tmp_path, header):
    found = read(tmp_path, f"{header}\n{ROWS}")
    assert found.classes == header.split(",")[1:]
    assert found.labels.to_dense().tolist() == LABELS


LISTED = [[1, 0, 1], [0, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "text",
    [
        "00.jpg,cat,red\n01.jpg,dog\n02.jpg,cat,dog,red\n",
        "00.jpg\tcat,red\n01.jpg\tdog\n02.jpg\tcat,dog,red\n",
        "TRAIN,gs://b/00.jpg,cat,red\nTRAIN,gs://b/01.jpg,dog\nTRAIN,gs://b/02.jpg,cat,dog,red\n",
    ],
)
def test_without_a_header_labels_may_follow_the_name(tmp_path, text):
    found = read(tmp_path, text)
    columns = [found.classes.index(name) for name in ("cat", "dog", "red")]
    assert found.labels.to_dense()[:, columns].tolist() == LISTED


def test_tabs_separate_what_commas_only_fill(tmp_path):
    found = read(tmp_path, "filename\tsize, in cm\tcat, black\n00.jpg\t1,5\t1\n01.jpg\t2,5\t0\n02.jpg\t3,5\t1\n")
    assert (found.classes, found.labels.to_dense().tolist()) == (["cat, black"], [[1], [0], [1]])


def test_deepfashions_header_says_less_than_its_rows_hold(tmp_path):
    text = "3\nimage_name  attribute_labels\n00.jpg   1 -1 1\n01.jpg  -1  1 0\n02.jpg  1 1 1\n"
    found = read(tmp_path, text, "list_attr_img.txt")
    assert found.classes == ["class 0", "class 1", "class 2"]
    assert found.labels.to_dense().tolist() == [[1, -1, 1], [-1, 1, 0], [1, 1, 1]]


def test_percents_are_shares(tmp_path):
    text = "filename,cat,dog\n00.jpg,80%,5 %\n01.jpg,20%,100%\n02.jpg,,50%\n"
    with pytest.raises(InputError, match="'cat' holds numbers between 0 and 1.*--vote_threshold"):
        read(tmp_path, text)
    found = read_annotations(tmp_path, vote_threshold=0.5)
    assert found.labels.to_dense().tolist() == [[1, 0], [0, 1], [-1, 1]]
