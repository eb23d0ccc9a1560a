"""Tables of labels as people have them: the roles of columns, dialects, photos under other spellings, real heads of files."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csl.errors import InputError
from csl.labels import read_annotations, read_attributes
from csl.labels.inspection import column_lines, inspect
from csl.labels.options import DataOptions

CASES = Path(__file__).parents[3] / "shared" / "cases"
PLAIN = [name for name in (
    "asl_nus_wid_data/nus_wid_data.csv", "celeba/list_attr_celeba.csv", "chexpert/train.csv", "data_csv_one_hot/data.csv",
    "fashion_styles/styles.csv", "hpa/train.csv", "miml/miml_labels_2.csv", "movie_posters/train.csv",
    "nih_chestxray/sample_labels.csv", "planet/train_v2.csv", "split_capital/attributes.csv",
    "tf_object_detection_csv/train_labels.csv", "true_false/attributes.csv",
)]  # fmt: skip
FLAGS = {"celeba": {"minus_one": "negative"}}


def check(annotations, truth):
    """Compare labels with the right answer: classes, counts, and the positives of the first rows."""
    dense = annotations.labels.to_dense()
    assert sorted(annotations.classes) == sorted(truth["classes"])
    assert len(annotations) == len(truth["images"])
    counts = [int((dense == value).sum()) for value in (1, 0, -1)]
    assert counts == [truth["positives"], truth["negatives"], truth["unknown"]]
    for image, positives in truth["first"].items():
        row = truth["images"].index(image)
        assert sorted(annotations.classes[c] for c in np.flatnonzero(dense[row] == 1)) == sorted(positives)


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("whole_folder", [False, True])
def test_heads_of_public_files(case, whole_folder):
    file = CASES / case
    if not file.exists():
        pytest.skip(f"not here: {file}")
    truth = json.loads((file.parent / "truth.json").read_text())
    path = file.parent if whole_folder and case.count("list_attr") == 0 else file
    split = "train" if case.startswith("chexpert") else None
    check(read_annotations(path, split=split, **FLAGS.get(file.parent.name, {})), truth)
    if "split" in truth:
        for name, number in pd.Series(truth["split"]).value_counts().items():
            assert len(read_annotations(path, split=name)) == number


REFUSED = {
    "semicolon": ("1.jpg", {"desert"}, {"sea"}),
    "Filename_capital": ("1.jpg", {"desert"}, {"sea"}),
    "pandas_index": ("1.jpg", {"desert"}, {"sea"}),
    "hf_metadata.csv": ("1.jpg", {"desert"}, {"sea"}),
    "hf_metadata.jsonl": ("1.jpg", {"desert", "sea"}, set()),
    "ground_truth_multilabel.manifest": ("1.jpg", {"bicycle", "person"}, set()),
    "label_studio.csv": ("0a1b2c3d-1.jpg", {"desert", "sunset"}, set()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_forms_that_were_once_refused_are_read(name):
    if not (path := CASES / "refused" / name).exists():
        pytest.skip(f"not here: {path}")
    image, positives, negatives = REFUSED[name]
    for place in (path, *path.glob("attributes.csv")):
        annotations = read_annotations(place)
        first = annotations.labels.to_dense()[0]
        assert os.path.basename(annotations.images[0]) == image
        assert {annotations.classes[c] for c in np.flatnonzero(first == 1)} == positives
        assert {annotations.classes[c] for c in np.flatnonzero(first == 0)} == negatives


def test_a_folder_a_split_with_classes_in_a_header():
    folder = CASES / "roboflow_multiclass"
    if not folder.exists():
        pytest.skip(f"not here: {folder}")
    for split, truth in json.loads((folder / "truth.json").read_text())["splits"].items():
        check(read_annotations(folder, split=split), truth)


@pytest.mark.parametrize(
    ("name", "classes", "labels"),
    [
        ("semicolon", ["desert", "sea"], [[1, 0]]),
        ("Filename_capital", ["desert", "sea"], [[1, 0]]),
        ("pandas_index", ["desert", "sea"], [[1, 0], [0, 1]]),
        ("label_studio.csv", ["desert", "sunset"], [[1, 1]]),
        ("ground_truth_multilabel.manifest", ["bicycle", "person"], [[1, 1]]),
        ("hf_metadata.csv", ["desert", "sea"], [[1, 0], [0, 1]]),
        ("hf_metadata.jsonl", ["desert", "sea"], [[1, 1]]),
    ],
)
def test_heads_of_forms_that_other_programs_export(name, classes, labels):
    path = CASES / "refused" / name
    if not path.exists():
        pytest.skip(f"not here: {path}")
    annotations = read_annotations(path)
    assert annotations.classes == classes
    assert annotations.labels.to_dense().tolist() == labels


# ---------------------------------------------------------------------------------------------- the roles of columns


def read(tmp_path, text, name="labels.csv", **options):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_attributes(tmp_path / name, **options)


def roles(annotations):
    return {column.name: column.role for column in annotations.columns}


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("1", "0"),
        ("1.0", "0.0"),
        ("True", "False"),
        ("TRUE", "FALSE"),
        ("yes", "no"),
        ("Y", "n"),
        ("present", "absent"),
    ],
)
def test_yes_and_no_in_other_words(tmp_path, yes, no):
    annotations = read(tmp_path, f"filename,cat,dog\na,{yes},{no}\nb,{no},\nc,{yes},{yes}\n")
    assert annotations.classes == ["cat", "dog"]
    assert annotations.labels.to_dense().tolist() == [[1, 0], [0, -1], [1, 1]]


def test_a_cross_or_nothing(tmp_path):
    text = "filename,cat,dog\na,x,\nb,,X\nc,x,x\n"
    assert read(tmp_path, text).labels.to_dense().tolist() == [[1, 0], [0, 1], [1, 1]]
    assert read(tmp_path, text, unlisted="unknown").labels.to_dense().tolist() == [[1, -1], [-1, 1], [1, 1]]


def test_marks_are_those_of_the_whole_table_and_what_is_empty_is_said(tmp_path):
    text = "filename,cat,dog,split\na,x,,train\nb,,X,train\nc,x,,val\nd,,?,val\n"
    val = read(tmp_path, text, split="val")
    assert val.labels.to_dense().tolist() == [[1, 0], [0, -1]]
    assert [c.why for c in val.columns[1:3]] == ["empty: negative", "empty: negative; unknown: ? (1)"]
    assert read(tmp_path, text, split="val", unlisted="unknown").columns[1].why == "unknown: empty (1)"


def test_minus_one_is_asked_about_without_any_0_and_unknown_beside_one(tmp_path):
    text = "filename,cat,dog\na,1,-1\nb,-1,1\n"
    with pytest.raises(
        InputError, match=r"hold -1, and no yes/no column a 0: .*--minus_one negative or --minus_one unknown"
    ):
        read(tmp_path, text)
    assert read(tmp_path, text, minus_one="negative").labels.to_dense().tolist() == [[1, 0], [0, 1]]
    assert read(tmp_path, text, minus_one="unknown").labels.to_dense().tolist() == [[1, -1], [-1, 1]]
    assert read(tmp_path, text + "c,0,0\n").labels.to_dense().tolist() == [[1, -1], [-1, 1], [0, 0]]


LISTS = [["cat"], ["cat", "dog"], ["dog", "bird"], ["bird"], ["cat", "dog", "bird"], ["cat", "bird"], ["dog"]]


@pytest.mark.parametrize(
    "written",
    [" ".join, "|".join, ",".join, "; ".join, ", ".join, str, json.dumps,
     lambda words: "[" + " ".join(map(repr, words)) + "]", lambda words: json.dumps({"choices": words})],
)  # fmt: skip
def test_lists_in_a_cell(tmp_path, written):
    frame = pd.DataFrame({"image": [f"{k}.jpg" for k in range(7)], "tags": list(map(written, LISTS))})
    frame.to_csv(tmp_path / "labels.csv", index=False)
    annotations = read_attributes(tmp_path / "labels.csv")
    assert roles(annotations) == {"image": "image", "tags": "list"}
    assert annotations.classes == ["bird", "cat", "dog"]
    assert annotations.labels.to_dense().tolist() == [[int(c in row) for c in ("bird", "cat", "dog")] for row in LISTS]
    unknown = read_attributes(tmp_path / "labels.csv", unlisted="unknown").labels.to_dense()
    assert set(unknown.ravel().tolist()) == {1, -1}
    again = read_attributes(tmp_path / "labels.csv", classes=["dog", "cat", "bird"])  # of a training run
    assert again.labels.to_dense().tolist() == [[int(c in row) for c in ("dog", "cat", "bird")] for row in LISTS]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["sea lion", "cat", '"sea lion, cat"', '"polar bear, dog"', "dog"], ["cat", "dog", "polar bear", "sea lion"]),
        (["{'a', 'b'}", "('b',)", "set()"], ["a", "b"]),
        (["Cat; dog;", "Cat;", "dog;"], ["Cat", "dog"]),
    ],
)
def test_few_combinations_are_lists_as_well(tmp_path, cells, words):
    rows = "".join(f"{k}.jpg,{cells[k % len(cells)]}\n" if cells[0][0] != "{" else f'{k}.jpg,"{cells[k % len(cells)]}"\n'
                   for k in range(12))  # fmt: skip
    annotations = read(tmp_path, "file,tags\n" + rows)
    assert roles(annotations)["tags"] == "list"
    assert annotations.classes == words


def test_words_separated_by_blanks_are_asked_about_where_they_may_be_either(tmp_path):
    text = "file,tags\n" + "".join(
        f"{k}.jpg,{tag}\n"
        for k, tag in enumerate(["haze primary", "clear", "clear primary", "haze", "primary water"] * 3)
    )
    with pytest.raises(
        InputError, match=r"may hold lists separated by blanks .*--roles 'tags'=list or 'tags'=attribute"
    ):
        read(tmp_path, text)
    assert read(tmp_path, text, roles={"tags": "list"}).classes == ["clear", "haze", "primary", "water"]
    assert len(read(tmp_path, text, roles={"tags": "attribute"}).classes) == 5


def test_a_label_a_row_and_who_looked(tmp_path):
    text = "photo,label,annotator\na.jpg,dog,Ann\na.jpg,fish,Bob\nb.jpg,dog,Ann\n"
    annotations = read(tmp_path, text)
    assert annotations.classes == ["dog", "fish"]
    assert annotations.labels.to_dense().tolist() == [[1, 1], [1, 0]]
    assert roles(annotations) == {"photo": "image", "label": "list", "annotator": "ignored"}


def test_identifiers_are_no_classes_even_where_all_are_1(tmp_path):
    text = "image,id,choice,annotator,worker_id\na.jpg,1,cat,1,0\nb.jpg,1,dog,1,1\n"
    assert set(read(tmp_path, text).groups) == {"choice"}
    assert set(read(tmp_path, "image,hat,photographer\na.jpg,1,0\nb.jpg,0,1\n").groups) == {"hat", "photographer"}
    assert set(read(tmp_path, text, roles={"annotator": "class"}).groups) == {"choice", "annotator"}


def test_words_that_differ_in_case_are_one_value(tmp_path):
    annotations = read(tmp_path, "filename,colour\na,Red\nb,red\nc,BLUE\n")
    assert annotations.classes == ["colour:Red", "colour:BLUE"]
    assert annotations.labels.to_dense().tolist() == [[1, 0], [1, 0], [0, 1]]


def test_two_spellings_of_one_photo_are_one_image(tmp_path):
    (tmp_path / "a.jpg").touch()
    annotations = read(tmp_path, "filename,hat,tie\na,1,\na.jpg,,0\n")
    assert annotations.images == [str(tmp_path / "a.jpg")]
    assert annotations.labels.to_dense().tolist() == [[1, 0]]


def test_nested_json_is_no_label(tmp_path):
    line = {"file_name": "1.png", "hat": 1, "objects": {"bbox": [[1, 2, 3, 4]], "categories": [1, 2]}}
    annotations = read(tmp_path, json.dumps(line) + "\n", "metadata.jsonl")
    assert roles(annotations) == {"file_name": "image", "hat": "class", "objects": "ignored"}


def test_attributes_of_two_words_are_no_lists(tmp_path):
    colours = [
        "light blue",
        "dark blue",
        "light red",
        "dark red",
        "light green",
        "dark green",
        "light grey",
        "dark grey",
    ]
    annotations = read(tmp_path, "filename,colour\n" + "".join(f"{k}.jpg,{c}\n" for k, c in enumerate(colours)))
    assert roles(annotations)["colour"] == "attribute"
    assert len(annotations.classes) == 8


def test_a_blank_list_is_unknown_and_a_word_for_none_is_an_empty_one(tmp_path):
    text = (
        "image,tags\n"
        + "".join(f"{k}.jpg,{'|'.join(row)}\n" for k, row in enumerate(LISTS))
        + "8.jpg,\n9.jpg,No Finding\n"
    )
    annotations = read(tmp_path, text)
    assert annotations.labels[[7, 8]].tolist() == [[-1, -1, -1], [0, 0, 0]]
    other = read(tmp_path, text.replace("No Finding", "healthy"), no_label=["Healthy"])
    assert other.labels == annotations.labels


NO_LABELS = {
    "id": [str(1000 + 7 * k) for k in range(60)], "Unnamed: 0": [str(k) for k in range(60)],
    "age": [str(20 + k % 40) for k in range(60)], "image_width": [str(600 + k % 3) for k in range(60)],
    "date": [f"2024-01-{1 + k % 28:02}" for k in range(60)], "link": [f"https://a.b/{k}.jpg" for k in range(60)],
    "caption": [f"a photo of thing {k}, number {k * k}" for k in range(60)], "site": ["here"] * 60, "empty": [""] * 60,
    "lat": [f"{k / 7:.3f}" for k in range(60)],
}  # fmt: skip


def test_what_is_no_label_is_ignored_and_named(tmp_path):
    frame = pd.DataFrame(
        {"filename": [f"{k}.jpg" for k in range(60)], "hat": [str(k % 2) for k in range(60)], **NO_LABELS}
    )
    frame.to_csv(tmp_path / "labels.csv", index=False)
    annotations = read_attributes(tmp_path / "labels.csv")
    assert annotations.classes == ["hat"]
    assert {name for name, role in roles(annotations).items() if role == "ignored"} == set(NO_LABELS)
    assert all(column.why for column in annotations.columns if column.role == "ignored")
    lines = column_lines(annotations)
    assert lines[0].split() == ["column", "role", "classes", "known", "1", "known", "0", "unknown", "examples"]
    assert any(line.split()[:2] == ["age", "ignored"] for line in lines)
    wanted = read_attributes(tmp_path / "labels.csv", columns=["h*", "site"])
    assert wanted.classes == ["hat", "site:here"]
    assert read_attributes(tmp_path / "labels.csv", columns=["hat..image_width"], ignore_columns=["id"]).groups.keys() == {
        "hat", "Unnamed: 0", "age", "image_width"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["hatt"]}, r"--columns: no column 'hatt' in .*labels.csv, did you mean 'hat'\?"),
        ({"ignore_columns": ["colr"]}, r"--ignore_columns: no column 'colr' .*did you mean 'colour'\?"),
        ({"filename_column": "photo"}, r"--filename_column: no column 'photo' in .*, found filename, hat, colour"),
        ({"roles": {"hat": "label"}}, r"--roles: found hat=label, expected one of image, split"),
        ({"minus_one": "no"}, r"--minus_one no: expected negative or unknown"),
        ({"vote_threshold": 2.0}, r"--vote_threshold 2: expected a share"),
    ],
)
def test_a_misspelt_column_or_word_is_an_error_with_the_nearest_names(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, "filename,hat,colour\na,1,red\nb,0,blue\n", **options)


def test_shares_of_votes_need_a_threshold(tmp_path):
    text = "GalaxyID,smooth,edge\na,0.9,0.25\nb,0.1,0.75\nc,,0.5\n"
    with pytest.raises(InputError, match=r"'smooth' holds numbers between 0 and 1.*--vote_threshold"):
        read(tmp_path, text, filename_column="GalaxyID")
    found = read(tmp_path, text, filename_column="GalaxyID", vote_threshold=0.5)
    assert found.labels.to_dense().tolist() == [[1, 0], [0, 1], [-1, 1]]


def test_shares_of_few_voters_beside_unanimous_columns_are_asked_about(tmp_path):
    text = "filename,cat,dog\na,1,0.333\nb,0,0.667\nc,1,1\n"
    with pytest.raises(
        InputError, match=r"'dog' holds numbers between 0 and 1.*vote_threshold X.*--ignore_columns dog"
    ):
        read(tmp_path, text)
    found = read(tmp_path, text, vote_threshold=0.5)
    assert found.labels.to_dense().tolist() == [[1, 0], [0, 1], [1, 1]]
    assert read(tmp_path, text, ignore_columns=["dog"]).classes == ["cat"]
    quality = text.replace("0.333", "0.8712").replace("0.667", "0.9341")
    assert read(tmp_path, quality).classes == ["cat"]


def test_decimal_commas_are_numbers(tmp_path):
    text = "filename;hat;mass;smooth\n1.jpg;1,0;1,5;0,9\n2.jpg;0,0;2,25;0,25\n3.jpg;1,0;;0,5\n"
    found = read(tmp_path, text, vote_threshold=0.5)
    assert found.classes == ["hat", "smooth"]
    assert found.labels.to_dense().tolist() == [[1, 1], [0, 0], [1, 1]]
    assert any("numbers with decimal commas: 'hat', 'mass', 'smooth'" in note for note in found.notes)
    listed = "filename;labels;codes\n1.jpg;1,5;1,2\n2.jpg;5;3\n3.jpg;1;1,3\n"
    assert read(tmp_path, listed).classes == ["1", "5"]
    both = read(tmp_path, listed, roles={"codes": "list"}, ignore_columns=["labels"])
    assert (both.classes, both.labels.to_dense().tolist()) == (["1", "2", "3"], [[1, 1, 0], [0, 0, 1], [1, 0, 1]])


@pytest.mark.parametrize("end", ["Total,2,5", "Summe:,2,5", ",2,5", "Total,2,5\nMean,0.7,1.7", "合计,2,5"])
def test_rows_of_sums_are_named_and_left_out(tmp_path, end):
    found = read(tmp_path, f"filename,hat,neck\na.jpg,1,2\nb.jpg,0,2\nc.jpg,1,1\n{end}\n")
    assert found.labels.to_dense().tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]
    notes = [note for note in found.notes if "a row of sums? It is left out" in note]
    assert len(notes) == 1 + end.count("\n")
    assert "labels.csv, line 5: found " in notes[0]


def test_an_image_column_in_another_language_is_known_by_its_cells(tmp_path):
    for name in ("a1.jpg", "b2.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").write_text("some words\nand more\n")
    for names in (("a1.jpg", "b2.jpg"), ("a1", "b2")):
        (tmp_path / "labels.csv").write_text(f"Nummer;Bilddatei;Hut\n7;{names[0]};ja\n9;{names[1]};nein\n")
        found = read_annotations(tmp_path, ignore_columns=["Nummer"])
        assert found.labels.to_dense().tolist() == [[1], [0]]
        assert [Path(image).name for image in found.images] == ["a1.jpg", "b2.jpg"]
    assert read(tmp_path, "Fichier,chapeau\nx.png,1\ny.png,0\n").classes == ["chapeau"]  # none is there


def test_a_file_beside_the_table_says_it_once_for_all(tmp_path):
    text = "Photo,hat,colour,Group\na.jpg,1,red,train\nb.jpg,-1,blue,val\n"
    (tmp_path / "labels.toml").write_text(
        'minus_one = "negative"\nignore_columns = ["colour"]\n[roles]\nPhoto = "image"\nGroup = "split"\n'
    )
    annotations = read(tmp_path, text)
    assert roles(annotations) == {"Photo": "image", "hat": "class", "colour": "ignored", "Group": "split"}
    assert annotations.labels.to_dense().tolist() == [[1], [0]]
    assert len(read(tmp_path, text, split="val")) == 1
    assert read(tmp_path, text, minus_one="unknown").labels.to_dense().tolist() == [[1], [-1]]  # a flag wins
    (tmp_path / "labels.toml").write_text("minus = 1\n")
    with pytest.raises(InputError, match=r"labels.toml: found minus = 1, expected filename_column, columns"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("header", "words"),
    [("Split", ["train", "Valid"]), ("subset", ["training", "validation"]), ("partition", ["0", "1"]),
     ("is_valid", ["False", "True"]), ("set", ["train", "dev"])],
)  # fmt: skip
def test_columns_of_splits(tmp_path, header, words):
    text = f"filename,hat,{header}\na.jpg,1,{words[0]}\nb.jpg,0,{words[1]}\n"
    for split, row in (("train", 1), ("val", 0)):
        assert read(tmp_path, text, split=split).labels.to_dense().tolist() == [[row]]


def test_several_rows_of_an_image_are_united(tmp_path):
    text = "filename,hat,tie\na.jpg,1,\nb.jpg,0,1\na.jpg,,0\nb.jpg,1,1\n"
    annotations = read(tmp_path, text)
    assert annotations.labels.to_dense().tolist() == [[1, 0], [-1, 1]]
    assert any("2 rows are further ones of an image: " in note for note in annotations.notes)
    assert any("rows of 'b.jpg' contradict each other in 'hat': not known" in note for note in annotations.notes)


def test_boxes_are_the_presence_of_their_classes(tmp_path):
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "".join(
        f"{name}.jpg,640,480,{label},1,2,30,40\n"
        for name, label in (("a", "car"), ("a", "dog"), ("b", "dog"), ("a", "car"))
    )
    annotations = read(tmp_path, text)
    assert annotations.classes == ["car", "dog"]
    assert annotations.labels.to_dense().tolist() == [[1, 1], [0, 1]]
    assert any("a table of boxes" in note for note in annotations.notes)


# ------------------------------------------------------------------------------------------------- the shape of the file


DIALECTS = {
    "semicolon": lambda f: f.to_csv(index=False, sep=";").encode(),
    "tab": lambda f: f.to_csv(index=False, sep="\t").encode(),
    "sep=;": lambda f: b"sep=;\r\n" + f.to_csv(index=False, sep=";", lineterminator="\r\n").encode(),
    "bom": lambda f: f.to_csv(index=False).encode("utf-8-sig"),
    "utf-16": lambda f: f.to_csv(index=False).encode("utf-16"),
    "cp1252": lambda f: f.to_csv(index=False).encode("cp1252"),
    "pandas index": lambda f: f.to_csv().encode(),
    "blanks after commas": lambda f: f.to_csv(index=False).replace(",", ", ").encode(),
    "JSON lines": lambda f: f.to_json(orient="records", lines=True, force_ascii=False).encode(),
}
UNKNOWN = ["", "#N/A", "None", "NaN", "null", "?"]


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_every_dialect_reads_back(tmp_path_factory, dialect, data):
    number = data.draw(st.integers(2, 6))
    cells = st.lists(st.sampled_from([1, 0, -1]), min_size=number, max_size=number)
    hat = [1, *data.draw(cells)[1:]]
    colours = [
        ["vert", "bleu", "gris clair"][k]
        for k in data.draw(st.lists(st.integers(0, 2), min_size=number, max_size=number))
    ]
    unknown = data.draw(st.sampled_from(UNKNOWN))
    frame = pd.DataFrame(
        {
            "filename": [f"é{k}.jpg" for k in range(number)],
            "hat": [unknown if value < 0 else str(value) for value in hat],
            "colour": colours,
        }
    )
    file = tmp_path_factory.mktemp("dialect") / ("labels.jsonl" if dialect == "JSON lines" else "labels.csv")
    file.write_bytes(DIALECTS[dialect](frame))
    annotations = read_attributes(file, roles={"hat": "class", "colour": "attribute"})
    dense = dict(zip(annotations.classes, annotations.labels.to_dense().T.tolist(), strict=True))
    assert dense["hat"] == hat
    for colour in set(colours):
        assert dense[f"colour:{colour}"] == [int(c == colour) for c in colours]
    assert [Path(image).name for image in annotations.images] == [f"é{k}.jpg" for k in range(number)]


def test_text_files_of_names_and_numbers(tmp_path):
    with_header = read(tmp_path, "2\nBald Young\n1.jpg -1  1\n2.jpg  1 -1\n", "list_attr.txt", minus_one="negative")
    assert with_header.classes == ["Bald", "Young"]
    assert with_header.labels.to_dense().tolist() == [[0, 1], [1, 0]]
    without = read(tmp_path, "a/1.jpg 0 1\na/2.jpg 1 0\n", "train.txt")
    assert without.classes == ["class 0", "class 1"]
    assert any("no header, so the classes are numbered" in note for note in without.notes)


def test_a_manifest_names_its_classes_by_number(tmp_path):
    line = {"source-ref": "s3://bucket/1.jpg", "lab": [1, 0], "lab-metadata": {"class-map": {"0": "cat", "1": "dog"}}}
    (tmp_path / "1.jpg").touch()
    annotations = read(tmp_path, json.dumps(line) + "\n", "labels.manifest")
    assert annotations.classes == ["cat", "dog"]
    assert annotations.images == [str(tmp_path / "1.jpg")]


# ---------------------------------------------------------------------------------------------------- photos are found


@pytest.mark.parametrize(
    ("file", "name", "how"),
    [
        ("a.jpg", "a.jpg", None), ("images/a.jpg", "a.jpg", None), ("a.jpg", "a", "the extension"),
        ("a.png", "a.jpg", "the extension"), ("a.JPG", "a.jpg", "case"), ("sub/a.jpg", "sub\\a.jpg", "slashes"),
        ("a.jpg", "./a.jpg", None), ("a.jpg", "/a.jpg", "slashes"), ("a b.jpg", "a%20b.jpg", "slashes or escapes"),
        ("Kle\u0301id.jpg", "Kléid.jpg", "Unicode"), ("a.jpg", "https://x.y/z/a.jpg", "address"),
        ("train/a.jpg", "a.jpg", None),
    ],
)  # fmt: skip
def test_a_photo_is_found_under_another_spelling(tmp_path, file, name, how):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    (tmp_path / "other.jpg").touch()
    annotations = read(tmp_path, f"filename,hat\n{name},1\n")
    assert list(map(os.path.normpath, annotations.images)) == [str(tmp_path / file)]
    assert (how is None) == (not annotations.notes)
    assert how is None or how in annotations.notes[0]


def test_a_name_that_may_be_two_photos_is_refused_and_none_found_is_one_hint(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"'a' may be a.jpg or a.png; expected one image"):
        read(tmp_path, "filename,hat\na,1\n")
    annotations = read(tmp_path, "filename,hat\nx.jpg,1\ny.jpg,0\n")
    (note,) = annotations.notes
    assert note.startswith(f"no photo is found: 'x.jpg' was looked for as {tmp_path / 'x.jpg'}, ")
    assert note.endswith(f"; {tmp_path}/ holds 'a.jpg': expected names like that, or --images FOLDER")
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).unlink()
    with pytest.raises(
        InputError, match="labels.csv: no photo is found: .*; no photo lies there: --images names their"
    ):
        read(tmp_path, "filename,hat\nx.jpg,1\ny.jpg,0\n").expect_photos()


# ------------------------------------------------------------------------------------------------------------- inspect


def test_inspect_says_what_is_read(tmp_path, capsys):
    from csl.__main__ import main

    text = "filename,hat,tags,split\n" + "".join(
        f"{k}.jpg,{k % 2},{' '.join(row)},{'val' if k > 4 else 'train'}\n" for k, row in enumerate(LISTS)
    )
    (tmp_path / "labels.csv").write_text(text)
    (tmp_path / "0.jpg").touch()
    assert main(["inspect", str(tmp_path / "labels.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: part["images"] for name, part in found["splits"].items()} == {"train": 5, "val": 2}
    assert found["splits"]["train"]["classes"] == ["hat", "bird", "cat", "dog"]
    assert [(column["name"], column["role"]) for column in found["columns"]] == [
        ("filename", "image"), ("hat", "class"), ("tags", "list"), ("split", "split"),
    ]  # fmt: skip
    assert found["splits"]["train"]["positives"] + found["splits"]["train"]["negatives"] == 20
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 of 5 photos are there" in said
    assert "separated by blanks; unlisted: negative" in said
    columns = {column["name"]: column["examples"] for column in found["columns"]}
    assert columns["split"] == ["train", "val"]  # of the whole table
    (tmp_path / "labels.csv").write_text("filename,hat\n0.jpg,1\n1.jpg,0\n")
    report, _ = inspect(DataOptions(data=str(tmp_path / "labels.csv")))
    assert list(report["splits"]) == ["all"]


def test_a_patient_in_both_splits_is_said(tmp_path):
    rows = "".join(
        f"{k}.jpg,{k % 2},{'P1 ' if k == 5 else k // 2},{'val' if k in (1, 5, 6) else 'train'}\n" for k in range(8)
    )
    (tmp_path / "labels.csv").write_text("filename,hat,patient_id,split\n" + rows)
    report, _ = inspect(DataOptions(data=str(tmp_path)))
    (said,) = [note for note in report["notes"] if "flatters" in note]
    assert said == "2 images of train have the 'patient_id' of one of val, which flatters the results: '0.jpg', '7.jpg'"


def test_the_same_photo_in_both_splits_is_said(tmp_path):
    for split, content in (("train", b"same"), ("val", b"same")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0.jpg").write_bytes(content)
        (tmp_path / split / "1.jpg").write_bytes(split.encode())
    text = "filename,hat,split\n{}train/0.jpg,1,train\ntrain/1.jpg,0,train\nval/0.jpg,1,val\nval/1.jpg,0,val\n"
    (tmp_path / "labels.csv").write_text(text.format("val/0.jpg,1,train\n"))
    report, lines = inspect(DataOptions(data=str(tmp_path)))
    notes = [
        "1 images are in train and in val, which flatters the results: '0.jpg'",
        "1 images of train have the name and the size of one of val, perhaps the same photo: '0.jpg'",
    ]
    assert [note for note in report["notes"] if "images" in note] == notes
    assert set(notes) < set(lines)
    (tmp_path / "labels.csv").write_text(text.format(""))
    report, _ = inspect(DataOptions(data=str(tmp_path)))
    assert [note for note in report["notes"] if "images" in note] == notes[1:]
