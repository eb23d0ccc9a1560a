"""What annotation tools write of objects that are drawn: YOLO's text files, CVAT's XML, Pascal VOC's XML beside the photos."""

import re

import numpy as np
import pytest
from PIL import Image

from csl.errors import InputError, NoSplit
from csl.labels import read_annotations

TEXTS = [
    "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n",
    "1 .5 .5 1 1 0.25 0.75\n1 5e-1 0.5 1 1",
    "",
    "\n0 0.1 0.2 0.3 0.4 0.5 0.6\n",
]
DRAWN = [{"cat", "dog"}, {"dog"}, set(), {"cat"}]
ROBOFLOW = "train: ../train/images\nval: ../valid/images\n\nnc: 3\nnames: ['cat', 'dog', 'owl']\n"
LIST = "cat\ndog\nowl\n"


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            Image.new("RGB", (8, 6)).save(folder / name)
        else:
            (folder / name).write_text(text)
    return folder


def positives(annotations):
    return [{annotations.classes[c] for c in np.flatnonzero(row == 1)} for row in annotations.labels.to_dense()]


# tool: its file of classes, and {split: (folder of the photos, folder of the text files)}
YOLO = {
    "Roboflow": ({"data.yaml": ROBOFLOW}, {s: (f"{s}/images", f"{s}/labels") for s in ("train", "valid", "test")}),
    "Ultralytics": (
        {"coco8.yaml": "path: x\ntrain: images/train\nnames:\n  0: cat\n  1: dog\n  2: owl\n"},
        {s: (f"images/{s}", f"labels/{s}") for s in ("train2017", "val2017")},
    ),
    "CVAT": (
        {"obj.data": "classes = 3\n", "obj.names": LIST, "train.txt": "data/obj_train_data/a0.jpg\n"},
        {s: (f"obj_{s}_data", f"obj_{s}_data") for s in ("train", "Validation")},
    ),
    "Label Studio": ({"classes.txt": LIST, "notes.json": "{}"}, {None: ("images", "labels")}),
    "labelImg": ({"classes.txt": LIST}, {None: (".", ".")}),
}


@pytest.mark.parametrize("tool", YOLO)
def test_yolo_as_tools_write_it(tmp_path, tool):
    files, splits = YOLO[tool]
    for split, (photos, texts) in splits.items():
        for k, text in enumerate(TEXTS):
            files = files | {f"{photos}/{split}{k}.jpg": "", f"{texts}/{split}{k}.txt": text}
    write(tmp_path, files)
    for split, (photos, _) in splits.items():
        word = None if split is None else split.removesuffix("2017").lower()
        found = read_annotations(tmp_path, split=word, keep_unlabelled_images=True)
        assert found.classes == ["cat", "dog", "owl"]
        assert [str(tmp_path / photos / f"{split}{k}.jpg") for k in range(4)] == found.images
        assert positives(found) == DRAWN
        assert not (found.labels.to_dense() == -1).any()
    left_out = read_annotations(tmp_path)
    assert positives(left_out) == [one for one in DRAWN if one]
    assert left_out.skipped == 1


def test_yolo_with_lists_of_the_splits(tmp_path):
    lists = {"train.txt": "./images/0.jpg\n./images/1.jpg\n", "val.txt": "./images/3.jpg\n", "data.yaml": ROBOFLOW}
    photos = {f"images/{k}.jpg": "" for k in range(4)}
    write(tmp_path, lists | photos | {f"labels/{k}.txt": text for k, text in enumerate(TEXTS)})
    assert positives(read_annotations(tmp_path, split="train")) == DRAWN[:2]
    assert positives(read_annotations(tmp_path, split="val")) == DRAWN[3:]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"data.yaml": "names: [cat]", "labels/0.txt": TEXTS[0]},
            "0.txt, line 2: found '1 0.1 .*expected a class from 0 to 0",
        ),
        ({"data.yaml": ROBOFLOW, "labels/0.txt": "0 .5 .5 .1 .1\ncat\n"}, "0.txt, line 2: found 'cat'"),
        (
            {"data.yaml": "names: [cat, cat]", "labels/0.txt": TEXTS[0]},
            "data.yaml: found the names .* a name for each class",
        ),
        ({"data.yaml": "names: [", "labels/0.txt": TEXTS[0]}, "data.yaml: not YAML"),
        ({"labels/0.txt": TEXTS[0]}, "most like YOLO: missing data.yaml"),
    ],
)
def test_yolo_that_is_wrong(tmp_path, files, message):
    with pytest.raises(InputError) as error:
        read_annotations(write(tmp_path, files))
    assert re.search(message, "\n".join(map(str, error.value.args)))


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>
<label><name>cat</name><attributes></attributes></label><label><name>dog</name></label><label><name>owl</name></label>
<label><name>tail</name><parent>cat</parent></label></labels></task></meta>{}</annotations>"""
SHAPES = [
    '<box label="cat" occluded="0"><attribute name="color">red</attribute></box><tag label="dog" source="manual"/>',
    '<polygon label="dog" points="1,2;3,4"/><polygon label="dog" points="1,2;3,4"/>',
    "",
    '<skeleton label="cat"><points label="tail"/></skeleton>',
]


@pytest.mark.parametrize("subsets", [None, ("Train", "Validation")])
def test_cvat_for_images(tmp_path, subsets):
    images, files = "", {}
    for k, shapes in enumerate(SHAPES):
        subset = subsets[k // 2] if subsets else None
        images += f'<image id="{k}" name="{k}.jpg"{f" subset={subset!r}" if subset else ""}>{shapes}</image>'
        files[f"images/{f'{subset}/' if subset else ''}{k}.jpg"] = ""
    write(tmp_path, files | {"annotations.xml": CVAT.format(images)})
    for path in (tmp_path, tmp_path / "annotations.xml"):
        parts = [
            read_annotations(path, split=s, keep_unlabelled_images=True) for s in ("train", "val")[: 1 + bool(subsets)]
        ]
        assert [one for part in parts for one in part.images] == [str(tmp_path / name) for name in files]
        assert [one for part in parts for one in positives(part)] == DRAWN
        assert parts[0].classes == ["cat", "dog", "owl"]
    assert any("'color'" in note for note in parts[0].notes)
    if not subsets:
        with pytest.raises(NoSplit, match="no images of the val split, found train"):
            read_annotations(tmp_path, split="val")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ('<image id="0"/>', "image '0' has no name"),
        (
            '<image name="0.jpg"><box label="cow"/></image>',
            "image '0.jpg' has the label 'cow', expected one of 'cat', 'dog'",
        ),
        ('<track label="cat"/>', "tracks of a video"),
    ],
)
def test_cvat_that_is_wrong(tmp_path, images, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path, {"annotations.xml": CVAT.format(images)}))


def voc(name, classes):
    objects = "".join(f"<object><name>{one}</name><difficult>0</difficult></object>" for one in sorted(classes))
    return f"<annotation><folder>x</folder><filename>{name}</filename>{objects}</annotation>"


@pytest.mark.parametrize(
    "folders", [("",), ("train/", "valid/", "test/"), ("Annotations/train/", "Annotations/val/"), ("labels/",)]
)
def test_voc_without_lists_beside_the_photos_or_in_folders_of_splits(tmp_path, folders):
    for folder in folders:
        stem = folder.strip("/").rpartition("/")[2]
        photos = folder.replace("Annotations", "JPEGImages").replace("labels", "data")
        for k, drawn in enumerate(DRAWN):
            write(tmp_path, {f"{photos}{stem}{k}.jpg": "", f"{folder}{stem}{k}.xml": voc(f"{stem}{k}.jpg", drawn)})
    for folder, split in zip(folders, ("train", "val", "test"), strict=False):
        found = read_annotations(tmp_path, split=split)
        stem, photos = (
            folder.strip("/").rpartition("/")[2],
            folder.replace("Annotations", "JPEGImages").replace("labels", "data"),
        )
        assert found.images == [str(tmp_path / f"{photos}{stem}{k}.jpg") for k in range(4)]
        assert found.classes == ["cat", "dog"]
        assert positives(found) == DRAWN
    if len(folders) == 1:
        with pytest.raises(NoSplit, match="found XML for training alone"):
            read_annotations(tmp_path, split="val")
