"""Data without a validation split: test in its place, or a split that the run makes, keeps and finds again."""

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from csl import InputError
from csl import __main__ as tools
from csl.labels.options import DataOptions
from csl.labels.paths import TEST_AS_VAL
from csl.labels.read import read_split
from csl.runs.config import TrainConfig
from csl.training.data import load_data
from csl.training.experiment import train

NETWORK = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 4, "epochs": 1, "workers": 0, "augment": "none",
    "device": "cpu", "max_steps": 1,
}  # fmt: skip
COCO = {
    "images": [{"id": n, "file_name": f"{n}.png"} for n in range(12)],
    "annotations": [{"image_id": n, "category_id": 1 + n % 2} for n in range(12)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


@pytest.fixture
def photos(tmp_path):
    """12 photos, of which three are the same, as a table and as COCO, each one file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(12):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    for n in (5, 9):
        shutil.copy(folder / "2.png", folder / f"{n}.png")
    rows = [f"{n}.png,{n % 2},{'' if n % 3 else int(n > 5)}" for n in range(12)]
    (folder / "labels.csv").write_text("filename,hat,tie\n" + "\n".join(rows) + "\n")
    (folder / "all.json").write_text(json.dumps(COCO))
    with chdir(tmp_path):
        Path("outputs").mkdir()
        yield folder


def sides():
    return pd.read_csv("outputs/split.csv").set_index("image").split.to_dict()


@pytest.mark.parametrize("data", ["photos", "photos/all.json"])
def test_a_split_is_made_once_and_found_again(photos, data, no_pictures, capsys):
    config = TrainConfig(data=data, path_dest="outputs", **NETWORK)
    with pytest.raises(
        InputError, match="--val_split 0.2, which keeps that share of the images for validation"
    ) as error:
        train(config, print)
    assert "\n" not in str(error.value)
    assert not Path("outputs/config.json").exists()
    said = []
    train(replace(config, val_split=0.3), said.append)
    first = sides()
    assert len(first) == 12
    assert len({first[f"{n}.png"] for n in (2, 5, 9)}) == 1
    sizes = {split: list(first.values()).count(split) for split in ("train", "val")}
    assert (
        f"--val_split 0.3: {sizes['train']} images for training, {sizes['val']} for validation, kept in split.csv"
        in said
    )
    assert "--val_split: 2 images have the bytes or the name of another, and stay on its side" in said

    before = Path("outputs/split.csv").read_bytes()
    train(replace(config, resume=True, max_steps=2), said.append)
    assert Path("outputs/split.csv").read_bytes() == before
    for given in ([], ["--data", data]):
        assert tools.main(["validate", *given, "--workers", "0"]) == 0
        assert f"{sizes['val']} images of" in capsys.readouterr().out
    assert tools.main(["validate", "--split", "train", "--workers", "0"]) == 0
    assert f"{sizes['train']} images of" in capsys.readouterr().out
    assert tools.main(["infer", "--all_val_inference", "--workers", "0"]) == 0
    named = set(pd.read_csv("outputs/results/predictions.csv").filename)
    assert {Path(name).name for name in named} == {name for name, side in first.items() if side == "val"}

    with pytest.raises(InputError, match=r"other settings.*--val_split 0\.5 \(was 0\.3\)"):
        train(replace(config, resume=True, val_split=0.5), print)
    Path("outputs/split.csv").rename("elsewhere.csv")
    assert tools.main(["validate"]) == 2
    assert "split.csv: no such file, expected the split of the run" in capsys.readouterr().err


def test_data_that_have_changed_are_not_those_of_the_split(photos, no_pictures):
    config = TrainConfig(data="photos", path_dest="outputs", val_split=0.3, **NETWORK)
    train(config, lambda _: None)
    with open("photos/labels.csv", "a") as file:
        file.write("12.png,1,1\n")
    with pytest.raises(
        InputError, match=r"labels.csv: 1 images are not in outputs/split.csv and 0 of those are not here"
    ):
        train(replace(config, resume=True), lambda _: None)


def test_the_seed_draws_the_split_and_classes_without_positives_are_named(photos):
    def draw(**changes):
        said = []
        data = load_data(TrainConfig(data="photos", **{"val_split": 0.25, **changes}), said.append)
        assert not set(data.train.images) & set(data.val.images)
        return data.val.images, said

    assert draw() == draw()
    assert len({tuple(draw(seed=seed)[0]) for seed in range(6)}) > 1
    Path("photos/labels.csv").write_text("filename,hat\n" + "".join(f"{n}.png,{int(n == 0)}\n" for n in range(12)))
    assert "--val_split: no known positive for validation in 1 classes: hat" in draw()[1]


def test_a_patient_is_on_one_side(photos):
    rows = "".join(f"{n}.png,{n % 2},P{n // 3}\n" for n in range(12))
    (photos / "labels.csv").write_text("filename,hat,patient_id\n" + rows)
    said = []
    for seed in range(4):
        data = load_data(TrainConfig(data="photos", val_split=0.3, seed=seed), said.append)
        assert not set(data.train.table.patient_id) & set(data.val.table.patient_id)
    assert any(line.startswith("--val_split: images of one 'patient_id' stay on one side, ") for line in said)


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(InputError, match="--val_split .*: expected a share of more than 0 and less than 1"):
        train(TrainConfig(data="photos", val_split=share), print)


def test_a_val_split_of_the_data_is_not_drawn_anew(photos):
    shutil.copy("photos/all.json", "photos/train.json")
    Path("photos/val.json").write_text(json.dumps({**COCO, "images": COCO["images"][:2], "annotations": []}))
    Path("photos/labels.csv").unlink()
    options = TrainConfig(data="photos", val_split=0.2, keep_unlabelled_images=True)
    with pytest.raises(InputError, match=r"^--val_split changes nothing: photos/val.json has a val split of 2 images"):
        load_data(options, print)


def test_of_train_and_test_the_training_images_are_divided(photos):
    Path("photos/labels.csv").unlink()
    Path("photos/all.json").rename("photos/train.json")
    Path("photos/test.json").write_text(
        json.dumps({**COCO, "images": COCO["images"][:2], "annotations": COCO["annotations"][:2]})
    )
    data = load_data(TrainConfig(data="photos", val_split=0.25), print)
    assert sorted(data.train.images + data.val.images) == sorted(f"photos/{n}.png" for n in range(12))


# ---------------------------------------------------------------------------------------------- test in place of val


def voc(folder):
    for split, name in (("trainval", "1"), ("test", "2")):
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text(f"{name}\n")
        (lists / f"cat_{split}.txt").write_text(f"{name} 1\n")


def coco(folder):
    for split, n in (("train", 1), ("test", 2)):
        content = {**COCO, "images": [COCO["images"][n]], "annotations": [COCO["annotations"][n]]}
        (folder / f"{split}.json").write_text(json.dumps(content))


def lvis(folder):
    for split in ("train", "test"):
        images = [{"id": 1, "coco_url": f"x/{split}/1.jpg", "neg_category_ids": [2]}]
        content = {**COCO, "images": images, "annotations": [{"image_id": 1, "category_id": 1}]}
        (folder / f"lvis_v1_{split}.json").write_text(json.dumps(content))


def nuswide(folder):
    for split in ("train", "test"):
        samples = [{"image_name": f"{split}.jpg", "image_labels": ["sky"]}]
        (folder / f"{split}.json").write_text(json.dumps({"samples": samples, "labels": ["sky", "sea"]}))


def column(folder):
    (folder / "labels.csv").write_text("filename,hat,split\n1.jpg,1,train\n2.jpg,0,test\n")


def files(folder):
    (folder / "train.csv").write_text("filename,hat\n1.jpg,1\n2.jpg,0\n")
    (folder / "test.csv").write_text("filename,hat\n3.jpg,0\n")


def openimages(folder):
    (folder / "oidv6-classes-trainable.txt").write_text("/m/1\n")
    for split in ("train", "test"):
        rows = f"ImageID,Source,LabelName,Confidence\n{split},verification,/m/1,1\n"
        (folder / f"oidv6-{split}-annotations-human-imagelabels.csv").write_text(rows)


def csl_csv(folder):
    rows = "".join(f'{split}.jpg,"[\'/m/1\']","[]",{split}\n' for split in ("train", "test"))
    (folder / "data.csv").write_text("filepath,label,label_neg,split_name\n" + rows)


@pytest.mark.parametrize("make", [voc, coco, lvis, nuswide, column, files, openimages, csl_csv])
def test_without_val_test_is_taken_and_said(tmp_path, make):
    make(tmp_path)
    options = DataOptions(data=str(tmp_path))
    training = read_split(options, "train")
    test = read_split(options, "test", training.classes, training.groups)
    val = read_split(options, "val", training.classes, training.groups)
    assert list(val.images) == list(test.images)
    assert val.notes.count(TEST_AS_VAL) == 1
    assert TEST_AS_VAL not in test.notes + training.notes
    said = []
    for image in (*training.images, *val.images):
        Path(image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(image)
    load_data(TrainConfig(data=str(tmp_path)), said.append)
    assert said.count(TEST_AS_VAL) == 1
