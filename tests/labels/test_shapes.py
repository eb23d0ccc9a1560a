"""Tables of another shape than a row an image and a column a class give the labels of the usual one, or a question."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import read_attributes

CLASSES = ["cat", "dog", "fish", "bird"]


def read(folder, frame, name="labels.csv", **options):
    (folder / name).write_text(frame if isinstance(frame, str) else frame.to_csv(index=False), encoding="utf-8")
    return read_attributes(folder / name, **options)


def labels_of(found, classes=CLASSES):
    assert sorted(found.classes) == sorted(classes)
    return found.labels.to_dense()[:, [found.classes.index(name) for name in classes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


MATRICES = st.lists(st.lists(st.sampled_from([1, 0, -1]), min_size=4, max_size=4), min_size=2, max_size=7)


@settings(max_examples=15, deadline=None)
@given(
    MATRICES, st.sampled_from(["label", "class_name", "Finding"]), st.sampled_from(["present", "Confidence", "answer"])
)
def test_a_row_a_label_with_yes_or_no(folder, rows, label, answer):
    rows = [[1, 0, 1, 0], *rows]
    cells = [(f"{k}.jpg", c, v) for k, row in enumerate(rows) for c, v in zip(CLASSES, row, strict=True) if v >= 0]
    names = list(dict.fromkeys(image for image, _, _ in cells))
    frame = pd.DataFrame(cells, columns=["image", label, answer])
    if (frame["image"].value_counts() > 1).mean() >= 0.5:
        known = [row for row in rows if max(row) >= 0]
        assert labels_of(read(folder, frame)).tolist() == known
        assert len(names) == len(known)


def test_a_row_a_label_keeps_the_split_and_the_classes_of_training(tmp_path):
    text = "file,tag,present,split\n" + "".join(
        f"{k}.jpg,{c},{int(c == 'cat')},{'val' if k > 1 else 'train'}\n" for k in range(4) for c in ("cat", "dog")
    )
    found = read(tmp_path, text, split="val")
    assert (found.classes, found.labels.to_dense().tolist()) == (["cat", "dog"], [[1, 0], [1, 0]])
    read(tmp_path, "file,tag,present\na.jpg,cat,1\na.jpg,dog,0\nb.jpg,cat,0\nb.jpg,dog,1\n", "train.csv")
    other = read(tmp_path, "file,tag,present\nc.jpg,dog,1\nc.jpg,cow,1\n", "val.csv", split="val")
    assert (other.classes, other.labels.to_dense().tolist()) == (["cat", "dog"], [[-1, 1]])


def test_answers_of_two_people_that_differ_are_unknown(tmp_path):
    text = "image,label,answer\n" + "a.jpg,cat,yes\na.jpg,cat,no\na.jpg,dog,yes\na.jpg,dog,yes\n"
    assert read(tmp_path, text).labels.to_dense().tolist() == [[-1, 1]]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(CLASSES), max_size=3, unique=True), max_size=6),
    st.sampled_from(["label{}", "Tag_{}", "tag {}"]),
)
def test_a_label_a_column_is_a_list(folder, rows, name):
    rows = [["cat", "dog", "fish"], ["dog", "bird"], ["bird"], *rows]
    frame = pd.DataFrame(
        [[*row, "", ""][:3] if row else [""] * 3 for row in rows], columns=[name.format(k) for k in (1, 2, 3)]
    )
    frame.insert(0, "filename", [f"{k}.jpg" for k in range(len(rows))])
    found = read(folder, frame)
    assert labels_of(found).tolist() == [[int(c in row) if row else -1 for c in CLASSES] for row in rows]
    assert any("are one list of labels" in note for note in found.notes)


def test_columns_of_the_same_words_that_are_no_plain_list_are_asked_about(tmp_path):
    text = "filename,label1,label2\na.jpg,cat,cat\nb.jpg,dog,cat\nc.jpg,dog,dog\n"
    with pytest.raises(InputError, match=r"'label1', 'label2' hold the same words.*'label1..label2=list'"):
        read(tmp_path, text)
    listed = read(tmp_path, text, roles={"label1..label2": "list"})
    assert labels_of(listed, ["cat", "dog"]).tolist() == [[1, 0], [1, 1], [0, 1]]
    assert read(tmp_path, text, roles={"label*": "attribute"}).groups.keys() == {"label1", "label2"}
    assert read(tmp_path, "filename,level1,level2\na,animal,cat\nb,plant,rose\n").groups.keys() == {"level1", "level2"}


def test_counts_of_votes_are_asked_about_and_read_as_shares(tmp_path):
    votes = np.array([[7, 2, 1], [0, 5, 5], [1, 1, 8], [10, 0, 0]])
    frame = pd.DataFrame(votes, columns=["cat", "dog", "fish"])
    frame.insert(0, "image", [f"{k}.png" for k in range(4)])
    with pytest.raises(InputError, match=r"'cat', 'dog', 'fish' sum to 10 in each row.*--vote_threshold X"):
        read(tmp_path, frame)
    found = read(tmp_path, frame, vote_threshold=0.5)
    assert labels_of(found, ["cat", "dog", "fish"]).tolist() == (votes >= 5).astype(int).tolist()
    assert read(tmp_path, frame, roles={"cat..fish": "attribute"}).groups.keys() == {"cat", "dog", "fish"}
    assert read(tmp_path, frame.assign(fish=[1, 5, 8, 1])).groups.keys() == {"cat", "dog", "fish"}


def test_the_same_two_words_in_several_columns_are_asked_about(tmp_path):
    text = "image;cat;dog;fish\na.jpg;high;low;low\nb.jpg;low;high;low\nc.jpg;;low;high\n"
    with pytest.raises(InputError, match=r"3 columns hold 'high' and 'low' alone.*--roles 'cat..fish=class:WORD'"):
        read(tmp_path, text)
    found = read(tmp_path, text, roles={"cat..fish": "class:High"})
    assert labels_of(found, ["cat", "dog", "fish"]).tolist() == [[1, 0, 0], [0, 1, 0], [-1, 0, 1]]
    again = read(
        tmp_path, text, roles={"*": "class:high"}, filename_column="image", classes=found.classes, groups=found.groups
    )
    assert again.labels == found.labels
    with pytest.raises(InputError, match="--roles dog=class:ja: .* has no 'ja' there, found 'low', 'high'"):
        read(tmp_path, text, roles={"dog": "class:ja"})
    assert read(tmp_path, text.replace("fish", "kind").replace("low;high", "low;mid")).groups.keys() == {
        "cat",
        "dog",
        "kind",
    }


@pytest.mark.parametrize(("yes", "no"), [("VERDADERO", "FALSO"), ("WAAR", "ONWAAR"), ("tak", "nie"), ("да", "нет"),
    ("ИСТИНА", "ЛОЖЬ"),    ("はい", "いいえ"), ("是", "否"), ("有", "无"), ("Evet", "Hayır"), ("ja", "nej"),
    ("vorhanden", "nicht vorhanden"), ("○", "")])  # fmt: skip
def test_yes_and_no_in_languages_of_spreadsheets(tmp_path, yes, no):
    found = read(tmp_path, f"filename;cat;dog\na;{yes};{no}\nb;{no};{yes}\n")
    assert labels_of(found, ["cat", "dog"]).tolist() == [[1, 0], [0, 1]]
