"""Which columns of a table hold labels, by their names and cells; what is ignored is named, what is open is asked."""

import json

import pytest

from csl.errors import InputError
from csl.labels import read_annotations, read_attributes


def read(tmp_path, cells_of, **options):
    """The annotations of a table with these columns, {name: cells that repeat}, of photos 0.jpg to 11.jpg."""
    rows = [",".join(["filename", *cells_of])]
    for k in range(12):
        cells = [str(cells[k % len(cells)]) for cells in cells_of.values()]
        rows.append(",".join([f"{k}.jpg", *(f'"{cell}"' if "," in cell else cell for cell in cells)]))
    (tmp_path / "labels.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    return read_attributes(tmp_path / "labels.csv", **options)


def roles(annotations):
    return {column.name: column.role for column in annotations.columns}


CODES = ("study_id", "patient_id", "PatientID", "patientid", "subject", "case", "Patient", "SubjectNo", "exam_key")


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("cells", [[3, 3, 5, 8], ["P01", "P02", "P02"]])
def test_codes_of_patients_and_studies_are_no_classes(tmp_path, name, cells):
    found = read(tmp_path, {"hat": [1, 0], name: cells})
    assert found.classes == ["hat"]
    assert [c.why for c in found.columns if c.name == name] == ["identifiers or counts, by its name no label"]
    with pytest.raises(InputError, match=rf"no column holds labels: {name} \(identifiers .*--columns NAMES"):
        read(tmp_path, {name: cells})
    assert set(read(tmp_path, {"hat": [1, 0], name: cells}, columns=[name]).groups) == {name}


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("fold", range(5)), ("kfold", [0, 1, 2, 3]), ("Fold", ["fold1", "fold2", "fold4"]), ("zip", ["01234", "99999"]),
        ("plz", [80331, 10115]), ("postcode", ["SW1A 1AA", "E1 6AN"]),
        ("Patient", ["Maier", "Huber"]), ("Nr", [5, 7]), ("Fall", ["F1", "F2"]), ("sku", ["A1", "B2"]),
        ("bbox_count", [0, 1]), ("num_boxes", [1, 2, 4]),
        ("count", [3, 1]), ("Groesse_cm", [170, 180]), ("Größe", [1, 2, 3]), ("hand_mm", [8, 9]), ("masse_kg", [50, 70]),
        ("size", [1, 2, 3]), ("score", ["0.5", "0.25", "1"]), ("confidence", [1, 1, 0]), ("patient_id", [1, 1, 0]),
        ("CaseNo", [1, 0]),
    ],
)  # fmt: skip
def test_counts_measures_and_codes_are_ignored_and_named(tmp_path, name, cells):
    found = read(tmp_path, {"hat": [1, 0], name: list(cells)})
    assert found.classes == ["hat"]
    assert roles(found)[name] == "ignored"
    assert all(column.why for column in found.columns if column.name == name)


@pytest.mark.parametrize(
    ("name", "cells", "count"),
    [("subject", ["portrait", "landscape"], 2), ("phone_case", [1, 0], 1), ("case", [1, 0], 1), ("zip", [1, 0], 1),
     ("size", ["S", "M", "L"], 3), ("sleeve_length", [0, 1, 2], 3),
     ("year", [2010, 2012], 2), ("vehicle", ["train", "bus"], 2)],
)  # fmt: skip
def test_labels_that_are_called_alike_stay_labels(tmp_path, name, cells, count):
    assert len(read(tmp_path, {"hat": [1, 0], name: cells}).classes) == 1 + count


# ------------------------------------------------------------------------------------------------------------ the split


@pytest.mark.parametrize(
    ("name", "cells", "said"),
    [
        ("usage", ["train", "train", "test"], ""), ("Type", ["Training", "val", "val"], ": Training is train"),
        ("dataset", ["train", "valid", "test"], ": valid is val"), ("fold", [0, 1, 2], ": 0 is train, 1 is val, 2 is test"),
        ("is_train", [1, 0, 0], ": 0 is val, 1 is train"), ("is_test", ["no", "yes"], ": no is train, yes is test"),
        ("Menge", ["Training", "Validierung"], ": Training is train, Validierung is val"),
    ],
)  # fmt: skip
def test_a_column_of_split_words_is_the_split_and_said(tmp_path, name, cells, said):
    found = read(tmp_path, {"hat": [1, 0], name: cells}, split="train")
    assert (roles(found)[name], found.classes) == ("split", ["hat"])
    assert f"column {name!r} says the split{said}" in found.notes
    assert len(found) < 12
    assert read(tmp_path, {"hat": [1, 0], name: cells}, roles={name: "ignored"}).classes == ["hat"]


@pytest.mark.parametrize(
    ("name", "cells", "stray"),
    [
        ("usage", ["train", "val", ""], "line 4, column 'usage': found ''"),
        ("subset", ["train", "val", "holdout"], "line 4, column 'subset': found 'holdout'"),
        ("set", [0, 1, 2, 3], "line 5, column 'set': found '3'"),
        ("is_valid", ["True", ""], "line 3, column 'is_valid': found ''"),
        ("Usage", ["Training", "PublicTest"], "line 3, column 'Usage': found 'PublicTest'"),
    ],
)
def test_a_split_with_other_words_is_asked_about(tmp_path, name, cells, stray):
    with pytest.raises(InputError, match=rf"{stray}, .* expected train, val or test .*--roles {name}=ignored"):
        read(tmp_path, {"hat": [1, 0], name: cells})
    assert read(tmp_path, {"hat": [1, 0], name: cells}, ignore_columns=[name]).classes == ["hat"]


def test_another_split_beside_the_split_is_no_class(tmp_path):
    found = read(
        tmp_path, {"hat": [1, 0], "split": ["train", "val"], "fold": [0, 1, 2], "is_test": [0, 1]}, split="val"
    )
    assert (found.classes, len(found)) == (["hat"], 6)
    assert {column.why for column in found.columns if column.role == "ignored"} == {"words of a split, beside 'split'"}
    alone = read(tmp_path, {"hat": [1, 0], "usage": ["train"]})
    assert (alone.classes, roles(alone)["usage"]) == (["hat"], "ignored")


# ---------------------------------------------------------------------------------------------------------------- boxes


def boxes(tmp_path, header, *rows, **options):
    (tmp_path / "labels.csv").write_text("\n".join([header, *rows, ""]))
    return read_attributes(tmp_path / "labels.csv", **options)


@pytest.mark.parametrize(
    "places",
    ["x,y,w,h", "x_center,y_center,width,height", "left,top,right,bottom", "XMin,YMin,XMax,YMax", "bbox_x,bbox_y,bbox_w,bbox_h",
     "box_left,box_top,box_width,box_height", "cx,cy,w,h", "x0,y0,x1,y1"],
)  # fmt: skip
def test_boxes_under_any_usual_name(tmp_path, places):
    for kind, cells in (("label", "1,2,30,4"), ("species", "0.1,0.2,0.3,0.5"), ("kind", "0,0,1,2")):
        rows = (
            f"{name}.jpg,{label},{cells}" for name, label in (("a", "car"), ("a", "dog"), ("b", "dog"), ("a", "car"))
        )
        found = boxes(tmp_path, f"image,{kind},{places}", *rows)
        assert (found.classes, found.labels.to_dense().tolist()) == (["car", "dog"], [[1, 1], [0, 1]])
        assert f"a table of boxes: an image has each class of column {kind!r} that it has a box of" in found.notes
        assert [column.why for column in found.columns if column.role == "ignored"] == ["of a box"] * 4


def test_boxes_of_numbered_classes_two_columns_and_none(tmp_path):
    numbered = boxes(tmp_path, "image,kind,x1,y1,x2,y2", "a.jpg,0,1,2,3,4", "a.jpg,2,1,2,3,4", "b.jpg,2,1,2,3,4")
    assert (numbered.classes, numbered.labels.to_dense().tolist()) == (["0", "2"], [[1, 1], [0, 1]])
    two = ("image,kind,colour,x,y,w,h", "a.jpg,cat,red,1,2,3,4", "a.jpg,dog,blue,1,2,3,4", "b.jpg,dog,red,1,2,3,4")
    with pytest.raises(InputError, match=r"a table of boxes: 'kind', 'colour' may hold .*--roles NAME=list"):
        boxes(tmp_path, *two)
    said = boxes(tmp_path, *two, roles={"kind": "list"})
    assert (said.classes, said.labels.to_dense().tolist()) == (["cat", "dog"], [[1, 1], [0, 1]])
    with pytest.raises(InputError, match=r"no column holds labels: x \(of a box\)"):
        boxes(tmp_path, "image,x,y,w,h", "a.jpg,1,2,3,4")
    assert boxes(tmp_path, "image,xmin,ymin,xmax,ymax,hat", "a.jpg,1,2,3,4,1", "b.jpg,1,2,3,4,0").classes == ["hat"]
    way = boxes(tmp_path, "image,left,top,right,bottom", "a.jpg,0,1,1,0", "b.jpg,1,1,0,0")
    assert way.labels.to_dense().tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]


def via(name, region, photo="{}"):
    cells = [name, 123, photo, 1, 0, json.dumps({"name": "rect", "x": 1, "y": 2}), json.dumps(region)]
    return ",".join(f'"{cell}"' for cell in [str(cell).replace('"', '""') for cell in cells])


VIA = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        (VIA, [via("a.jpg", {"class": "cat"}), via("a.jpg", {"class": "dog"}), via("b.jpg", {"class": "dog"})]),
        (f"#{VIA}", [via("a.jpg", {"kind": "cat"}), via("a.jpg", {"kind": "dog"}), via("b.jpg", {"kind": "dog"})]),
        (VIA, [via("a.jpg", {"pet": {"cat": True, "dog": True}}), via("b.jpg", {"pet": {"dog": True, "cat": False}})]),
        (VIA, [via("a.jpg", {"class": "cat", "cut": "no"}, '{"caption": ""}'), via("a.jpg", {"class": "dog", "cut": "yes"}),
               via("b.jpg", {"class": "dog"})]),
        (VIA, [via("a.jpg", {}, '{"pet": {"cat": true, "dog": true}}'), via("b.jpg", {}, '{"pet": {"dog": true}}')]),
    ],
)  # fmt: skip
def test_regions_of_the_vgg_image_annotator(tmp_path, head, rows):
    found = boxes(tmp_path, head, *rows)
    assert (found.classes, found.labels.to_dense().tolist()) == (["cat", "dog"], [[1, 1], [0, 1]])
    assert any("a table of boxes" in note for note in found.notes)


def test_a_list_without_any_label_is_no_table_of_labels(tmp_path):
    with pytest.raises(InputError, match="no column holds labels"):
        read(tmp_path, {"tags": ["[]"]})


# ------------------------------------------------------------------------------------------------- the names of photos


@pytest.mark.parametrize(
    ("table", "photos"),
    [
        ("id_code,diagnosis\n00000,1\n0123,0\n", ["00000.png", "0123.png"]),
        ("code,diagnosis\n00000,1\n0123,0\n", ["00000.png", "0123.png"]),
        ("id,cat\n0123,1\n0007,0\n", ["0123.jpg", "0007.jpg"]),
        ("patient_id,cat\n0123.jpg,1\n0007.jpg,0\n", ["0123.jpg", "0007.jpg"]),
        ("cat,code\n1,100\n0,101\n", ["100.jpg", "101.jpg", "0.jpg", "1.jpg"]),
        ("id,datei,cat\n1,10.jpg,1\n2,11.jpg,0\n", ["10.jpg", "11.jpg", "1.jpg", "2.jpg"]),
    ],
)
def test_numbers_that_name_photos_keep_their_zeros(tmp_path, table, photos):
    for photo in photos:
        (tmp_path / photo).touch()
    (tmp_path / "labels.csv").write_text(table)
    for path in (tmp_path, tmp_path / "labels.csv"):
        found = read_annotations(path)
        assert found.images == [str(tmp_path / photo) for photo in photos[:2]]
        assert found.labels.to_dense().tolist() == [[1], [0]]


def test_the_column_of_photos_that_is_said_makes_a_folder_a_table(tmp_path):
    (tmp_path / "labels.csv").write_text("code,cat\n001,1\n002,0\n")
    (tmp_path / "Bilder").mkdir()
    (tmp_path / "Bilder" / "001.jpg").touch()
    assert read_annotations(tmp_path).classes == ["cat"]  # by the photos that it names
    (tmp_path / "Bilder" / "001.jpg").unlink()
    with pytest.raises(InputError, match="annotations not recognised"):
        read_annotations(tmp_path)
    with pytest.raises(InputError, match=r"--filename_column: no column 'cod' in .*: labels.csv has 'code', 'cat'"):
        read_annotations(tmp_path, filename_column="cod")
    assert len(read_annotations(tmp_path, filename_column="code", images=tmp_path / "Bilder")) == 2
    (tmp_path / "labels.toml").write_text('filename_column = "code"\n')
    assert read_annotations(tmp_path).classes == ["cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('colums = ["a"]', r"colums = \['a'\], expected filename_column, columns, .*; did you mean columns\?"),
        ('columns = "a"', "columns = 'a', expected a list of texts"), ("no_label = [1]", r"= \[1\], expected a list of texts"),
        ("vote_threshold = true", "= True, expected a number"), ('attributes = {neck = "7"}', "expected a table of sizes"),
        ("roles = {hat = 1}", "expected a table of roles"), ("filename_column = 3", "expected a text"),
        ('roles = {hat = "clas"}', "--roles: found hat=clas, expected one of"),
        ('minus_one = "no"', "--minus_one no: expected"), ("a b", "not TOML in UTF-8"),
    ],
)  # fmt: skip
def test_what_labels_toml_says_wrongly_is_one_line_with_the_file(tmp_path, text, message):
    (tmp_path / "labels.toml").write_text(text + "\n")
    with pytest.raises(InputError, match=rf"^{tmp_path}/labels.toml: .*{message}"):
        read(tmp_path, {"hat": [1, 0]})
