"""read_annotations: which reader is chosen, and what is said where none is."""

import json
import pickle
import re

import pytest

from csl import __main__ as tools
from csl.errors import InputError
from csl.labels import Annotations, read_annotations

COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
)
CSV = "filename,neck,split\na.jpg,2,train\nb.jpg,0,val\n"


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("annotations/instances_train2014.json", "train2014"),
        ("annotations/instances_train2017.json", "train2017"),
        ("train.json", ""),
    ],
)
def test_coco_is_recognised(tmp_path, name, images):
    file = write(tmp_path / name, COCO)
    for path in (tmp_path, file, str(file)):
        annotations = read_annotations(path)
        assert isinstance(annotations, Annotations)
        assert annotations.images == [str(tmp_path / images / "a.jpg")]
        assert annotations.source == str(file)
    assert len(read_annotations(tmp_path, split="train", keep_unlabelled_images=True)) == 2


def test_a_folder_with_one_split_is_still_coco(tmp_path):
    write(tmp_path / "val.json", COCO)
    assert len(read_annotations(tmp_path, split="val")) == 1
    with pytest.raises(InputError, match="no COCO file of the train split"):
        read_annotations(tmp_path, split="train")


@pytest.mark.parametrize("name", ["attributes.csv", "attributes_train.csv", "train.csv", "labels.csv"])
def test_attributes_are_recognised(tmp_path, name):
    file = write(tmp_path / name, CSV)
    for path in (tmp_path, file):
        annotations = read_annotations(path, split="train", attributes={"neck": 7})
        assert annotations.source == str(file)
        assert annotations.labels.shape == (1, 7)
    assert read_annotations(file, images="pictures").images == ["pictures/a.jpg", "pictures/b.jpg"]


def test_a_broken_attributes_file_is_explained_by_its_reader(tmp_path):
    write(tmp_path / "attributes.csv", "thing;neck\na;1\n")
    with pytest.raises(
        InputError,
        match=r"attributes.csv, line 1: no 'filename' column, found 'thing', 'neck'; .*NAME",
    ):
        read_annotations(tmp_path)


def test_options_at_their_default_suit_every_format(tmp_path):
    defaults = {"attributes": None, "ignore_columns": (), "classes": None, "groups": None}
    defaults["keep_unlabelled_images"] = False
    assert read_annotations(write(tmp_path / "a.csv", CSV), **defaults).classes == ["Neck 0", "Neck 1", "Neck 2"]
    assert read_annotations(write(tmp_path / "a.json", COCO), **defaults).classes == ["cat"]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.json", COCO, {"ignore_columns": ["title"]}, "ignore_columns: .* read as COCO.*expected a table"),
        ("a.json", COCO, {"attributes": {"neck": 7}}, "attributes: .* read as COCO"),
        ("a.csv", CSV, {"keep_unlabelled_images": True}, "keep_unlabelled_images: .* read as a table"),
    ],
)
def test_options_of_another_format(tmp_path, name, text, options, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path / name, text), **options)


def test_an_option_that_no_format_has(tmp_path):
    with pytest.raises(TypeError, match=r"unexpected options \['ignore'\]"):
        read_annotations(tmp_path, ignore=["title"])


def test_layouts_can_be_forced(tmp_path):
    data, metadata = tmp_path / "data", tmp_path / "metadata"
    write(metadata / "train.json", COCO)
    write(data / "annotations" / "instances_train2014.json", COCO)
    write(data / "annotations" / "instances_train2017.json", COCO)
    write(data / "train.json", COCO)
    on_farm = read_annotations(data, split="train", layout="on_farm")
    assert on_farm.images == [str(data / "train2014" / "a.jpg")]
    assert read_annotations(data, layout="on_farm", images="x").images == ["x/a.jpg"]
    for options in ({"layout": "hyperml", "metadata": metadata}, {"metadata": str(metadata)}):
        hyperml = read_annotations(data, **options)
        assert hyperml.images == [str(data / "a.jpg")]
        assert hyperml.source == str(metadata / "train.json")
    assert read_annotations(data, layout="hyperml").source == str(data / "train.json")
    assert len(read_annotations(data, layout="hyperml", keep_unlabelled_images=True)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "farm"}, "--debug_mode: found 'farm', expected one of on_farm, hyperml"),
        ({"layout": "on_farm"}, "instances_train2014.json: no such file, expected it for the layout on_farm"),
        ({"layout": "hyperml", "split": "val"}, "val.json: no such file"),
        ({"layout": "on_farm", "metadata": "x"}, "--metadata: found x, expected none"),
        ({"layout": "hyperml", "ignore_columns": ["a"]}, "ignore_columns: .* read as COCO"),
    ],
)
def test_layouts_that_are_not_there(tmp_path, options, message):
    write(tmp_path / "train.json", COCO)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("notes.txt", "", "found a file of type .txt"),
        ("labels", "", r"found a file of type \(none\)"),
        ("a.csv", "", r"found a CSV with the columns \(none\)"),
        ("a.json", '{"samples": [], "names": []}', "found JSON with the keys 'samples', 'names'"),
        ("a.json", '{"samples": [', r"found JSON that does not parse, line 1"),
        ("a.json", "", "found JSON that does not parse"),
        ("a.json", "[]", "found a JSON list"),
    ],
)
def test_what_is_not_recognised(tmp_path, name, text, found):
    file = write(tmp_path / name, text)
    with pytest.raises(InputError, match=found) as error:
        read_annotations(file)
    assert str(file) in str(error.value)
    three_lines(error.value)


def three_lines(error):
    """Found, lacking, expected: with a flag or command, each short."""
    found, lacks, expected = str(error).splitlines()
    assert ": annotations not recognised: found " in found
    assert "missing " in lacks
    assert expected.startswith("expected ")
    assert "--data" in expected
    assert max(map(len, (found, lacks, expected))) < 240 + len(str(found.partition(": annotations")[0]))
    return found.partition(": found ")[2], lacks, expected


WITHOUT_CATEGORIES = json.dumps({key: value for key, value in json.loads(COCO).items() if key != "categories"})


@pytest.mark.parametrize(
    ("files", "found", "lacks", "expected"),
    [
        ({}, "nothing", "like no known format: missing annotations", "OpenImages, .*, a table, .*, a folder a class: --data"),
        (
            {**{f"{n:03}.jpg": "" for n in range(240)}, "labels.xlsx": "", "a/1.jpg": "", "b/1.jpg": ""},
            r"240 .jpg (000.jpg, ...), 1 .xlsx (labels.xlsx), folders a, b",
            "most like data in another form: missing labels.xlsx saved as CSV",
            "it saved as CSV, then --data",
        ),
        ({"a.zip": ""}, "1 .zip (a.zip)", "missing a.zip unpacked", "it unpacked"),
        ({"a/1.jpg": ""}, "folder a", "most like photos without labels: missing a table", "attributes.csv .* --images DIR"),
        ({"lvis_v1_train.json": COCO}, "1 .json (lvis_v1_train.json)",
         "most like LVIS: missing 'neg_category_ids' in lvis_v1_train.json",
         "--data .*lvis_v1_train.json, which is read as COCO"),
        ({"x/labels.json": COCO}, "folder x", "most like COCO: missing its usual name",
         r"--data \S*/x, which is read as COCO$"),
        ({"train.json": WITHOUT_CATEGORIES}, "1 .json (train.json)", "most like COCO: missing 'categories' in train.json",
         "annotations/instances_{train,val}"),
        ({"x/y/annotations/instances_train2014.json": COCO}, "folder x", "most like COCO: missing its usual place",
         r"--data \S*/x/y, which is read as COCO$"),
        ({"JPEGImages/1.jpg": "", "ImageSets/train.txt": ""}, "folders ImageSets, JPEGImages",
         "most like Pascal VOC: missing Annotations/*.xml, ImageSets/Main/*.txt", "ImageSets/Main/{train,val,test}.txt"),
        ({"ImageList/a.txt": "", "Concepts81.txt": ""}, "1 .txt (Concepts81.txt), folder ImageList", "most like NUS-WIDE: ",
         "Groundtruth/TrainTestLabels"),
        ({"oidv6-class-descriptions.csv": "LabelName,DisplayName\n"}, "1 .csv (oidv6-class-descriptions.csv)",
         "most like OpenImages: missing 'LabelName' in *annotations*.csv", "data.csv with filepath"),
        ({"labels.csv": "thing,red\n1,0\n"}, "1 .csv (labels.csv)", "most like a table: missing a column in labels.csv",
         "--data .*labels.csv --filename_column NAME"),
        ({"a/1.txt": "", "labels/1.txt": "0 .5 .5 1 1", "images/1.jpg": ""}, "folders a, images, labels",
         "most like YOLO: missing data.yaml", "data.yaml with names, classes.txt or obj.names"),
        ({"data.yaml": "names: [cat]", "images/1.jpg": ""}, "1 .yaml (data.yaml), folder images",
         "most like YOLO: missing labels/", "labels/{train,val}"),
        ({"1.json": '{"shapes": []}', "1.jpg": ""}, "1 .jpg (1.jpg), 1 .json (1.json)",
         "most like JSON of another tool: missing the keys of COCO's, Datumaro's or Label Studio's in 1.json",
         "--data FILE in one of these, in YOLO's"),
        ({"a.tar": ""}, "1 .tar (a.tar)", "most like tar shards: missing shards.json", "--data .*a.tar"),
    ],
)  # fmt: skip
def test_what_a_folder_resembles(tmp_path, files, found, lacks, expected):
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(InputError) as error:
        read_annotations(tmp_path)
    what = three_lines(error.value)
    assert what[0] == found
    assert lacks in what[1]
    assert re.search(expected, what[2])


@pytest.mark.parametrize("command", ["train --data", "inspect", "prepare shards --out out --data"])
def test_every_script_prints_the_three_lines(tmp_path, command, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "a\nb.jpg", "")
    assert tools.main([*command.split(), "data"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert r"found 1 .jpg (a\nb.jpg)" in lines[0]


def test_an_error_of_several_lines_survives_a_process():
    error = pickle.loads(pickle.dumps(InputError("a\nb", "c")))
    assert str(error) == "a\\nb\nc"


def test_no_such_path(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        read_annotations(tmp_path / "nowhere")


def test_a_long_list_of_columns_is_cut_short(tmp_path):
    file = write(tmp_path / "a.csv", ",".join(f"some_long_name_of_column_{n}" for n in range(300)) + "\n")
    for options in ({}, {"filename_column": "no_such"}, {"columns": ["none*"]}):
        with pytest.raises(InputError) as error:
            read_annotations(file, **options)
        assert len(str(error.value)) < 400 + len(str(file))


def test_real_data_is_recognised(real):
    assert read_annotations(real("coco_mini.zip"), split="val").labels.shape == (79, 80)
    assert read_annotations(real("fashion80.zip"), split="val").labels.shape == (8000, 80)
    assert read_annotations(real("clothing_attributes.zip"), split="val").labels.shape == (381, 36)
