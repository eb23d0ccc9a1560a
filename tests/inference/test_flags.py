"""No flag of validate.py and infer.py is without effect and without a word."""

import json

import pandas as pd
import pytest
import torch
from PIL import Image

from csl import InputError, checkpoint
from csl.cli import infer as infer_cli
from csl.cli import parsing
from csl.cli import validate as validate_cli
from csl.inference.infer import InferenceOptions, infer
from csl.inference.validate import ValidateOptions, validate
from csl.labels.read import read_annotations
from csl.models import create_model

HERE = {"image_size": 32, "batch_size": 16, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def weights(garments, tmp_path_factory):
    """A network of the garments' classes: the values of three attributes."""
    torch.manual_seed(0)
    train = read_annotations(garments, split="train")
    file = tmp_path_factory.mktemp("weights") / "w.ckpt"
    content = {"model": create_model("test_resnet", len(train.classes)).state_dict(), "model_name": "test_resnet"}
    content |= {"num_classes": len(train.classes), "classes": list(train.classes), "head": "linear"}
    content |= {"groups": {name: [group.start, group.stop] for name, group in train.groups.items()}}
    checkpoint.write(file, content | {"idx_to_class": dict(enumerate(train.keys))})
    return str(file)


@pytest.fixture
def photo(garments):
    return str(garments / "images" / "00001.jpg")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"all_val_inference": True}, "--all_val_inference changes nothing with --pic_path: leave it out"),
        ({"data": "DIR"}, "--data changes nothing with --pic_path: leave it out"),
        ({"images": "DIR"}, "--images changes nothing with --pic_path: leave it out"),
        ({"reviews": "none"}, "--reviews changes nothing with --pic_path: leave it out"),
        ({"class_description_path": "FILE"}, "--class_description_path changes nothing without --dataset_type OpenImages"),
        ({"path_dest": "DIR", "output": "FILE.csv"}, "--path_dest changes nothing with --output: leave it out"),
        ({"dataset_type": "coco"}, "--dataset_type coco: unknown, expected OpenImages, MS-COCO or flixstock"),
        ({"th": 70.0}, "--th 70: expected a number from 0 to 1"),
        ({"top_k": 0}, "--top_k 0: expected a whole number from 1 "),
        ({"abn": "torch"}, "--abn torch: test_resnet has no InPlace-ABN, expected a TResNet or no --abn"),
    ],
)  # fmt: skip
def test_infer_refuses_what_would_change_nothing(weights, photo, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        infer(InferenceOptions(pic_path=photo, model_path=weights, **HERE, **given), lambda _: None)
    assert not list(tmp_path.iterdir())


def test_infer_names_the_flags_of_old_command_lines_that_it_does_not_use(weights, photo, tmp_path):
    said = []
    options = {**HERE, "path_dest": str(tmp_path), "dataset_type": "flixstock", "th": 0.5, "top_k": 3}
    infer(InferenceOptions(pic_path=photo, model_path=weights, **options), said.append)
    for flag in ("--dataset_type flixstock: not used", "--th: not used, every class is a value", "--top_k: not used"):
        assert sum(line.startswith(flag) for line in said) == 1
    without = []
    infer(InferenceOptions(pic_path=photo, model_path=weights, **{**HERE, "path_dest": str(tmp_path)}), without.append)
    without = [line for line in without if "replaces the table of 1 other images" not in line]
    assert without == [line for line in said if ": not used" not in line]
    table = pd.read_csv(tmp_path / "results" / "predictions.csv")
    assert len(table) == 3  # one value of each attribute, whatever its score


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thre": 80.0}, "--thre 80: expected a number from 0 to 1"),
        ({"ignore_columns": ["neck"]}, "--ignore_columns: the network's own attributes are read"),
        ({"attributes": "neck:9"}, "--attributes: found neck:9, expected what the run was trained with"),
        ({"keep_unlabelled_images": True}, "keep_unlabelled_images: .* was read as a table, which does not take it"),
        ({"abn": "auto"}, "--abn auto: test_resnet has no InPlace-ABN"),
    ],
)  # fmt: skip
def test_validate_refuses_what_would_change_nothing(weights, garments, tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        validate(ValidateOptions(model_path=weights, data=str(garments), path_dest=str(tmp_path), **HERE, **given))


def test_validate_names_the_flags_of_old_command_lines_that_it_does_not_use(weights, garments, tmp_path, capsys):
    line = f"{garments} --model_path {weights} --image_size 32 -j 0 --device cpu --path_dest {tmp_path} --attributes neck:7"
    said = []
    for more in ("", " --dataset_type MS-COCO -p 64"):
        validate_cli.main(parsing.parse(validate_cli.parser(), (line + more).split()))
        said.append(capsys.readouterr().out)
        said.append(json.loads((tmp_path / "validation.json").read_text()))
    assert said[1] == said[3]
    assert said[2] == (
        "--dataset_type: not used, the format is detected\n--print_freq: not used, there is a progress bar\n" + said[0]
    )


def test_command_lines_of_the_original_still_run(weights, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = f"--dataset_type=MS-COCO --model_name=test_resnet --model_path={weights} --pic_path={photo} --input_size=32"
    infer_cli.main(parsing.parse(infer_cli.parser(), [*line.split(), "-j0", "--device=cpu"]))
    assert (tmp_path / "outputs" / "results" / "predictions.csv").is_file()
    assert "--dataset_type MS-COCO: not used" in capsys.readouterr().out


def test_heat_maps_are_drawn_of_the_images_that_are_shown(weights, garments, photo, tmp_path):
    def shape(pic_path):
        infer(
            InferenceOptions(pic_path=pic_path, model_path=weights, path_dest=str(tmp_path), heatmap=True, **HERE),
            said.append,
        )
        with Image.open(tmp_path / "results" / "heatmaps.png") as picture:
            return picture.size

    said = []
    one, several = shape(photo), shape(str(garments / "images"))
    assert "heatmaps.png" in said[-1]
    assert one[0] == several[0]  # the photo and three attributes
    assert several[1] > 5 * one[1]
