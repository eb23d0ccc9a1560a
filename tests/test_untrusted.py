"""Files from strangers: nothing is run, nothing outside of the data folder is read, and every refusal is one line."""

import csv
import json
import os
import pickle
import stat
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from csl import InputError, checkpoint
from csl.data.checking import find_bad_images
from csl.data.images import check_image, load_rgb
from csl.errors import printable
from csl.inference.infer import InferenceOptions, infer
from csl.labels import LabelMatrix, read_annotations
from csl.labels.cache import ArrayCache
from csl.labels.trust import escape_cell, escape_table, path_cell, unescape_cell
from csl.machine.files import parse_json
from csl.models import create_model
from csl.predict import find_images
from csl.prior import read_prior, write_prior
from csl.runs.config import TrainConfig
from csl.runs.folder import RunFolder, read_log
from csl.training.experiment import train

DEEP = 10**6


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def refused(call, match):
    """The InputError of a call: one printable line, or a few."""
    with pytest.raises(InputError, match=match) as caught:
        call()
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    return str(caught.value)


# -------------------------------------------------------------------------------------------------------------- nesting


def nested(path, before="[", after="]", text=""):
    path.write_text(before * DEEP + text + after * DEEP)
    return path


def test_json_that_is_nested_a_million_deep(tmp_path):
    deep = nested(tmp_path / "train.json", '{"images":[', "]}")
    content = '{"images": [], "annotations": %s, "categories": []}' % ("[" * DEEP + "]" * DEEP)
    (tmp_path / "coco.json").write_text(content)
    samples = '{"samples": %s, "labels": []}' % ("[" * DEEP + "]" * DEEP)
    (tmp_path / "nuswide.json").write_text(samples)
    refused(lambda: parse_json(deep.read_bytes(), "x"), "nested too deeply")
    for name in ("train", "coco", "nuswide"):
        refused(lambda name=name: read_annotations(tmp_path / f"{name}.json"), rf"{name}\.json.*nested too deeply")
    run = RunFolder(tmp_path)
    nested(run.config)
    refused(run.read_config, "nested too deeply")
    refused(lambda: read_log(nested(run.log)), "nested too deeply")
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "w.safetensors", metadata={"classes": "[" * 10_000})
    assert checkpoint.read(tmp_path / "w.safetensors").classes is None
    cache = ArrayCache(tmp_path / "coco.json", ["x"])
    cache.save({}, {})
    nested(cache.folders[0] / "facts.json")
    assert cache.load() is None


def test_numbers_of_thousands_of_digits_and_other_encodings(tmp_path):
    for content in (b"9" * 5000, b"\xff\xfe\x00", b"\x80", b"", b"nul"):
        refused(lambda content=content: parse_json(content, "file.json"), r"^file\.json")


def test_xml_that_is_nested_or_expands(tmp_path):
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("1\n")
    (tmp_path / "Annotations").mkdir()
    xml = tmp_path / "Annotations" / "1.xml"
    nested(xml, "<object>", "</object>")
    refused(lambda: read_annotations(tmp_path), "1.xml, line 1: found elements nested over 100 deep")
    xml.write_text('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>')
    refused(lambda: read_annotations(tmp_path), "document type")


# --------------------------------------------------------------------------------------------------- pickles and archives


def test_no_array_is_unpickled(tmp_path):
    evil = np.array([Evil(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "labels.npz", indptr=evil, indices=evil, values=evil, num_classes=evil, fill=evil)
    refused(lambda: LabelMatrix.load(tmp_path / "labels.npz"), "not a label matrix")
    (tmp_path / "data.csv").write_text("x")
    cache = ArrayCache(tmp_path / "data.csv", ["x"])
    cache.save({"a": np.zeros(2)}, {})
    assert cache.load() is not None
    np.save(cache.folders[0] / "a.npy", evil, allow_pickle=True)
    assert cache.load() is None
    cache.save({"a": np.zeros(2)}, {})
    np.save(tmp_path / "secret.npy", np.zeros(3))
    (cache.folders[0] / "facts.json").write_text(json.dumps({"arrays": ["../secret"], "facts": {}}))
    assert cache.load() is None
    (tmp_path / "prior.csv").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    refused(lambda: read_prior(tmp_path / "prior.csv", ["a"]), "not a class prior|columns")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_cannot_take_more_memory_than_its_file(tmp_path):
    path = tmp_path / "w.ckpt"
    state = {"head.fc.weight": torch.zeros(2, 4), "head.fc.bias": torch.zeros(2)}
    torch.save({"model": state}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + bytes(10**6))
    refused(lambda: checkpoint.read(path), "compressed entries")
    torch.save({"model": {**state, "head.fc.weight": torch.zeros(1).expand(10**9, 4)}}, path)
    refused(lambda: checkpoint.read(path), "head.fc.weight is no plain tensor with all its values in the file")
    torch.save({"model": {**state, "x": torch.zeros(3, device="meta")}}, path)
    refused(lambda: checkpoint.read(path), "no plain tensor")


def test_what_a_checkpoint_says_of_itself_is_checked(tmp_path):
    path = tmp_path / "w.ckpt"
    state = create_model("test_resnet", num_classes=2).state_dict()
    whole = {"format": "csl-1", "model": state, "model_name": "test_resnet", "num_classes": 2, "classes": ["a", "b"]}
    laughs = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    for wrong, message in (
        ({"model_name": "hf-hub:stranger/network"}, "--model_name hf-hub:stranger/network: unknown"),
        ({"model_name": 5}, "model_name is '5'"),
        ({"num_classes": 10**9}, "num_classes is '1000000000'"),
        ({"classes": ["a", "\x1b[2J"]}, r"class 1 is called '\\x1b\[2J', which has a control character"),
        ({"classes": 7}, "classes: expected a list of names, found"),
        ({"groups": {"x": [0, 10**9, 2]}}, "groups is"),
        ({"config": {"image_size": 10**9}}, "image_size"),
        ({"best_weights": "ema"}, "says that the EMA weights are the best and has none"),
        ({"idx_to_class": {"x": 1}, "classes": None}, "no numbers of classes"),
        # 2^60 times the same list, if anybody printed it
        ({"model_name": laughs}, "model_name is a list"),
        ({"classes": [laughs, "b"]}, "a class is called a list"),
        ({"idx_to_class": {0: laughs, 1: "b"}, "classes": None}, "a class is called a list"),
        ({"config": {"image_size": laughs}}, "image_size is a list"),
        ({"groups": laughs}, "groups is a list"),
    ):
        torch.save(whole | wrong, path)
        refused(lambda: checkpoint.load_model(path), message)
    torch.save(whole, path)
    assert checkpoint.load_model(path)[1].classes == ["a", "b"]


# ------------------------------------------------------------------------------------------------------------ CSV cells


FORMULAS = ("=1+1", "=cmd|' /C calc'!A0", "+cmd|'x'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1+1)", "\t=1", " =1+1",
            "\ufeff=1", "\xa0=cmd|calc", "＝1+1")  # fmt: skip


def test_cells_that_a_spreadsheet_would_run_are_written_as_text():
    for text in (*FORMULAS, *(f"'{text}" for text in FORMULAS)):
        assert escape_cell(text) == f"'{text}"
        assert unescape_cell(escape_cell(text)) == text
    for text in ("-1", "+5", "-abc.jpg", "@home", "a=b", "C (sharp)", "", "'quoted'", "'"):
        assert escape_cell(text) == text
        assert unescape_cell(text) == text
    assert path_cell("=a.jpg") == "./=a.jpg"
    assert path_cell("-a\x1b[31m\n.jpg") == r"./-a\x1b[31m\n.jpg"
    assert path_cell("photos/=a.jpg") == "photos/=a.jpg"


def test_classes_that_look_like_formulas_survive_a_csv(tmp_path):
    frame = pd.DataFrame(
        {"filename": ["=a.jpg", "b.jpg", "c.jpg"], "colour": ["Red", "=1+1", "'=1+1"], "@SUM(A1)": ["1", "0", ""]}
    )
    escape_table(frame).to_csv(tmp_path / "attributes.csv", index=False)
    found = read_annotations(tmp_path, roles={"colour": "attribute"})
    assert found.classes == ["colour:'=1+1", "colour:=1+1", "colour:Red", "@SUM(A1)"]
    assert os.path.basename(found.images[0]) == "=a.jpg"
    with open(tmp_path / "attributes.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert {"'=a.jpg", "'=1+1", "''=1+1", "'@SUM(A1)"} <= set(cells)
    assert not any(cell.startswith(("=", "@")) for cell in cells)
    write_prior(tmp_path / "prior.csv", found.classes, torch.arange(4) / 4)
    assert "'@SUM(A1),0.75" in (tmp_path / "prior.csv").read_text()
    assert read_prior(tmp_path / "prior.csv", found.classes).tolist() == [0, 0.25, 0.5, 0.75]


def test_names_reach_terminals_and_tables_printable(tmp_path, capsys):
    assert printable("plain é 写真.jpg") == "plain é 写真.jpg"
    assert printable("a\x1b[31m\n\u202e\udc80") == r"a\x1b[31m\n\u202e\udc80"
    model = create_model("test_resnet", num_classes=2)
    torch.save({"format": "csl-1", "model": model.state_dict(), "model_name": "test_resnet", "classes": ["=1+1", "b"]},
               tmp_path / "w.ckpt")  # fmt: skip
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ["=a.jpg", "b\x1b[2J.jpg", 'c,"d"\n.jpg', "plain.jpg"]
    for name in names:
        Image.new("RGB", (8, 8)).save(photos / name)
    with open(os.fsencode(photos) + b"/\xff.jpg", "wb") as file:  # no UTF-8
        file.write((photos / "plain.jpg").read_bytes())
    (photos / "bad\x1b]0;.jpg").write_text("no image")
    said = []
    options = {"model_path": str(tmp_path / "w.ckpt"), "device": "cpu", "path_dest": str(tmp_path), "image_size": 32}
    infer(InferenceOptions(pic_path=str(photos), th=0.0, workers=0, **options), said.append)
    assert all(line.isprintable() for line in said)
    error = capsys.readouterr().err
    assert r"bad\x1b]0;.jpg: not an image" in error
    assert "\x1b" not in error
    with open(tmp_path / "results" / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {row[1] for row in rows[1:]} == {"'=1+1", "b"}
    assert {row[0] for row in rows[1:]} == {
        str(photos / name) for name in ("=a.jpg", r"b\x1b[2J.jpg", r'c,"d"\n.jpg', "plain.jpg", r"\udcff.jpg")
    }


# -------------------------------------------------------------------------------------------------------- paths and links


@pytest.fixture
def set_of(tmp_path):
    """set_of(name, ...) writes an attribute CSV of these images into data/; inside and outside of it are photos."""
    data = tmp_path / "data"
    for folder in (data / "images" / "sub", data / "other", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    Image.new("RGB", (8, 8)).save(data / "images" / "a.jpg")

    def write(*names):
        rows = "".join(f'"{name}",1\n' for name in names)
        (data / "attributes.csv").write_text(f"filename,hat\n{rows}")
        return data

    return write


@pytest.mark.parametrize(
    "name", ["../../elsewhere/a.jpg", "sub/../../../elsewhere/a.jpg", "/etc/passwd", "../../data2/a.jpg"]
)
def test_images_outside_of_the_data_folder_are_refused(set_of, name):
    data = set_of("a.jpg", name)
    message = refused(lambda: read_annotations(data), r"attributes\.csv: image 2 is .*outside of the data folder")
    assert "--follow_links" in message
    assert len(read_annotations(data, follow_links=True)) == 2


def test_images_inside_may_be_named_in_any_way(set_of, tmp_path, monkeypatch):
    data = set_of(
        "a.jpg", "sub/a.jpg", "sub/../a.jpg", "../other/a.jpg", "a..b.jpg", str(tmp_path / "data/other/a.jpg")
    )
    assert len(read_annotations(data)) == 6
    set_of("a.jpg")
    monkeypatch.chdir(data)
    for path in (".", "../data", "attributes.csv"):
        annotations = read_annotations(path)
        assert find_bad_images(annotations.images, progress=False, roots=annotations.roots) == []
    (tmp_path / "link").symlink_to(data)
    annotations = read_annotations(tmp_path / "link")  # the data folder may be a link, and so may --images
    assert find_bad_images(annotations.images, progress=False, roots=annotations.roots) == []
    (tmp_path / "photos").symlink_to(data / "images")
    annotations = read_annotations(data, images=tmp_path / "photos")
    assert find_bad_images(annotations.images, progress=False, roots=annotations.roots) == []
    set_of("../../elsewhere/a.jpg")
    refused(lambda: read_annotations(data, images=data / "images"), "outside of the data folder")
    set_of("a.jpg")
    assert len(read_annotations(data, images=tmp_path / "elsewhere")) == 1


def test_a_name_with_a_control_character_is_refused(set_of):
    for name in ("a\x1b[2J.jpg", "a\nb.jpg", "a\x85.jpg"):
        data = set_of("a.jpg", name)
        refused(lambda data=data: read_annotations(data), "image 2 is .*control character")


def test_open_images_paths_are_confined_by_their_bytes(tmp_path):
    def write(*names):
        rows = "".join(f"{name},['/m/1'],[],train\n" for name in names)
        (tmp_path / "data.csv").write_text(f"filepath,label,label_neg,split_name\n{rows}")
        return read_annotations(tmp_path, split="train")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes are shown by their MIDs
        assert len(write("train/a.jpg", "train/../b.jpg", "c..d.jpg", "é/写.jpg")) == 4
        for wrong in ("../x.jpg", "train/../../x.jpg", "/etc/passwd", "a\x07.jpg", "a\x85.jpg"):
            refused(lambda wrong=wrong: write("train/a.jpg", wrong, "b.jpg"), "image 2 is")


def test_links_out_of_the_data_folder_are_refused_when_opened(set_of, tmp_path):
    data = set_of("a.jpg", "in.jpg", "out.jpg", "folder/a.jpg", "chain.jpg")
    images = data / "images"
    (images / "in.jpg").symlink_to(data / "other" / "a.jpg")
    (images / "out.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (images / "folder").symlink_to(tmp_path / "elsewhere")
    (images / "chain.jpg").symlink_to("out.jpg")
    annotations = read_annotations(data)
    bad = find_bad_images(annotations.images, progress=False, roots=annotations.roots)
    assert [image.index for image in bad] == [2, 3, 4]
    for image in bad:
        path = annotations.images[image.index]
        assert f"{path}: leads to {tmp_path / 'elsewhere' / 'a.jpg'}, outside of {data}" in image.reason
        assert refused(lambda path=path: load_rgb(path, annotations.roots), "--follow_links") == image.reason
    followed = read_annotations(data, follow_links=True)
    assert find_bad_images(followed.images, progress=False, roots=followed.roots) == []


def test_train_and_infer_refuse_links_and_follow_them_when_told(set_of, tmp_path):
    names = [f"{k}.jpg" for k in range(4)]
    data = set_of(*names)
    (data / "attributes.csv").write_text(
        "filename,hat,split\n"
        + "".join(f"{name},{k % 2},{'train' if k < 2 else 'val'}\n" for k, name in enumerate(names))
    )
    for name in names:
        (data / "images" / name).symlink_to(tmp_path / "elsewhere" / "a.jpg")
    settings = {
        "data": str(data), "path_dest": str(tmp_path / "run"), "model_name": "test_resnet", "image_size": 32, "batch_size": 2,
        "epochs": 1, "max_steps": 1, "workers": 0, "device": "cpu",
    }  # fmt: skip
    refused(
        lambda: train(TrainConfig(**settings), lambda _: None), "2 of the 2 train images cannot be read.*--follow_links"
    )
    train(TrainConfig(**settings, follow_links=True), lambda _: None)
    options = {
        "model_path": str(tmp_path / "run" / "best.ckpt"),
        "path_dest": str(tmp_path),
        "workers": 0,
        "device": "cpu",
    }
    pictures = {"pic_path": str(data / "images")}
    infer(InferenceOptions(**options, **pictures), lambda _: None)
    assert pd.read_csv(tmp_path / "results" / "predictions.csv").filename.nunique() == 2  # a.jpg and sub/a.jpg
    infer(InferenceOptions(**options, **pictures, follow_links=True), lambda _: None)
    assert pd.read_csv(tmp_path / "results" / "predictions.csv").filename.nunique() == 6
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'elsewhere' / 'a.jpg'}\n")  # the user's own list may name any file
    assert find_images(tmp_path / "list.txt", lambda _: None) == [str(tmp_path / "elsewhere" / "a.jpg")]


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe.jpg").st_mode)
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        assert check_image(path) == "a pipe or a device, expected an image file"
        refused(lambda path=path: load_rgb(path), "a pipe or a device")


@pytest.mark.parametrize("name", ["../../secret", "/../secret", "x/../../y", "x" * 70_000, "é" * 150, "a\0b"])
def test_a_name_of_voc_is_no_other_path(tmp_path, name):
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text(f"000001\n{name}\n")
    (tmp_path / "Annotations").mkdir()
    message = refused(lambda: read_annotations(tmp_path), r"train\.txt, line 2: found .*the plain name of an image")
    assert len(message) < 500


def test_a_whole_path_in_a_list_of_voc_names_a_photo_of_its_folder(tmp_path):
    main = tmp_path / "voc" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (tmp_path / "voc" / "Annotations").mkdir()
    (tmp_path / "secret.xml").write_text("<annotation/>")
    (main / "train.txt").write_text(f"{tmp_path}/secret\n")
    refused(lambda: read_annotations(tmp_path / "voc"), f"Annotations{tmp_path}/secret.xml: no such file")


def test_a_concept_is_no_part_of_another_path(tmp_path):
    (tmp_path / "Groundtruth" / "TrainTestLabels").mkdir(parents=True)
    (tmp_path / "ImageList").mkdir()
    (tmp_path / "ImageList" / "TrainImagelist.txt").write_text("a.jpg\n")
    (tmp_path / "Concepts81.txt").write_text("x/../../../secret\n")
    refused(lambda: read_annotations(tmp_path), r"Concepts81\.txt: found the concept 'x/../../../secret'")
