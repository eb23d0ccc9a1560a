"""--loss auto: which loss it takes on which labels, and that a run with it is the run with these flags."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.torch import save_file

from csl import InputError
from csl.labels import Annotations, LabelMatrix
from csl.models import create_model
from csl.runs.config import TrainConfig
from csl.training import auto
from csl.training.experiment import train

RUN = {"model_name": "test_resnet", "image_size": 32, "batch_size": 8, "epochs": 2, "workers": 0, "augment": "none",
       "device": "cpu", "lr": 1e-3}  # fmt: skip


def split(labels, groups=None):
    labels = np.array(labels, np.int8)
    classes = [f"c{c}" for c in range(labels.shape[1])]
    groups = groups or {name: slice(c, c + 1) for c, name in enumerate(classes)}
    return Annotations(
        [f"{n}.jpg" for n in range(len(labels))], LabelMatrix.from_dense(labels), classes, groups=groups, source="x.csv"
    )


ATTRIBUTE = {"colour": slice(0, 2)}
SOFTMAX = {"group_loss": "softmax"}
BY_PRIOR = {"loss": "annotation", "prior_path": "auto"}
CASES = [
    ([[1, 0], [0, 1], [-1, -1]], ATTRIBUTE, SOFTMAX),
    ([[1, -1, 0], [0, 1, -1], [-1, -1, 1]], None, BY_PRIOR),
    ([[1, 0, -1], [0, 1, 0], [-1, -1, 1]], {**ATTRIBUTE, "hat": slice(2, 3)}, {**BY_PRIOR, **SOFTMAX}),
    ([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], None, {"partial_loss_mode": "selective"}),
    ([[1, 0], [0, 1], [1, 1]], None, {"partial_loss_mode": "ignore", "gamma_neg": 0.0}),
]


@pytest.mark.parametrize(("labels", "groups", "expected"), CASES)
def test_the_loss_follows_the_labels(labels, groups, expected):
    config, lines = auto.chosen(TrainConfig(loss="auto", data="x", lr=0.5), split(labels, groups))
    assert config == TrainConfig(**{"data": "x", "lr": 0.5, "select_by": "auto", **expected})
    assert len(lines) == 2
    for name, value in expected.items():
        assert f"--{name} {value:g}" in lines[1] if isinstance(value, float) else f"--{name} {value}" in lines[1]
    assert auto.as_started(TrainConfig(loss="auto", data="x", lr=0.5), config.to_dict()) == config


@pytest.mark.parametrize(
    ("images", "pretrained", "epochs", "lr"),
    [(500, True, 30, 2e-4), (500, False, 60, 1e-3), (100_000, True, 25, 2e-4), (9_000_000, True, 3, 2e-4)],
)
def test_what_is_left_open_follows_the_number_of_images_and_the_start(images, pretrained, epochs, lr):
    left = TrainConfig(data="x", **dict.fromkeys(auto.OPEN))
    config, line = auto.settled(left, images, pretrained)
    assert config == TrainConfig(data="x", epochs=epochs, lr=lr, augment="fast")
    assert line.endswith(f"--epochs {epochs} --lr {lr:g} --augment fast")
    given = TrainConfig(data="x", epochs=7, lr=0.1, augment="none")
    assert auto.settled(given, images, pretrained) == (given, None)
    assert auto.settled(dataclasses.replace(given, lr=None), images, pretrained)[0].lr == lr
    assert auto.as_started(left, config.to_dict()) == config


def test_without_the_weights_it_goes_on_from_scratch(garments, tmp_path, no_pictures, monkeypatch):
    settings = {
        **RUN,
        "data": str(garments),
        "max_steps": 1,
        "model_path": "auto",
        "lr": None,
        "path_dest": str(tmp_path / "a"),
    }
    lines = []
    train(TrainConfig(**settings), lines.append)
    (line,) = [line for line in lines if line.startswith("start: ")]
    assert "from scratch, as timm/test_resnet: not downloaded" in line
    assert "by hand, its model.safetensors goes to pretrained_weights/test_resnet.safetensors" in line
    assert "settings for 20 images and a network from scratch: --lr 0.001" in lines
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (kept["model_path"], kept["lr"]) == (None, 1e-3)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained_weights").mkdir()
    save_file(create_model("test_resnet", 3).state_dict(), "pretrained_weights/test_resnet.safetensors")
    train(TrainConfig(**{**settings, "path_dest": "b"}), lines.append)
    assert "settings for 20 images and pretrained weights: --lr 0.0002" in lines
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_path"] == "timm/test_resnet"


def test_a_run_is_that_of_the_flags_and_goes_on_with_the_same_command(garments, tmp_path, no_pictures):
    best, said = [], []
    for name, loss in (("a", {"loss": "auto"}), ("b", {"group_loss": "softmax"})):
        settings = {**RUN, **loss, "data": str(garments), "path_dest": str(tmp_path / name)}
        train(TrainConfig(**settings, max_steps=2), lambda _: None)
        best.append(train(TrainConfig(**settings, resume=True), said.append))
    assert "loss auto: as the run was started, --loss csl --group_loss softmax" in said
    assert best[0] == best[1]
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (kept["loss"], kept["group_loss"]) == ("csl", "softmax")


def test_what_it_chooses_cannot_be_given_beside_it(garments, tmp_path):
    for settings in ({"gamma_neg": 2.0}, {"prior_path": "auto"}, {"group_loss": "softmax"}):
        (flag,) = settings
        with pytest.raises(InputError, match=f"--{flag} changes nothing with --loss auto, which chooses"):
            train(TrainConfig(**RUN, **settings, data=str(garments), loss="auto", path_dest=str(tmp_path / "a")), print)
    with pytest.raises(InputError, match="--dropout changes nothing with --head ml_decoder"):
        train(
            TrainConfig(
                **RUN, dropout=0.1, head="ml_decoder", data=str(garments), loss="auto", path_dest=str(tmp_path / "a")
            ),
            print,
        )
    assert not (tmp_path / "a").exists()
