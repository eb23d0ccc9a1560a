"""Which network and which photos validate.py and infer.py take where no flag says so, and that they tell."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from csl import InputError, checkpoint
from csl import __main__ as tools
from csl.inference.sources import as_trained, checkpoint_path
from csl.labels import Annotations, LabelMatrix
from csl.labels.read import read_annotations
from csl.models import create_model
from csl.runs.folder import RunFolder

SMALL = ["--batch_size", "16", "--workers", "0", "--device", "cpu"]


@pytest.fixture
def runs(garments, tmp_path):
    """Two runs, of which b is the last; both divided their data, photos, themselves."""
    train = read_annotations(garments, split="train")
    shutil.copytree(garments, tmp_path / "photos")
    table = pd.read_csv(garments / "attributes.csv", dtype=str, keep_default_na=False)
    table.drop(columns="split").to_csv(tmp_path / "photos" / "attributes.csv", index=False)
    content = {
        "model": create_model("test_resnet", len(train.classes)).state_dict(), "model_name": "test_resnet", "head": "linear",
        "num_classes": len(train.classes), "classes": list(train.classes), "idx_to_class": dict(enumerate(train.keys)),
        "groups": {name: [group.start, group.stop] for name, group in train.groups.items()},
        "config": {"data": "photos", "val_split": 0.25, "image_size": 32},
    }  # fmt: skip
    sides = [("val" if n % 4 == 0 else "train") for n in range(len(table))]
    with chdir(tmp_path):
        for name in ("a", "b"):
            folder = Path("outputs", name)
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
            torch.manual_seed(ord(name))
            checkpoint.write(folder / "best.ckpt", content)
            pd.DataFrame({"image": table.filename, "split": sides}).to_csv(folder / "split.csv", index=False)
        Path("outputs/last_run.txt").write_text("outputs/b\n")
        yield sides.count("val")


def test_the_network_is_that_of_the_run_that_results_go_to(runs, garments, capsys):
    assert checkpoint_path(None) == Path("outputs/b/best.ckpt")
    assert checkpoint_path(None, "outputs/a") == Path("outputs/a/best.ckpt")
    assert checkpoint_path(None, "elsewhere") == Path("outputs/b/best.ckpt")
    assert checkpoint_path("outputs/b", "outputs/a") == Path("outputs/b/best.ckpt")
    assert tools.main(["validate", "--path_dest", "outputs/a", *SMALL]) == 0
    out = capsys.readouterr().out
    assert out.count("network: outputs/a/best.ckpt\n") == 1
    assert f"{runs} images of" in out
    assert json.loads(Path("outputs/a/validation.json").read_text())["checkpoint"] == "outputs/a/best.ckpt"
    photo = str(garments / "images" / "00001.jpg")
    for given, run in ((["--path_dest", "outputs/a"], "a"), (["--path_dest", "new"], "b"), ([], "b")):
        assert tools.main(["infer", "--pic_path", photo, *given, *SMALL]) == 0
        assert capsys.readouterr().out.startswith(f"network: outputs/{run}/best.ckpt\n")


def test_a_run_that_has_not_been_measured_yet_gives_its_last_state(runs):
    Path("outputs/a/best.ckpt").rename("outputs/a/last.ckpt")
    assert checkpoint_path(None, "outputs/a") == checkpoint_path("outputs/a") == Path("outputs/a/last.ckpt")
    Path("outputs/a/last.ckpt").unlink()
    with pytest.raises(
        InputError, match="--model_path outputs/a: no such file, expected a checkpoint, the folder of a run"
    ):
        checkpoint_path("outputs/a")


def test_a_checkpoint_without_the_split_of_its_run_does_not_measure_the_training_photos_unsaid(runs, garments, capsys):
    Path("moved").mkdir()
    shutil.copy("outputs/a/best.ckpt", "moved")
    shutil.copytree("photos", "also_moved")
    missing = "moved/split.csv"
    for data, line in (
        ([], f"{missing}: no such file, expected the split of the run, beside its checkpoint, or other --data"),
        (["--data", "photos/"], f"{missing}: no such file"),
        (["--data", "also_moved"], f"or {missing}, the split of the run, beside its checkpoint"),
    ):
        for command in (["validate"], ["infer", "--all_val_inference"]):
            assert tools.main([*command, "--model_path", "moved/best.ckpt", *data, *SMALL]) == 2
            assert line in capsys.readouterr().err
    note = f"{missing} is not there: photos that the network was trained on (--val_split) may be among these"
    for split in ("val", "train"):
        flags = ["--model_path", "moved/best.ckpt", "--data", str(garments), "--split", split, *SMALL]
        assert tools.main(["validate", *flags]) == 0
        assert f"{split}: {note}\n" in capsys.readouterr().out
    shutil.copy("outputs/a/split.csv", "moved")
    assert tools.main(["validate", "--model_path", "moved", "--data", "also_moved", *SMALL]) == 0
    assert f"{runs} images of" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_an_exported_network_away_from_its_run_tells_that_it_had_a_split(runs, garments, suffix, capsys):
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    out = Path("moved") / f"network.{suffix}"
    photo = str(garments / "images" / "00001.jpg")
    check = ["--check", photo] if suffix == "onnx" else []
    assert tools.main(["export", "--model_path", "outputs/a", "--format", suffix, "--out", str(out), *check]) == 0
    assert capsys.readouterr().out.startswith("network: outputs/a/best.ckpt\n")
    name = [] if suffix == "onnx" else ["--model_name", "test_resnet"]
    assert tools.main(["validate", "--model_path", str(out), "--data", str(garments), *name, *SMALL]) == 0
    assert "val: moved/split.csv is not there: photos that the network was trained on" in capsys.readouterr().out
    shutil.copy(out, f"outputs/a/network.{suffix}")
    assert (
        tools.main(["validate", "--model_path", f"outputs/a/network.{suffix}", "--data", "photos", *name, *SMALL]) == 0
    )
    assert f"{runs} images of" in capsys.readouterr().out


def test_all_labels_are_those_of_the_measured_images_or_none(runs, capsys):
    """truth.csv has a split, the table beside it has none: all of its images are of more images than the truth's."""
    flags = ["--model_path", "outputs/a", "--split", "train", *SMALL]
    Path("outputs/a/split.csv").rename("moved.csv")
    shutil.copytree("photos", "others")
    assert tools.main(["validate", "--data", "others", *flags]) == 0
    assert "mAP with all labels known" not in capsys.readouterr().out


def test_a_run_that_hid_labels_and_left_out_an_image_is_read_as_it_was_trained(tmp_path):
    run = RunFolder(tmp_path)
    run.write_config({"left_out": {"train": [1]}})
    LabelMatrix.from_dense(np.array([[1, -1], [-1, 0]])).save(run.partial_labels)
    data = Annotations(["a.jpg", "broken.jpg", "c.jpg"], LabelMatrix.from_dense(np.ones((3, 2), int)), ["x", "y"])
    found = as_trained(data, run)
    assert list(found.images) == ["a.jpg", "c.jpg"]
    assert found.labels.to_dense().tolist() == [[1, -1], [-1, 0]]
    with pytest.raises(InputError, match="2 images and 2 classes, expected 1 and 2"):
        as_trained(data.select([0, 1]), run)
