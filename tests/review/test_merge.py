"""`csl review --merge`: labels with the answers in them, read back by the reader, and every other byte as it was."""

import difflib
import json
from pathlib import Path

import numpy as np
import pytest

from csl import InputError
from csl.__main__ import main
from csl.labels import read_annotations


def run_of(folder, rows, data="photos", **settings):
    """A run of data in a folder, with answers beside the data: image, class, answer."""
    (folder / "outputs").mkdir()
    (folder / "outputs" / "config.json").write_text(json.dumps({"data": data, **settings}))
    lines = [f"{image},{name},{answer},,2026-01-01" for image, name, answer in rows]
    (folder / "photos" / "reviews.csv").write_text("\n".join(["image,class,answer,score,when", *lines, ""]))


def changed(before, after):
    """The lines of two texts of bytes that differ, `-` of the first and `+` of the second."""
    texts = [data.decode("latin-1").splitlines(keepends=True) for data in (before, after)]
    return [line for line in difflib.ndiff(*texts) if line[0] in "+-"]


TABLES = {
    "attributes.csv": (
        'filename,note,neck,colour,hat,split\r\na.jpg,"x, ""y""",2,"red",1,train\r\nb.jpg,,#N/A,blue ,0,val\r\n'
        "c.jpg,caf\xe9,1,red,?,train\nd.jpg,,0,,1,val".encode("cp1252"),
        [("b.jpg", "Neck 1", "yes"), ("a.jpg", "colour:blue", "yes"), ("c.jpg", "hat", "no"), ("d.jpg", "colour:blue", "yes"),
         ("a.jpg", "Neck 2", "yes")],
        ['- a.jpg,"x, ""y""",2,"red",1,train\r\n', '+ a.jpg,"x, ""y""",2,"blue",1,train\r\n',
         "- b.jpg,,#N/A,blue ,0,val\r\n", "+ b.jpg,,1,blue ,0,val\r\n",
         "- c.jpg,caf\xe9,1,red,?,train\n", "+ c.jpg,caf\xe9,1,red,0,train\n",
         "- d.jpg,,0,,1,val", "+ d.jpg,,0,blue ,1,val"],
    ),
    "labels.csv": (
        "\ufeffBild;Hut;Schal\na.jpg;Yes;No\nb.jpg;Yes;N/A\nc.jpg;N/A;N/A\n".encode(),
        [("c.jpg", "Hut", "no"), ("b.jpg", "Schal", "yes")],
        ["- b.jpg;Yes;N/A\n", "+ b.jpg;Yes;Yes\n", "- c.jpg;N/A;N/A\n", "+ c.jpg;No;N/A\n"],
    ),
    "tags.csv": (
        b"image_name,tags\na.jpg,haze|primary\nb.jpg,primary\nc.jpg,haze\nd.jpg,haze|primary|water\n",
        [("b.jpg", "water", "yes"), ("d.jpg", "haze", "no"), ("c.jpg", "haze", "yes")],
        ["- b.jpg,primary\n", "+ b.jpg,primary|water\n", "- d.jpg,haze|primary|water\n", "+ d.jpg,primary|water\n"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_cells_of_a_table_are_written_as_the_table_writes_them(tmp_path, monkeypatch, capsys, name):
    content, answers, lines = TABLES[name]
    monkeypatch.chdir(tmp_path)
    source = Path("photos", name)
    source.parent.mkdir()
    source.write_bytes(content)
    run_of(tmp_path, answers)
    assert main(["review", "outputs", "--merge", "new.csv"]) == 0
    after = Path("new.csv").read_bytes()
    assert [line.replace("\n", "") for line in changed(content, after)] == [line.replace("\n", "") for line in lines]
    assert source.read_bytes() == content
    assert "cannot be said" not in capsys.readouterr().out
    answered, merged = read_annotations("photos"), read_annotations("new.csv", images="photos")
    # Words are numbered as they come in the file: an answer may bring one forward.
    order = [merged.classes.index(name) for name in answered.classes]
    assert sorted(order) == list(range(len(merged.classes)))
    np.testing.assert_array_equal(merged.labels.to_dense()[:, order], answered.labels.to_dense())


def test_what_a_cell_cannot_say_is_counted_and_an_earlier_file_is_moved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/attributes.csv").write_text("filename,neck\na.jpg,2\nb.jpg,#N/A\nc.jpg,0\nd.jpg,2\n")
    run_of(tmp_path, [("b.jpg", "Neck 1", "no"), ("c.jpg", "Neck 1", "yes"), ("d.jpg", "Neck 2", "no")])
    Path("outputs/merged").mkdir()
    Path("outputs/merged/attributes.csv").write_text("mine")
    assert main(["review", "outputs", "--merge"]) == 0
    said = capsys.readouterr().out
    assert (
        Path("outputs/merged/attributes.csv").read_text() == "filename,neck\na.jpg,2\nb.jpg,#N/A\nc.jpg,1\nd.jpg,#N/A\n"
    )
    assert "2 labels cannot be said in this file: keep photos/reviews.csv beside it" in said
    assert [file.read_text() for file in Path("outputs/merged").glob("earlier-*/attributes.csv")] == ["mine"]


COCO = """{"info": {"a": [1, 2]}, "images": [
 {"id": 7, "file_name": "a.jpg", "width": 30, "height": 20},   {"id": 8, "file_name": "b.jpg"}],
 "annotations" : [ {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4.50]},
    {"id": 5, "image_id": 7,  "category_id": 2},{"id": 4, "image_id": 8, "category_id": 2}
  ],
 "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "d\\u00f6g"}]}\n"""


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("a.jpg", "d\xf6g", "no")], COCO.replace('{"id": 5, "image_id": 7,  "category_id": 2},', "")),
        ([("b.jpg", "d\xf6g", "no"), ("b.jpg", "cat", "yes")], None),
        ([("a.jpg", "cat", "no"), ("a.jpg", "d\xf6g", "no"), ("b.jpg", "d\xf6g", "no")], None),
        ([("a.jpg", "cat", "yes"), ("b.jpg", "cat", "no")], COCO),
    ],
)
def test_objects_of_coco_are_taken_out_and_added(tmp_path, monkeypatch, answers, expected):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    source = Path("photos/train.json")
    source.write_text(COCO)
    run_of(tmp_path, answers)
    assert main(["review", "outputs", "--merge", "new"]) == 0
    new = Path("new/train.json")
    if expected == COCO:
        assert not new.exists()
        return
    if expected is not None:
        assert new.read_text() == expected
    answered = read_annotations("photos", keep_unlabelled_images=True)
    merged = read_annotations(new, images="photos", keep_unlabelled_images=True)
    np.testing.assert_array_equal(merged.labels.to_dense(), answered.labels.to_dense())
    cut = [text[: text.index('"annotations"')] for text in (COCO, new.read_text())]
    assert cut[0] == cut[1]
    assert new.read_text().endswith(COCO[COCO.index("\n  ],") :])
    assert source.read_text() == COCO


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--merge", "photos/attributes.csv"], "--merge photos/attributes.csv: is the file with the labels"),
        (["--merge", "x.csv", "--reviews", "none"], "--reviews none: answers need a file"),
        (["--merge", "x.csv", "--reviews", "gone.csv"], "--merge: there are no answers, expected gone.csv"),
        (["--merge", "x", "--data", "voc"], "is written neither as a table nor as COCO"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/attributes.csv").write_text("filename,hat\na.jpg,1\nb.jpg,#N/A\nc.jpg,0\n")
    run_of(tmp_path, [("b.jpg", "hat", "no")])
    for name in ("1", "2"):
        file = Path("voc", "cat" if name == "1" else "hat", f"{name}.jpg")
        file.parent.mkdir(parents=True)
        file.touch()
    Path("voc/reviews.csv").write_text("image,class,answer,score,when\ncat/1.jpg,hat,yes,,2026-01-01\n")
    assert main(["review", "outputs", *words]) == InputError.exit_status
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("x.csv").exists()
