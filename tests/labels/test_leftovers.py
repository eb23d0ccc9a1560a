"""What systems, network disks and Office leave among photos and labels is neither: the same is read with it as without."""

import json
import shutil

import pytest
from PIL import Image

from csl.labels import read_annotations

APPLE_DOUBLE = b"\0\5\26\7\0\2\0\0Mac OS X        "
COCO = {
    "images": [{"id": n, "file_name": f"{n}.png"} for n in range(4)],
    "annotations": [{"image_id": n, "category_id": 1 + n % 2} for n in range(4)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


def photos(folder):
    folder.mkdir(parents=True)
    for n in range(4):
        Image.new("RGB", (9, 9)).save(folder / f"{n}.png")


def table(folder):
    photos(folder)
    (folder / "labels.csv").write_text("filename,hat,tie\n" + "".join(f"{n}.png,{n % 2},0\n" for n in range(4)))


def coco(folder):
    photos(folder)
    (folder / "all.json").write_text(json.dumps(COCO))


def class_folders(folder):
    for name in ("cat", "dog"):
        photos(folder / "train" / name)


def voc_without_lists(folder):
    photos(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for n in range(4):
        text = f"<annotation><object><name>{'cat' if n % 2 else 'dog'}</name></object></annotation>"
        (folder / "Annotations" / f"{n}.xml").write_text(text)


def voc(folder):
    photos(folder / "JPEGImages")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n")
    (lists / "cat_train.txt").write_text("0 1\n1 -1\n")


@pytest.mark.parametrize("make", [table, coco, class_folders, voc_without_lists, voc])
def test_the_same_is_read_with_what_systems_leave(make, tmp_path):
    make(tmp_path / "data")
    before = read_annotations(tmp_path / "data", split="train")
    for file in [path for path in (tmp_path / "data").rglob("*") if path.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(APPLE_DOUBLE)
        if file.suffix == ".csv":
            shutil.copy(file, file.with_name(f"~${file.name}"))
        if file.suffix == ".png":
            thumbnails = file.parent / "@eaDir" / file.name
            thumbnails.mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(thumbnails / "SYNOPHOTO_THUMB_M.jpg", "JPEG")
        (file.parent / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    for name in ("__MACOSX", "$RECYCLE.BIN"):
        shutil.copytree(tmp_path / "data", tmp_path / name)
        shutil.move(tmp_path / name, tmp_path / "data")
    after = read_annotations(tmp_path / "data", split="train")
    assert (list(after.images), after.classes) == (list(before.images), before.classes)
    assert (after.labels.to_dense() == before.labels.to_dense()).all()
