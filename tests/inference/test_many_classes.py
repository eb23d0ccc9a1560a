"""Thousands of classes and attributes do not become thousands of lines: the first are printed, all are in a file."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from csl import checkpoint
from csl.inference.infer import InferenceOptions, infer
from csl.inference.validate import ValidateOptions, validate
from csl.labels.inspection import column_lines, inspect
from csl.labels.options import DataOptions
from csl.labels.read import read_annotations
from csl.models import create_model
from csl.training import report

MANY = 45
RUN = {"image_size": 32, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A table of many attributes and columns without labels, its photos, and a network of these attributes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({f"a{k}": rng.permutation(np.arange(12) % 3) for k in range(MANY)})
    dates = {f"date{k}": [f"2024-01-{i + 1:02}" for i in range(12)] for k in range(MANY)}
    table = table.assign(filename=[f"{i}.png" for i in range(12)], split=["train", "val"] * 6, **dates)
    table.to_csv(folder / "attributes.csv", index=False)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    torch.manual_seed(0)
    read = read_annotations(folder, split="val")
    content = {
        "model": create_model("test_resnet", 3 * MANY).state_dict(),
        "model_name": "test_resnet",
        "head": "linear",
    }
    content |= {"num_classes": 3 * MANY, "classes": list(read.classes), "idx_to_class": dict(enumerate(read.keys))}
    content |= {"groups": {name: [group.start, group.stop] for name, group in read.groups.items()}}
    checkpoint.write(folder / "w.ckpt", content)
    return folder


def test_inspect_and_train_show_the_first_columns_of_each_role(photos):
    lines = column_lines(read_annotations(photos, split="val"))
    assert sum(" attribute " in line for line in lines) == sum(" ignored " in line for line in lines) == 20
    (more,) = (line for line in lines if line.startswith("... and"))
    assert more.startswith("... and 25 more columns of role attribute, 25 more columns of role ignored; ")
    assert more.endswith(f"inspect {photos / 'attributes.csv'} --json prints all")
    assert len(inspect(DataOptions(data=str(photos / "attributes.csv")))[0]["columns"]) == 2 * MANY + 2


def test_validate_and_infer_name_the_file_of_the_rest(photos, tmp_path):
    said = []
    for i in (1, 3, 5):
        (photos / f"{i}.png").write_bytes(b"broken")
    options = {"model_path": str(photos / "w.ckpt"), **RUN}
    validate(ValidateOptions(data=str(photos), path_dest=str(tmp_path), **options), said.append)
    table = next(line for line in said if line.lstrip().startswith("attribute")).split("\n")
    assert len(table) == 22
    assert table[-1] == f"... and 25 more, in {tmp_path / 'validation_attributes.csv'}"
    assert len(pd.read_csv(tmp_path / "validation_attributes.csv")) == MANY
    assert len(pd.read_csv(tmp_path / "validation_bad_images.csv")) == 3
    assert json.loads((tmp_path / "validation.json").read_text())["split"] == "val"
    said.clear()
    infer(InferenceOptions(pic_path=str(photos / "9.png"), path_dest=str(tmp_path), **options), said.append)
    assert any(line.endswith(", and 15 more") for line in said)
    assert len(pd.read_csv(tmp_path / "results" / "predictions.csv")) == MANY


def test_a_prior_of_many_attributes_is_a_short_line():
    groups = {f"a{k}": slice(2 * k, 2 * k + 2) for k in range(1500)}
    lines = report.prior(torch.full((3000,), 0.5), 0.6, groups)
    assert max(map(len, lines)) < 300
    assert lines[1].endswith(" and 1,490 more")
